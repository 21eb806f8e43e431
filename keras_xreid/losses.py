"""Loss functions: pure functions of tensors, each a mean over the batch, in float32.

The papers print norms as sums. Here every norm is a mean over its elements, so that a weight
does not depend on the image size or on the width of a feature.

A label of -1 marks an image of somebody unknown: it takes no part in a loss that needs labels.
"""

from keras import ops


def _mean_where(part, values):
    """Mean of those values that take part; 0 where none does."""
    part = ops.cast(part, "float32")
    return ops.sum(part * values) / ops.maximum(ops.sum(part), 1.0)


def cross_entropy(labels, logits, label_smoothing=0.0):
    """Identity classification loss, -log p_y (INTACT Eq. 3).

    Args:
        labels: (n,) integers, 0 to people - 1; -1 takes no part.
        logits: (n, people).
        label_smoothing: float in [0, 1), the share of probability spread over all people.

    Returns:
        A scalar, in nats; 0 where nobody has a label, and not a number where a label is `people` or
        more, on every backend.

    Example:

    >>> float(cross_entropy([1], [[0.0, 0.0]]))   # ln 2
    0.6931...
    """
    labels = ops.cast(labels, "int32")
    log_p = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    people = log_p.shape[-1]
    target = ops.one_hot(ops.clip(labels, 0, people - 1), people, dtype="float32")
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + label_smoothing / people
    # Somebody who is none of the classes would be a loss of 0 on one backend and end another.
    wrong = ops.where(ops.any(labels >= people), float("nan"), 0.0)
    return wrong - _mean_where(labels >= 0, ops.sum(target * log_p, axis=-1))


def triplet(features, labels, margin, squared=False):
    """Batch-hard triplet loss, max(0, margin + d_pos - d_neg) (RAIN Eq. 6, CAD-Net Eq. 5).

    Each image is an anchor once, with the farthest image of its person in the batch as the
    positive and the nearest one of another person as the negative. An anchor without one of them
    takes no part.

    Args:
        features: (n, d), not normalised here.
        labels: (n,) integers; -1 takes no part, as an anchor or otherwise.
        margin: float, in units of the distance.
        squared: bool, squared Euclidean distances instead of Euclidean ones.

    Returns:
        A scalar, in units of the distance: the mean over the anchors that take part, 0 for none.

    Example:

    >>> float(triplet([[0.0], [1.0], [3.0], [4.0]], [0, 0, 1, 1], margin=2.0))
    0.5

    Reference:
        Hermans, Beyer, Leibe: In Defense of the Triplet Loss for Person Re-Identification, 2017.
    """
    return _batch_hard(features, features, labels, margin, squared)


def octuplet_loss(high, low, labels, margin=0.5):
    """Octuplet loss: batch-hard triplets within and between HR and LR images.

    It is the sum of four triplet losses, max(0, margin + d_pos - d_neg), in Euclidean distances.
    The anchor is an HR or an LR image, and positive and negative are both HR or both LR: HR-HR,
    HR-LR, LR-HR, LR-LR. The anchor's own image at the other resolution is no positive, as in the
    published code.

    Args:
        high: (n, d) features of HR images, not normalised here.
        low: (n, d) features of the same images at LR.
        labels: (n,) integers; -1 takes no part.
        margin: float, in units of the distance.

    Returns:
        A scalar, in units of the distance: four means over the anchors that take part, added up.

    Example:

    >>> x = [[0.0], [1.0], [3.0], [4.0]]
    >>> float(octuplet_loss(x, x, [0, 0, 1, 1], margin=2.0))
    2.0

    Reference:
        Knoche et al.: Octuplet Loss: Make Face Recognition Robust to Image Resolution, FG 2023.
    """
    both = (high, low)
    return sum(_batch_hard(a, b, labels, margin) for a in both for b in both)


