"""The names of the backbones, for whoever lists them without waiting for Keras."""

NAMES = (
    "resnet50",
    "resnet_tiny",
    "efficientnet_lite0",
    "efficientnet_lite2",
    "osnet_x1_0",
    "osnet_x0_75",
    "osnet_x0_5",
    "osnet_x0_25",
)
