"""Callbacks of the training of detectors."""

import keras

from keras_sasa.data.detection.detection_data import DetectionData
from keras_sasa.training.detection.evaluation import evaluate
from keras_sasa.training.engine.recipe import Recipe


class MeasurePrecision(keras.callbacks.Callback):
    """Adds `val_AP` and `val_AP50` to the logs of every epoch.

    They are measured with the weights of the validation loss.

    Args:
        data: A `DetectionData`.
        recipe: A `Recipe`, of which batch size and image size are used.
    """

    def __init__(self, data: DetectionData, recipe: Recipe):
        super().__init__()
        self.data = data
        self.recipe = recipe
        self._measured = {}

    def on_test_end(self, logs=None):
        measured = evaluate(self.model, self.data, self.recipe)
        self._measured = {
            f"val_{name}": measured[name] for name in ("AP", "AP50")
        }

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs.update(self._measured)
