"""The settings of a system: its presets, and the weights of its losses."""

import types

from keras_xreid.data.resolution import check_rates
from keras_xreid.errors import InputError, check_number

# What the strong preset of every system shares: a backbone that starts from ImageNet and is quick
# on a CPU, and the field's tricks (Luo et al., Bag of Tricks, CVPR Workshops 2019).
STRONG = {
    "backbone": "efficientnet_lite0",
    "image_size": (128, 64),
    "neck": True,
    "label_smoothing": 0.1,
    "margin": 0.3,
    "unit_triplet": True,
    "flip": True,
}


def preset_or(presets, preset, **given):
    """What was given to a constructor, and where that is None what the preset has, or nothing.

    Args:
        presets: dict of a system's presets, each a dict.
        preset: the name of one.
        **given: arguments, None where the preset is to say.

    Returns:
        A namespace of these arguments; what neither says is False, which also is a weight of 0.

    Raises:
        InputError: there is no such preset.
    """
    if not isinstance(preset, str) or preset not in presets:
        raise InputError(f"unknown preset {preset!r}: known are {', '.join(presets)}")
    found = {k: presets[preset].get(k, False) if v is None else v for k, v in given.items()}
    return types.SimpleNamespace(**found)


def check_loss_weights(*weights):
    """Refuses a negative weight, and weights that leave no loss.

    Args:
        *weights: floats.

    Raises:
        InputError: such a weight.
    """
    if min(weights) < 0 or not any(weights):
        raise InputError(
            f"weights of the losses {', '.join(f'{w:g}' for w in weights)}: "
            "give 0 (off) or more, and not all 0"
        )


def check_settings(label_smoothing=0.0, **others):
    """Refuses a label smoothing outside of [0, 1), and other settings below 0.

    Args:
        label_smoothing: float.
        **others: floats by their names, such as margins and weights.

    Raises:
        InputError: such a setting.
    """
    for name, value in {"label_smoothing": label_smoothing, **others}.items():
        check_number(name, value, 0, whole=False)
    if label_smoothing >= 1:
        raise InputError(f"label_smoothing is {label_smoothing}: give 0 or more, below 1")


def check_each_rate(rates):
    """Refuses rates below 1, and one that is there twice.

    Args:
        rates: list of down-sampling rates.

    Raises:
        InputError: such a rate.
    """
    check_rates(rates)
    if len(set(rates)) < len(rates):
        raise InputError(f"rates {tuple(rates)}: give each level's rate once")
