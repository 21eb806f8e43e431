"""Learning rates that Keras has not."""

import math

import keras
from keras import ops


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
