"""Galleries: embeddings that are searched, with camera, time and rate beside each of them."""

from keras_xreid.gallery.memory import Found, Gallery
from keras_xreid.gallery.told import about_model

__all__ = ["Found", "Gallery", "about_model"]
