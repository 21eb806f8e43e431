"""From a backbone's last feature map to an embedding and to the people it was trained on."""

import keras
from keras import layers

from keras_xreid.backbones.build import build_backbone, own_copy


def build_reid_network(people, backbone, image_size, weights=None, last_stride=1, neck=False):
    """Builds a re-identification network: backbone, average pooling, embedding, classifier.

    OSNet has a fully connected layer of 512 with batch normalization and ReLU before its
    embedding, as published; with the ResNets the average of the last feature map is the embedding.

    Args:
        people: int, number of training people, the classifier's outputs.
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone, which is copied.
        image_size: (height, width) of its input.
        weights: None, "imagenet" or a model to copy from, for the backbone.
        last_stride: 1 or 2, stride of the last stage; OSNet's is 1.
        neck: bool, a BNNeck: batch normalization without shift between the pooled feature and
            the embedding, and a classifier without bias.

    Returns:
        A functional `keras.Model` from (n, height, width, 3) in [0, 1] to a list: the embedding,
        (n, d), the classifier's logits, (n, people), and, with a neck, the feature before it,
        (n, d), which a triplet loss compares.

    Reference:
        Luo et al., Bag of Tricks and a Strong Baseline for Deep Person Re-Identification, CVPR
        Workshops 2019, Figure 5 (BNNeck).
    """
    # A copy: freezing this network, or training it, leaves the given backbone as it is.
    backbone = own_copy(backbone)
    network = build_backbone(backbone, image_size, weights=weights, last_stride=last_stride)
    image = keras.Input((*image_size, 3), name="image")
    taps = network(image)
    x = layers.GlobalAveragePooling2D(data_format="channels_last", name="pool")(taps[-1])
    if isinstance(backbone, str) and backbone.startswith("osnet"):
        x = layers.Dense(512, name="fc")(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="fc_bn")(x)
        x = layers.Activation("relu", name="embedding")(x)
    if neck:
        embedding = build_neck(x.shape[-1])(x)
        logits = classifier(people, neck, "classifier")(embedding)
        return keras.Model(image, [embedding, logits, x], name="reid")
    logits = classifier(people, neck, "classifier")(x)
    return keras.Model(image, [x, logits], name="reid")


def build_neck(size):
    """BNNeck: batch normalization that scales and does not shift, for features of `size`."""
    neck = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, center=False, name="neck")
    neck.build((None, size))
    return neck


def classifier(people, neck, name):
    """The layer from an embedding to people; behind a neck without bias, and small at first."""
    if not neck:
        return layers.Dense(people, name=name)
    # As Luo et al. have it. The neck's features have deviation 1, whatever the backbone gives.
    small = keras.initializers.RandomNormal(stddev=0.001)
    return layers.Dense(people, use_bias=False, kernel_initializer=small, name=name)
