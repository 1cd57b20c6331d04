"""Keras' optimizers with a weight average that forgets its first values."""

import keras
from keras import ops


class _AverageWarmup:
    """Limits the momentum of the average in the first steps.

    Keras' average starts from the weights after the first step, which are
    almost the random initial weights: with a momentum of 0.995, 30 % of them
    are left after 240 steps. Here the momentum in step `t`, counted from 0, is
    `min(ema_momentum, t / (t + 9))`, TensorFlow's rule (`num_updates` of
    `tf.train.ExponentialMovingAverage`): a short run averages over its last
    tenth, and a long run over `1 / (1 - ema_momentum)` steps.
    """

    def _update_model_variables_moving_average(self, trainable_variables):
        # The average starts at zero; the first step has a momentum of 0.
        step = ops.cast(self.iterations, "float32")
        momentum = ops.minimum(self.ema_momentum, step / (step + 9.0))
        for variable, average in zip(
            trainable_variables,
            self._model_variables_moving_average,
            strict=True,
        ):
            # Keras has no average for variables that gradients overwrite.
            if average is not None:
                m = ops.cast(momentum, variable.dtype)
                average.assign(m * average + (1 - m) * variable)


@keras.saving.register_keras_serializable(package="keras_sasa")
class AveragingSGD(_AverageWarmup, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with a warm-up of its weight average.

    The momentum of the average in step `t`, counted from 0, is
    `min(ema_momentum, t / (t + 9))`, so that the average of a short run
    contains next to nothing of the initial weights.

    Args:
        *args: Passed to `keras.optimizers.SGD`.
        **kwargs: Passed to `keras.optimizers.SGD`; `use_ema=True` turns the
            average on.

    Example:

    >>> from keras_sasa.optimizers import AveragingSGD
    >>> optimizer = AveragingSGD(0.1, use_ema=True, ema_momentum=0.999)
    """


@keras.saving.register_keras_serializable(package="keras_sasa")
class AveragingAdamW(_AverageWarmup, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with a warm-up of its weight average.

    The momentum of the average in step `t`, counted from 0, is
    `min(ema_momentum, t / (t + 9))`, so that the average of a short run
    contains next to nothing of the initial weights.

    Args:
        *args: Passed to `keras.optimizers.AdamW`.
        **kwargs: Passed to `keras.optimizers.AdamW`; `use_ema=True` turns the
            average on.

    Example:

    >>> from keras_sasa.optimizers import AveragingAdamW
    >>> optimizer = AveragingAdamW(1e-3, use_ema=True, ema_momentum=0.999)
    """
