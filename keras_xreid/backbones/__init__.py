"""Backbones: from an image to the feature maps of its five stages."""

from keras_xreid.backbones.names import NAMES

__all__ = ["NAMES", "build_backbone", "build_extractor", "build_stages"]


def __getattr__(name):
    # Imported when it is used: whoever needs the names alone does not wait for Keras.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from keras_xreid.backbones import build

    return getattr(build, name)
