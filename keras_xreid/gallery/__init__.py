"""Galleries: embeddings that are searched, with camera, time and rate beside each of them."""

from keras_xreid.gallery.memory import Found, Gallery, about_model

__all__ = ["Found", "Gallery", "about_model"]
