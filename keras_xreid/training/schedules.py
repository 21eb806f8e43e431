"""Learning rates that Keras has not."""

import math

import keras
from keras import ops


def rising_and_falling(steps, warm, peak=None, last=0.0):
    """A learning rate that rises in a line from a tenth of its peak, and falls along a cosine.

    Args:
        steps: int, train steps in all.
        warm: int, steps of the rise.
        peak: float, the highest learning rate; 1e-3 if None.
        last: float, share of the peak that is left at the end.
    """
    peak = peak or 1e-3
    return keras.optimizers.schedules.CosineDecay(
        peak / 10, max(1, steps - warm), alpha=last, warmup_target=peak, warmup_steps=warm
    )


def in_stages(preset, epochs, steps, periods=1, peak=None):
    """The learning rate of the resolution-adaptive system, whose masks come in one by one.

    Args:
        preset: "paper" takes the paper's: 3.5e-4, less by 10 after epochs 40 and 70 of 120, with
            ten epochs of warm-up (ours). The others rise and fall once, or once a period.
        epochs: int, epochs in all.
        steps: int, steps an epoch.
        periods: int, how often the schedule begins anew.
        peak: float, the highest learning rate of the other presets; 1e-3 if None.
    """
    schedules = keras.optimizers.schedules
    if preset != "paper":
        peak, whole = peak or 1e-3, max(1, epochs * steps)
        if periods == 1:
            return rising_and_falling(whole, max(1, whole // 10), peak)
        if preset == "strong":  # from trained weights no stage begins at the peak
            return RisingAndFalling(peak, whole, whole // periods // 10, periods)
        return schedules.CosineDecayRestarts(peak, -(-whole // periods), t_mul=1)
    boundaries, values = [], []
    for period in range(periods):
        begin, scale = period * epochs / periods, epochs / periods / 120
        marks = [*range(1, 10), 40, 70]
        rates = [*(3.5e-5 * n for n in range(1, 11)), 3.5e-5, 3.5e-6]
        boundaries += [begin] * bool(period) + [begin + mark * scale for mark in marks]
        values += rates
    boundaries = [round(boundary * steps) for boundary in boundaries]
    return schedules.PiecewiseConstantDecay(boundaries, values)


@keras.saving.register_keras_serializable("keras_xreid")
class RisingAndFalling(keras.optimizers.schedules.LearningRateSchedule):
    """Rises in a line to a peak, falls along a cosine to 0, and begins anew in each period.

    Args:
        peak: float, the highest learning rate.
        steps: int, train steps in all.
        warm: int, steps of each rise, which starts at a tenth of the peak.
        periods: int, how often it rises; the steps are shared equally.

    Example:

    >>> rate = RisingAndFalling(1e-3, steps=100, warm=10, periods=2)
    >>> float(rate(0)), float(rate(10)), float(rate(50))    # 1e-4, 1e-3, 1e-4
    """

    def __init__(self, peak, steps, warm, periods=1):
        self.peak, self.steps, self.warm, self.periods = peak, steps, warm, periods

    def __call__(self, step):
        period = max(1, math.ceil(self.steps / self.periods))
        warm = max(1, min(self.warm, period))
        now = ops.mod(ops.cast(step, "float32"), float(period))
        rising = 0.1 + 0.9 * now / warm
        falling = (1 + ops.cos(math.pi * (now - warm) / max(1, period - warm))) / 2
        return self.peak * ops.where(now < warm, rising, falling)

    def get_config(self):
        return {
            "peak": self.peak,
            "steps": self.steps,
            "warm": self.warm,
            "periods": self.periods,
        }
