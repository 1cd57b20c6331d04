"""The `tf.data` pipelines of classifiers.

Images stay bytes from 0 to 255; the network scales them.
"""

import tensorflow as tf

from keras_sasa.data.augmentation import find_augmentation
from keras_sasa.data.augmentation.rand_augment import rand_augment
from keras_sasa.data.epochs import (
    InputRecipe,
    check_shard,
    epochs_of_batches,
    steps_per_epoch,
)
from keras_sasa.data.image_data import ImageData, ImageFormat
from keras_sasa.data.resizing import check_central, prepare_image

# Larger sets are read again in every epoch.
_CACHE_BYTES = 2 * 2**30
# The size of the shuffle buffer for images that are not files.
_SHUFFLE_BUFFER = 10_000


def training_batches(
    data: ImageData,
    recipe: InputRecipe,
    seed: int = 0,
    initial_epoch: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Makes the batches of all epochs, one after the other.

    Args:
        data: An `ImageData`.
        recipe: A `Recipe`, or another object with the attributes `epochs`,
            `batch_size`, `image_size`, `resizing`, `augmentation`, `flip` and
            `rand_augment_factor`.
        seed: Integer. Equal seeds give equal batches.
        initial_epoch: Integer, the epoch to begin with.
        shard: Pair of integers `(index, count)`: this process computes part
            `index` of `count` parts of every batch.

    Returns:
        A `tf.data.Dataset` of pairs `(images, labels)`: `uint8`
        `(batch, image_size, image_size, channels)` and one-hot `float32`
        `(batch, num_classes)`. Each epoch has `steps_per_epoch` full batches;
        the images that are left over differ from epoch to epoch.
    """
    augmentation = find_augmentation(recipe.augmentation, labels="class")
    steps = steps_per_epoch(data, recipe.batch_size)
    examples, is_prepared = data.train, False
    if augmentation.takes_prepared and _fits_in_memory(
        data, recipe.image_size, data.num_train
    ):
        # Other augmentations decode only what they cut out, and larger sets
        # decode no more images than they need.
        examples, is_prepared = _prepared(data, examples, recipe).cache(), True
    buffer = min(data.num_train, _SHUFFLE_BUFFER)
    if data.reads_files:
        # A buffer of paths is small: the order is perfect.
        buffer = data.num_train

    def change(seeds, example):
        image, label = example
        if augmentation.takes_prepared and not is_prepared:
            image = prepare_image(data.decode(image), recipe)
        crop_seed, flip_seed, rand_augment_seed = tf.unstack(
            tf.random.split(seeds, 3)
        )
        image = augmentation.apply(image, data, recipe.image_size, crop_seed)
        if recipe.flip:
            image = tf.image.stateless_random_flip_left_right(image, flip_seed)
        if recipe.rand_augment_factor:
            image = rand_augment(
                image,
                rand_augment_seed,
                recipe.rand_augment_factor,
                data.max_pixel_value,
            )
        if not is_prepared:
            label = tf.one_hot(label, data.num_classes)
        return image, label

    return epochs_of_batches(
        examples,
        change,
        recipe,
        buffer,
        steps,
        seed,
        initial_epoch,
        shard,
    )


def evaluation_batches(
    data: ImageData,
    image_format: ImageFormat,
    batch_size: int = 64,
    dataset: tf.data.Dataset | None = None,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Makes the batches of one exact pass over the validation images.

    The last batch is padded with images of weight 0, so that all batches have
    the same shape and can be divided among devices. All other images have the
    same weight, and the mean weight over the padded batches is 1: the loss
    that Keras averages is exactly the loss of the real images.

    Args:
        data: An `ImageData`.
        image_format: A `Recipe`, the result of `describe_images`, or another
            object with the attributes `image_size` and `resizing`.
        batch_size: Integer. It does not change the results.
        dataset: `data.train` to evaluate the training images. Default:
            `data.validation`.
        shard: See `training_batches`.

    Returns:
        A `tf.data.Dataset` of `(images, labels, weights)`, see
        `training_batches`; `weights` is `float32` `(batch,)`.
    """
    check_central(image_format.resizing)
    index, count = check_shard(shard, batch_size)
    dataset = data.validation if dataset is None else dataset
    number = int(dataset.cardinality())
    if number < 1:
        raise ValueError("There are no images to evaluate.")
    padded = -(-number // batch_size) * batch_size
    weight = padded / number
    mine = dataset.shard(count, index)
    prepared = _prepared(data, mine, image_format)
    size = image_format.image_size
    if _fits_in_memory(data, size, int(mine.cardinality())):
        prepared = prepared.cache()
    prepared = prepared.map(lambda image, label: (image, label, weight))
    padding = tf.data.Dataset.from_tensors(
        (
            tf.zeros((size, size, data.channels), "uint8"),
            tf.zeros(data.num_classes),
            tf.constant(0.0),
        )
    ).repeat(padded // count - int(mine.cardinality()))
    return (
        prepared.concatenate(padding)
        .batch(batch_size // count, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def _fits_in_memory(data, image_size, number):
    return number * image_size**2 * data.channels <= _CACHE_BYTES


def _prepared(data, dataset, image_format):
    """Prepares all images as for evaluation, and encodes labels one-hot."""

    def prepare(image, label):
        image = prepare_image(data.decode(image), image_format)
        return image, tf.one_hot(label, data.num_classes)

    return dataset.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