def _batch_hard(anchors, others, labels, margin, squared=False):
    """Batch-hard triplets whose positives and negatives are among others, of the same labels."""
    anchors, others = ops.cast(anchors, "float32"), ops.cast(others, "float32")
    labels = ops.cast(labels, "int32")
    known = labels >= 0
    both = ops.logical_and(known[:, None], known[None, :])
    equal = labels[:, None] == labels[None, :]
    place = ops.cumsum(ops.ones_like(labels))
    itself = place[:, None] == place[None, :]
    same = ops.logical_and(ops.logical_and(both, equal), ops.logical_not(itself))
    other = ops.logical_and(both, ops.logical_not(equal))
    # Chosen by all distances at once, |a|^2 - 2ab + |b|^2, which need no gradient and lose few
    # digits around the batch's mean; then measured from the difference.
    mean = ops.mean(others, axis=0)
    a, b = ops.stop_gradient(anchors - mean), ops.stop_gradient(others - mean)
    products = ops.matmul(a, ops.transpose(b))
    lengths = [ops.sum(ops.square(x), axis=1) for x in (a, b)]
    distances = lengths[0][:, None] - 2.0 * products + lengths[1][None, :]
    farthest = ops.argmax(ops.where(same, distances, -float("inf")), axis=1)
    nearest = ops.argmin(ops.where(other, distances, float("inf")), axis=1)

    def distance(partner):
        square = ops.sum(ops.square(anchors - ops.take(others, partner, axis=0)), axis=1)
        # At 0 the square root has no finite slope: there the distance is 1e-6, and its slope 0.
        return square if squared else ops.sqrt(ops.maximum(square, 1e-12))

    hinge = ops.relu(margin + distance(farthest) - distance(nearest))
    return _mean_where(ops.logical_and(ops.any(same, axis=1), ops.any(other, axis=1)), hinge)


def verification(logits, same):
    """Whether two images show one person: binary cross-entropy.

    Args:
        logits: (n,) or (n, 1), before the sigmoid, positive for one person.
        same: (n,) integers or bools, 1 for one person, 0 for two; -1 takes no part.

    Returns:
        A scalar, in nats; ln 2 for a guess, and 0 where no pair takes part.
    """
    logits = ops.reshape(ops.cast(logits, "float32"), (-1,))
    same = ops.reshape(ops.cast(same, "int32"), (-1,))
    return _mean_where(same >= 0, ops.softplus(ops.where(same == 1, -logits, logits)))


def absolute_error(a, b):
    """Mean absolute difference, over every element (RAIN Eq. 2).

    Args:
        a: tensor of any shape.
        b: tensor of the same shape.

    Returns:
        A scalar, in units of `a`.
    """
    return ops.mean(ops.abs(ops.cast(a, "float32") - ops.cast(b, "float32")))


def squared_error(a, b):
    """Mean squared difference, over every element (INTACT Eq. 4 to 8).

    Args:
        a: tensor of any shape.
        b: tensor of the same shape.

    Returns:
        A scalar, in squared units of `a`.
    """
    return ops.mean(ops.square(ops.cast(a, "float32") - ops.cast(b, "float32")))


def unit(x):
    """Scales each row of a matrix to length 1; one of zeros stays so.

    Args:
        x: (n, d).

    Returns:
        (n, d) float32.
    """
    x = ops.cast(x, "float32")
    square = ops.sum(ops.square(x), axis=-1, keepdims=True)
    # The slope of `ops.normalize` at 0 is NaN or huge, each backend has its own; here it is 1.
    return x * ops.rsqrt(ops.where(square > 1e-12, square, 1.0))


def cosine_distance(a, b):
    """Mean of 1 - cosine between the rows of two matrices.

    Args:
        a: (n, d).
        b: (n, d).

    Returns:
        A scalar in [0, 2]; 0 where each row of `a` points where that of `b` does.
    """
    return 1.0 - ops.mean(ops.sum(unit(a) * unit(b), axis=-1))


def critic_accuracy(real_logits, fake_logits):
    """How often a discriminator is right: the mean of its shares on the two kinds.

    Args:
        real_logits: tensor of any shape, before the sigmoid.
        fake_logits: likewise; their number may differ.

    Returns:
        A scalar in [0, 1]; 0.5 for a discriminator that knows nothing.
    """
    real = ops.mean(ops.cast(real_logits > 0, "float32"))
    return (real + ops.mean(ops.cast(fake_logits <= 0, "float32"))) / 2.0


def discriminator_loss(real_logits, fake_logits):
    """What a discriminator minimises: -log D(real) - log(1 - D(fake)) (INTACT Eq. 1).

    Args:
        real_logits: tensor of any shape, a logit an image or a map of them, before the sigmoid.
        fake_logits: likewise; their number may differ.

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
        fake_logits: tensor of any shape, before the sigmoid.

    Returns:
        A scalar, in nats.
    """
    return ops.mean(ops.softplus(-ops.cast(fake_logits, "float32")))
