"""Loss functions: pure functions of tensors, each a mean over the batch, in float32.

The papers print norms as sums. Here every norm is a mean over its elements, so that a weight
does not depend on the image size or on the width of a feature.
"""

from keras import ops


def cross_entropy(labels, logits, label_smoothing=0.0):
    """Identity classification loss, -log p_y (INTACT Eq. 3).

    Args:
        labels: (n,) integers, 0 to people - 1.
        logits: (n, people).
        label_smoothing: float in [0, 1), the share of probability spread over all people.

    Returns:
        A scalar, in nats.

    Example:

    >>> float(cross_entropy([1], [[0.0, 0.0]]))   # ln 2
    0.6931...
    """
    log_p = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    target = ops.one_hot(ops.cast(labels, "int32"), log_p.shape[-1], dtype="float32")
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + label_smoothing / log_p.shape[-1]
    return -ops.mean(ops.sum(target * log_p, axis=-1))


def squared_error(a, b):
    """Mean squared difference, over every element (INTACT Eq. 4 to 8).

    Args:
        a: tensor of any shape.
        b: tensor of the same shape.

    Returns:
        A scalar, in squared units of `a`.
    """
    return ops.mean(ops.square(ops.cast(a, "float32") - ops.cast(b, "float32")))


def discriminator_loss(real_logits, fake_logits):
    """What a discriminator minimises: -log D(real) - log(1 - D(fake)) (INTACT Eq. 1).

    Args:
        real_logits: (n, 1), before the sigmoid.
        fake_logits: (m, 1), before the sigmoid.

    Returns:
        A scalar, in nats; 2 ln 2 for a discriminator that knows nothing.
    """
    real = ops.cast(real_logits, "float32")
    fake = ops.cast(fake_logits, "float32")
    return ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake))


def generator_loss(fake_logits):
    """What a generator minimises, in its non-saturating form: -log D(fake).

    The paper prints log(1 - D(fake)) (INTACT Eq. 1), whose gradient vanishes where the
    discriminator is sure; this one has the same fixed points.

    Args:
        fake_logits: (n, 1), before the sigmoid.

    Returns:
        A scalar, in nats.
    """
    return ops.mean(ops.softplus(-ops.cast(fake_logits, "float32")))
