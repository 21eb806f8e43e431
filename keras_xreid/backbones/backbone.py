"""The old name of `build.py`, which the recipes still import; delete it with their imports."""

from keras_xreid.backbones.build import IMAGENET_MEAN, IMAGENET_STD, NAMES, build_backbone
from keras_xreid.backbones.resnet import copy_resnet50

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "NAMES", "build_backbone", "copy_resnet50"]
