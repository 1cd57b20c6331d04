"""The one `tf.data` pipeline that feeds a detector.

As in `keras_sasa.data.images`, a pass over the images is a function of the
seed and the epoch, and images stay bytes, which the network scales.
"""

import tensorflow as tf

from keras_sasa.data import box_transforms
from keras_sasa.data.images import (
    epochs_of_batches,
    load_pixels,
    steps_per_epoch,
)

# Of a set that is larger than this, images are drawn from this many.
_SHUFFLE_BUFFER = 1000
BOX_FORMAT = "xyxy"
# What fills up: boxes and labels of images with fewer boxes than others, and
# the identity of images in the last batch.
NOTHING = -1
# A batch is filled up to this number of boxes, or twice, four times, ... it.
_FEWEST_BOXES = 8


def training_batches(data, recipe, seed=0, initial_epoch=0, shard=(0, 1)):
    """Makes the batches of all epochs, one after the other.

    Boxes of crowds are left out, as are those that the augmentation cuts off.

    Args:
        data: A `DetectionData`.
        recipe: A `Recipe`: batch size, image size, augmentation, epochs.
        seed: Integer. Equal seeds give equal batches.
        initial_epoch: Integer, the epoch to begin with.
        shard: Pair of integers `(index, count)`: which part of every batch,
            of how many, this process computes.

    Returns:
        A `tf.data.Dataset` of pairs `(images, labels)`: `uint8`
        `(batch, image_size, image_size, channels)`, and the dict of `"boxes"`
        (in `BOX_FORMAT`) and `"labels"` that `RetinaNet` learns from, filled up
        with `NOTHING` to 8, 16, 32, ... boxes, as the fullest image of the
        batch needs.
    """
    if recipe.augmentation != "scale_jitter":
        raise ValueError(
            "`augmentation` must be 'scale_jitter' to train a detector. "
            f"Received: augmentation={recipe.augmentation!r}."
        )
    # Paths have a perfect order.
    buffer = data.num_train
    if not data.reads_files:
        buffer = min(buffer, _SHUFFLE_BUFFER)

    def change(seeds, example):
        jitter_seed, flip_seed = tf.unstack(tf.random.split(seeds, 2))
        side = recipe.image_size
        image, boxes = box_transforms.scale_jitter(
            load_pixels(example["image"], data),
            example["boxes"],
            side,
            jitter_seed,
        )
        boxes, is_visible = box_transforms.visible(boxes, side)
        if recipe.flip:
            image, boxes = box_transforms.random_flip(image, boxes, flip_seed)
        kept = tf.logical_and(is_visible, ~example["is_crowd"])
        return image, {"boxes": boxes[kept], "labels": example["labels"][kept]}

    return epochs_of_batches(
        data.train,
        change,
        recipe,
        buffer,
        steps_per_epoch(data, recipe),
        seed,
        initial_epoch,
        shard,
        batch=_batch,
    )


def letterboxed_batches(data, recipe, dataset=None):
    """Makes the batches of one exact pass over the images held out.

    Args:
        data: A `DetectionData`.
        recipe: A `Recipe`: batch size and image size.
        dataset: `data.train` for those. Default: `data.validation`.

    Returns:
        A `tf.data.Dataset` of pairs: images as of `training_batches`, and
        their examples in the pixels of the originals, with `scale`, `height`
        and `width` of these, filled up with `NOTHING`. So is the last batch,
        with images whose `image_id` is that.
    """
    dataset = data.validation if dataset is None else dataset
    number = int(dataset.cardinality())
    if number < 1:
        raise ValueError("There are no images to evaluate.")

    def change(example):
        image = load_pixels(example["image"], data)
        square, scale = box_transforms.letterbox(image, recipe.image_size)
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
    nothing = tf.nest.map_structure(
        # Without boxes, whose number is unknown.
        lambda spec: tf.fill(
            [side or 0 for side in spec.shape], tf.cast(NOTHING, spec.dtype)
        ),
        prepared.element_spec[1],
    )
    shape = (recipe.image_size, recipe.image_size, data.channels)
    filling = tf.data.Dataset.from_tensors((tf.zeros(shape, "uint8"), nothing))
    filled = prepared.concatenate(filling.repeat(-number % recipe.batch_size))
    return _batch(filled, recipe.batch_size).prefetch(tf.data.AUTOTUNE)


def validation_batches(data, recipe):
    """Makes the batches of the loss on the images held out.

    Args:
        data: A `DetectionData`.
        recipe: A `Recipe`: batch size and image size.

    Returns:
        A `tf.data.Dataset` of `(images, labels, weights)`, see
        `training_batches`; the weights `(batch,)` are 0 for images that only
        fill up the last batch.
    """

    def change(images, examples):
        kept = examples["is_crowd"] == 0
        boxes = examples["boxes"] * examples["scale"][:, None, None]
        labels = {
            "boxes": tf.where(kept[..., None], boxes, NOTHING),
            "labels": tf.where(kept, examples["labels"], NOTHING),
        }
        is_image = examples["image_id"] != NOTHING
        return images, labels, tf.cast(is_image, "float32")

    return letterboxed_batches(data, recipe).map(change)


def _batch(dataset, batch_size):
    """Batches pairs of an image and a dict, of different numbers of boxes.

    Each batch is filled up to the number of boxes of its fullest image, and
    further to one of few numbers, since XLA compiles a program for each.
    """
    filling = tf.nest.map_structure(
        lambda spec: tf.cast(NOTHING, spec.dtype), dataset.element_spec[1]
    )

    def round_up(images, examples):
        number = tf.shape(examples["boxes"])[1]
        missing = _round_up(number) - number
        return images, {
            # The others, for instance heights, have one value an image.
            name: _fill_up(values, missing) if values.shape.rank > 1 else values
            for name, values in examples.items()
        }

    # Images have one size and are not filled up.
    return dataset.padded_batch(
        batch_size,
        padding_values=(tf.constant(0, "uint8"), filling),
        drop_remainder=True,
    ).map(round_up, num_parallel_calls=tf.data.AUTOTUNE)


def _round_up(number):
    """Returns the smallest power of two times a smallest number of boxes."""
    steps = tf.constant([_FEWEST_BOXES * 2**step for step in range(20)])
    return steps[tf.searchsorted(steps, number[None])[0]]


def _fill_up(values, number):
    paddings = [(0, 0), (0, number)] + [(0, 0)] * (values.shape.rank - 2)
    return tf.pad(
        values, paddings, constant_values=tf.cast(NOTHING, values.dtype)
    )
