"""Checks of labels in all forms of data that `keras.Model.fit` takes."""

import contextlib
import functools
import inspect
import types

import keras

from keras_sasa.detection import label_checks, labels


@contextlib.contextmanager
def checked_arguments(
    method, model, args, kwargs, num_classes, bounding_box_format
):
    """Context in which a method of `keras.Model` runs on checked labels.

    Args:
        method: Name of the method, for instance `"fit"`.
        model: The `keras.Model`.
        args: Positional arguments of the method.
        kwargs: Keyword arguments of the method.
        num_classes: Integer.
        bounding_box_format: Format of the boxes, see `RetinaNet`.

    Yields:
        Dict of keyword arguments for the method, with checked data.

    Raises:
        ValueError: If labels are wrong, also if they are found to be wrong
            while the method runs.
    """
    signature = inspect.signature(getattr(keras.Model, method))
    arguments = signature.bind(model, *args, **kwargs).arguments
    del arguments["self"]
    arguments.update(arguments.pop("kwargs", {}))
    data = CheckedData(num_classes, bounding_box_format)
    names = ("x", "y", "sample_weight")
    checked = data.wrap(*(arguments.get(name) for name in names))
    arguments.update(zip(names, checked, strict=True))
    validation = arguments.get("validation_data")
    if isinstance(validation, (tuple, list)):
        arguments["validation_data"] = data.wrap(*validation)
    elif validation is not None:
        arguments["validation_data"] = data.wrap(validation)[0]
    try:
        yield arguments
    except Exception:
        if data.error is None:
            raise
        raise data.error from None


class CheckedData:
    """Wraps data so that the labels of each batch are checked and dense.

    Args:
        num_classes: Integer.
        bounding_box_format: Format of the boxes, see `RetinaNet`.

    Attributes:
        error: The error that stopped a `tf.data` pipeline, or `None`.
            TensorFlow raises an error of its own instead.
    """

    def __init__(self, num_classes, bounding_box_format):
        self._options = {
            "num_classes": num_classes,
            "bounding_box_format": bounding_box_format,
        }
        self.error = None

    def wrap(self, x, y=None, sample_weight=None):
        """Wraps the three arguments of `fit`.

        Args:
            x: Images, or all data as a `tf.data.Dataset`, a generator or a
                `keras.utils.PyDataset`. Other objects are returned unchanged.
            y: Dict of `"boxes"` and `"labels"`: arrays, ragged tensors, or
                lists of an array for each image.
            sample_weight: A number for each image.

        Returns:
            `(x, y, sample_weight)`.

        Raises:
            ValueError: If labels in memory are wrong.
        """
        prepare = functools.partial(_prepare_batch, **self._options)
        if hasattr(x, "element_spec") and hasattr(x, "map"):
            return self._wrap_dataset(x), y, sample_weight
        if isinstance(x, types.GeneratorType):
            return (prepare(batch) for batch in x), y, sample_weight
        if isinstance(x, keras.utils.PyDataset):
            return _CheckedPyDataset(x, prepare), y, sample_weight
        if y is None and not hasattr(x, "shape"):
            return x, y, sample_weight
        y = labels.prepare_arrays(x, y, **self._options)
        return x, y, labels.prepare_weights(sample_weight)

    def _wrap_dataset(self, dataset):
        import tensorflow as tf

        spec = dataset.element_spec
        spec = spec if isinstance(spec, tuple) else (spec,)
        # Finds wrong keys and shapes before the first batch.
        boxes, classes = labels.split(spec[1] if len(spec) > 1 else None)
        if None not in (boxes.shape.rank, classes.shape.rank):
            label_checks.check_shapes(boxes.shape, classes.shape)
        for name, values in (("boxes", boxes), ("labels", classes)):
            if not (values.dtype.is_floating or values.dtype.is_integer):
                raise ValueError(
                    f"`{name}` must be numbers. Received: {name} of type "
                    f"{values.dtype.name}."
                )
        if len(spec) > 2 and isinstance(spec[2], dict):
            # Raises an error.
            labels.prepare_weights(spec[2])

        def check(shape, boxes, classes, weights, *counts):
            try:
                if len(counts) == 2:
                    label_checks.check_counts(*counts)
                label_checks.check_values(
                    boxes, classes, shape, **self._options
                )
                labels.prepare_weights(weights)
            except ValueError as error:
                self.error = error
                raise
            return classes

        def prepare(images, y, *weights):
            boxes, classes = labels.dense(y)
            # If the last axis is ragged too, its size is not known to a batch
            # without boxes.
            boxes = tf.reshape(boxes, [*tf.unstack(tf.shape(boxes)[:2]), 4])
            boxes = tf.cast(boxes, "float32")
            # Weights may also be `None`.
            weight = next((w for w in weights if w is not None), tf.ones(1))
            counts = [
                values.row_lengths()
                for values in labels.split(y)
                if isinstance(values, tf.RaggedTensor)
            ]
            checked = tf.numpy_function(
                check,
                [tf.shape(images), boxes, classes, weight, *counts],
                classes.dtype,
            )
            checked = tf.ensure_shape(checked, classes.shape)
            return images, {"boxes": boxes, "labels": checked}, *weights

        return dataset.map(prepare)


class _CheckedPyDataset(keras.utils.PyDataset):
    """A `keras.utils.PyDataset` with every batch prepared."""

    def __init__(self, dataset, prepare):
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self._dataset = dataset
        self._prepare = prepare

    @property
    def num_batches(self):
        return self._dataset.num_batches

    def __getitem__(self, index):
        return self._prepare(self._dataset[index])

    def on_epoch_begin(self):
        self._dataset.on_epoch_begin()

    def on_epoch_end(self):
        self._dataset.on_epoch_end()


def _prepare_batch(batch, **options):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    return keras.utils.pack_x_y_sample_weight(
        x,
        labels.prepare_arrays(x, y, **options),
        labels.prepare_weights(sample_weight),
    )
