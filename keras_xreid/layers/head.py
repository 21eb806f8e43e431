"""From a backbone's last feature map to an embedding and to the people it was trained on."""

import keras
from keras import layers

from keras_xreid.errors import InputError
from keras_xreid.layers.backbone import build_backbone, own_copy


def build_reid_network(people, backbone, image_size, weights=None, last_stride=1, parts=1):
    """Builds a re-identification network: backbone, average pooling, embedding, classifier.

    OSNet has a fully connected layer of 512 with batch normalization and ReLU before its
    embedding, as published; with the ResNets the average of the last feature map is the embedding.

    Args:
        people: int, number of training people, the classifier's outputs.
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone, which is copied.
        image_size: (height, width) of its input.
        weights: None or "imagenet", for the backbone.
        last_stride: 1 or 2, stride of the last stage of a ResNet.
        parts: the last feature map is cut into so many horizontal stripes, head to feet, whose
            averages are put behind each other; its height must be a multiple of it.

    Returns:
        A functional `keras.Model` from (n, height, width, 3) in [0, 1] to a list: the embedding,
        (n, d), and the classifier's logits, (n, people).

    Raises:
        InputError: a number of parts that the feature map's height is no multiple of.

    Reference:
        Sun et al., "Beyond Part Models", ECCV 2018, for the stripes; one classifier sees them all.
    """
    # A copy: freezing this network, or training it, leaves the given backbone as it is.
    backbone = own_copy(backbone)
    network = build_backbone(backbone, image_size, weights=weights, last_stride=last_stride)
    image = keras.Input((*image_size, 3), name="image")
    taps = network(image)
    x = taps[-1]
    if parts == 1:
        x = layers.GlobalAveragePooling2D(data_format="channels_last", name="pool")(x)
    else:
        height, width = x.shape[1:3]
        if parts < 1 or height % parts:
            raise InputError(
                f"{parts} parts of a feature map {height} high: give a number that divides it"
            )
        pool = layers.AveragePooling2D(
            (height // parts, width), data_format="channels_last", name="pool"
        )
        x = layers.Reshape((parts * x.shape[-1],), name="parts")(pool(x))
    if isinstance(backbone, str) and backbone.startswith("osnet"):
        x = layers.Dense(512, name="fc")(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="fc_bn")(x)
        x = layers.Activation("relu", name="embedding")(x)
    logits = layers.Dense(people, name="classifier")(x)
    return keras.Model(image, [x, logits], name="reid")
