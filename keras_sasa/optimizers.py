"""Keras' optimizers, with a moving average that forgets its first weights."""

import keras
from keras import ops


class _AverageWarmup:
    """Limits the momentum of the average in the first steps.

    Keras' average starts from the weights after the first step, which are
    almost the random initial ones: with a momentum of 0.995, 30 % of them are
    left after 240 steps. Here the momentum in step `t`, counted from 0, is
    `min(ema_momentum, t / (t + 9))`, TensorFlow's rule (`num_updates` of
    `tf.train.ExponentialMovingAverage`): the average is over the last tenth of
    a short training, and over `1 / (1 - ema_momentum)` steps of a long one.
    """

    def _update_model_variables_moving_average(self, trainable_variables):
        # The first step has a momentum of 0: the average begins as a zero.
        step = ops.cast(self.iterations, "float32")
        momentum = ops.minimum(self.ema_momentum, step / (step + 9.0))
        for variable, average in zip(
            trainable_variables,
            self._model_variables_moving_average,
            strict=True,
        ):
            # Keras keeps no average of variables that gradients overwrite.
            if average is not None:
                m = ops.cast(momentum, variable.dtype)
                average.assign(m * average + (1 - m) * variable)


@keras.saving.register_keras_serializable(package="keras_sasa")
class AveragingSGD(_AverageWarmup, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with a warm-up of its average of the weights.

    The momentum of the average in step `t`, counted from 0, is
    `min(ema_momentum, t / (t + 9))`, so that the average of a short training
    holds next to nothing of the initial weights.

    Args:
        *args: As of `keras.optimizers.SGD`.
        **kwargs: The same; the average is kept with `use_ema=True`.

    Example:

    >>> from keras_sasa.optimizers import AveragingSGD
    >>> optimizer = AveragingSGD(0.1, use_ema=True, ema_momentum=0.999)
    """


@keras.saving.register_keras_serializable(package="keras_sasa")
class AveragingAdamW(_AverageWarmup, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with a warm-up of its average of the weights.

    The momentum of the average in step `t`, counted from 0, is
    `min(ema_momentum, t / (t + 9))`, so that the average of a short training
    holds next to nothing of the initial weights.

    Args:
        *args: As of `keras.optimizers.AdamW`.
        **kwargs: The same; the average is kept with `use_ema=True`.

    Example:

    >>> from keras_sasa.optimizers import AveragingAdamW
    >>> optimizer = AveragingAdamW(1e-3, use_ema=True, ema_momentum=0.999)
    """
