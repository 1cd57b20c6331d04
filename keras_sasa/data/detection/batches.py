"""The `tf.data` pipelines of detectors.

Images stay bytes from 0 to 255; the network scales them.
"""

import tensorflow as tf

from keras_sasa.data.augmentation import find_augmentation
from keras_sasa.data.detection.box_transforms import clip_to_square, random_flip
from keras_sasa.data.detection.detection_data import DetectionData
from keras_sasa.data.epochs import (
    InputRecipe,
    epochs_of_batches,
    steps_per_epoch,
)
from keras_sasa.data.resizing import letterbox

# The size of the shuffle buffer for images that are not files.
_SHUFFLE_BUFFER = 1000
BOX_FORMAT = "xyxy"
# Pads the boxes and labels of images with fewer boxes than others, and the
# ids of images in the last batch.
PADDING = -1
# Batches are padded to this number of boxes, or twice, four times, ... as many.
_MIN_BOXES = 8


def training_batches(
    data: DetectionData,
    recipe: InputRecipe,
    seed: int = 0,
    initial_epoch: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Makes the batches of all epochs, one after the other.

    Boxes of crowds are left out, and so are boxes that the augmentation cuts
    off.

    Args:
        data: A `DetectionData`.
        recipe: A `Recipe`, or another object with the attributes `epochs`,
            `batch_size`, `image_size`, `augmentation` and `flip`.
        seed: Integer. Equal seeds give equal batches.
        initial_epoch: Integer, the epoch to begin with.
        shard: Pair of integers `(index, count)`: this process computes part
            `index` of `count` parts of every batch.

    Returns:
        A `tf.data.Dataset` of pairs `(images, labels)`: `uint8`
        `(batch, image_size, image_size, channels)`, and the dict of `"boxes"`
        (in `BOX_FORMAT`) and `"labels"` that `RetinaNet` learns from, padded
        with `PADDING` to 8, 16, 32, ... boxes, as many as the fullest image of
        the batch needs.
    """
    augmentation = find_augmentation(recipe.augmentation, labels="boxes")
    # A buffer of paths is small: the order is perfect.
    buffer = data.num_train
    if not data.reads_files:
        buffer = min(buffer, _SHUFFLE_BUFFER)

    def change(seeds, example):
        crop_seed, flip_seed = tf.unstack(tf.random.split(seeds, 2))
        side = recipe.image_size
        image, boxes = augmentation.apply(
            data.decode(example["image"]), example["boxes"], side, crop_seed
        )
        boxes, is_visible = clip_to_square(boxes, side)
        if recipe.flip:
            image, boxes = random_flip(image, boxes, flip_seed)
        kept = tf.logical_and(is_visible, ~example["is_crowd"])
        return image, {"boxes": boxes[kept], "labels": example["labels"][kept]}

    return epochs_of_batches(
        data.train,
        change,
        recipe,
        buffer,
        steps_per_epoch(data, recipe.batch_size),
        seed,
        initial_epoch,
        shard,
        batch=_batch,
    )


def letterboxed_batches(
    data: DetectionData,
    image_size: int,
    batch_size: int,
    dataset: tf.data.Dataset | None = None,
) -> tf.data.Dataset:
    """Makes the batches of one exact pass over the validation images.

    Args:
        data: A `DetectionData`.
        image_size: Integer, side of the images in pixels.
        batch_size: Integer.
        dataset: `data.train` for the training images. Default:
            `data.validation`.

    Returns:
        A `tf.data.Dataset` of pairs: images, see `training_batches`, and
        their examples in the pixels of the originals, with `scale`, `height`
        and `width` of the originals, padded with `PADDING`. The last batch is
        padded with images whose `image_id` is `PADDING`.
    """
    dataset = data.validation if dataset is None else dataset
    number = int(dataset.cardinality())
    if number < 1:
        raise ValueError("There are no images to evaluate.")

    def change(example):
        image = data.decode(example["image"])
        square, scale = letterbox(image, image_size)
        height, width = tf.unstack(tf.shape(image)[:2])
        return square, {
            "image_id": example["image_id"],
            "scale": scale,
            "height": height,
            "width": width,
            "boxes": example["boxes"],
            "labels": example["labels"],
            "areas": example["areas"],
            "is_crowd": tf.cast(example["is_crowd"], "int64"),
        }

    prepared = dataset.map(change, num_parallel_calls=tf.data.AUTOTUNE)
    no_example = tf.nest.map_structure(
        # It has no boxes, whose number is unknown.
        lambda spec: tf.fill(
            [side or 0 for side in spec.shape], tf.cast(PADDING, spec.dtype)
        ),
        prepared.element_spec[1],
    )
    shape = (image_size, image_size, data.channels)
    padding = tf.data.Dataset.from_tensors(
        (tf.zeros(shape, "uint8"), no_example)
    )
    padded = prepared.concatenate(padding.repeat(-number % batch_size))
    return _batch(padded, batch_size).prefetch(tf.data.AUTOTUNE)


def validation_batches(
    data: DetectionData, image_size: int, batch_size: int
) -> tf.data.Dataset:
    """Makes the batches of the loss on the validation images.

    Args:
        data: A `DetectionData`.
        image_size: Integer, side of the images in pixels.
        batch_size: Integer.

    Returns:
        A `tf.data.Dataset` of `(images, labels, weights)`, see
        `training_batches`; the weights `(batch,)` are 0 for images that only
        pad the last batch.
    """

    def change(images, examples):
        kept = examples["is_crowd"] == 0
        boxes = examples["boxes"] * examples["scale"][:, None, None]
        labels = {
            "boxes": tf.where(kept[..., None], boxes, PADDING),
            "labels": tf.where(kept, examples["labels"], PADDING),
        }
        is_image = examples["image_id"] != PADDING
        return images, labels, tf.cast(is_image, "float32")

    return letterboxed_batches(data, image_size, batch_size).map(change)


def _batch(dataset, batch_size):
    """Batches pairs of an image and a dict with any number of boxes.

    Each batch is padded to the number of boxes of its fullest image, and
    further to one of few numbers, since XLA compiles a program for each.
    """
    padding = tf.nest.map_structure(
        lambda spec: tf.cast(PADDING, spec.dtype), dataset.element_spec[1]
    )

    def round_up(images, examples):
        number = tf.shape(examples["boxes"])[1]
        missing = _round_up(number) - number
        return images, {
            # Others, such as heights, have a single value per image.
            name: _pad(values, missing) if values.shape.rank > 1 else values
            for name, values in examples.items()
        }

    # Images have one size and are not padded.
    return dataset.padded_batch(
        batch_size,
        padding_values=(tf.constant(0, "uint8"), padding),
        drop_remainder=True,
    ).map(round_up, num_parallel_calls=tf.data.AUTOTUNE)


def _round_up(number):
    """Returns the smallest sufficient power of two times `_MIN_BOXES`."""
    steps = tf.constant([_MIN_BOXES * 2**step for step in range(20)])
    return steps[tf.searchsorted(steps, number[None])[0]]


def _pad(values, number):
    paddings = [(0, 0), (0, number)] + [(0, 0)] * (values.shape.rank - 2)
    return tf.pad(
        values, paddings, constant_values=tf.cast(PADDING, values.dtype)
    )
