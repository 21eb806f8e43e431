"""From a backbone's last feature map to an embedding and to the people it was trained on."""

import keras
from keras import layers

from keras_xreid.layers.backbone import build_backbone, own_copy


def build_reid_network(people, backbone, image_size, weights=None, last_stride=1):
    """Builds a re-identification network: backbone, average pooling, embedding, classifier.

    OSNet has a fully connected layer of 512 with batch normalization and ReLU before its
    embedding, as published; with the ResNets the average of the last feature map is the embedding.

    Args:
        people: int, number of training people, the classifier's outputs.
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone, which is copied.
        image_size: (height, width) of its input.
        weights: None, "imagenet" or a model to copy from, for the backbone.
        last_stride: 1 or 2, stride of the last stage; OSNet's is 1.

    Returns:
        A functional `keras.Model` from (n, height, width, 3) in [0, 1] to a list: the embedding,
        (n, d), and the classifier's logits, (n, people).
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
    logits = layers.Dense(people, name="classifier")(x)
    return keras.Model(image, [x, logits], name="reid")
