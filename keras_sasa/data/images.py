"""Labelled images and the one `tf.data` pipeline that feeds a training.

A pass over the images is a function of `(seed, epoch)`: the order, and every
random number of every image, so that a training that stops and goes on sees
what it would have seen. Images stay bytes, 0 to 255; the network scales them.
"""

import dataclasses
import operator
import os
import warnings

import numpy as np
import tensorflow as tf

from keras_sasa._optional_imports import optional_import
from keras_sasa._paths import local_path
from keras_sasa.data.decoding import (
    decode_image,
    decode_part,
    describe_corrupt,
    find_corrupt,
    read_size,
)
from keras_sasa.data.image_folder import find_labelled_images
from keras_sasa.data.rand_augment import rand_augment

# Which images are held out never depends on the seed of a training.
_SPLIT_SEED = 0
_HELD_OUT = 0.2
# Larger sets are read anew in every epoch.
_CACHE_BYTES = 2 * 2**30
# Of a set that is larger than this, images are drawn from this many.
_SHUFFLE_BUFFER = 10_000
# So many labels of a set of TensorFlow Datasets are read before it is used.
_CHECKED_LABELS = 10_000
# So many classes are named one by one.
_NAMED = 5
# So many images say how large a photo of the set usually is.
_SAMPLE = 100
# Which part of the shorter side the square has that an image is classified by.
# 7/8 is usual for networks that were trained with resized crops.
_CENTRAL_PARTS = {"shift": 1.0, "resized_crop": 0.875}


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A set of labelled images, not yet decoded, resized or batched.

    Args:
        train: `tf.data.Dataset` of pairs of an image and an integer label. The
            image is a `uint8` tensor `(height, width, channels)`, a string of
            JPEG, PNG, GIF, BMP or WebP, or with `reads_files` the path of one.
        validation: The same for the images held out.
        class_names: List of strings, one for each label.
        channels: Integer, 1 or 3.
        white: Number, the brightest value of a pixel.
        reads_files: Boolean, whether the images are paths.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset
    class_names: list[str]
    channels: int = 3
    white: float = 255.0
    reads_files: bool = False

    @property
    def num_classes(self):
        return len(self.class_names)

    @property
    def num_train(self):
        return int(self.train.cardinality())

    @property
    def num_validation(self):
        return int(self.validation.cardinality())


def load_data(name, held_out=None, skip_corrupt=False):
    """Finds a set of labelled images.

    Args:
        name: `"digits"` (the 1,797 of scikit-learn), `"tfds:NAME"` (a
            classification set of TensorFlow Datasets) or the path of a folder
            with a folder of images for each class, either directly or in
            `train` and `validation` (or `val`, or `test`; other spellings
            of these, as `Training` and `valid`, are known, too).
        held_out: Fraction of the images to train with that is validated on, in
            the place of a validation set that the data may have. Default: the
            data's own, or a fifth where it has none. In folders it is that
            part of every class, and one image or more; of TensorFlow Datasets
            it is rounded to whole percents, 1 to 99.
        skip_corrupt: Boolean, for folders: whether to read all images once and
            leave out, and print, those that cannot be decoded.

    Returns:
        An `ImageData`.

    Raises:
        ValueError: If the data cannot be found, is not labelled images, or
            holds images that cannot be decoded.
        ImportError: If the package that reads it is not installed.
    """
    if held_out is not None and not 0 < held_out < 1:
        raise ValueError(
            "`held_out` must be a fraction between 0 and 1. "
            f"Received: held_out={held_out}."
        )
    if name == "digits":
        return _load_digits(held_out or _HELD_OUT)
    if str(name).startswith("tfds:"):
        return _load_tfds(name.removeprefix("tfds:"), held_out)
    return _load_folder(local_path(name, "name"), held_out, skip_corrupt)


def _load_digits(held_out):
    optional_import("sklearn", "scikit-learn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("uint8")
    train_images, other_images, train_labels, other_labels = train_test_split(
        images,
        labels.astype("int64"),
        test_size=held_out,
        stratify=labels,
        random_state=_SPLIT_SEED,
    )
    return ImageData(
        tf.data.Dataset.from_tensor_slices((train_images, train_labels)),
        tf.data.Dataset.from_tensor_slices((other_images, other_labels)),
        class_names=[str(digit) for digit in range(10)],
        channels=1,
        white=16.0,
    )


def _load_folder(folder, held_out, skip_corrupt):
    splits = find_labelled_images(folder, held_out, _HELD_OUT, skip_corrupt)
    names = list(splits[0])

    def labelled_paths(classes):
        pairs = [
            (os.fsencode(path), label)
            for label, name in enumerate(names)
            for path in classes[name]
        ]
        paths, labels = zip(*pairs, strict=True)
        return tf.data.Dataset.from_tensor_slices(
            (tf.constant(paths), tf.constant(labels, "int64"))
        )

    return ImageData(
        *map(labelled_paths, splits), class_names=names, reads_files=True
    )


def _load_tfds(name, held_out):
    tfds = optional_import("tensorflow_datasets", "tensorflow-datasets")
    try:
        builder = tfds.builder(name)
        info = builder.info
        if info.supervised_keys != ("image", "label"):
            raise ValueError(
                "it is not a set of images with one label each, but of "
                f"{list(info.features)}"
            )
        builder.download_and_prepare()
        own = [s for s in ("validation", "test") if s in info.splits]
        percent = round(100 * (1 - (held_out or _HELD_OUT)))
        percent = min(max(percent, 1), 99)
        splits = (
            ["train", own[0]]
            if own and not held_out
            else [f"train[:{percent}%]", f"train[{percent}%:]"]
        )
        train, validation = builder.as_dataset(
            split=splits,
            as_supervised=True,
            # Encoded images are shuffled and cached in a tenth of the memory.
            decoders={"image": tfds.decode.SkipDecoding()},
        )
    except Exception as error:
        # What can go wrong in a download has no common type. Only the first
        # line: the others list every known data set.
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"tfds:{name} cannot be loaded: {reason}") from error
    names = info.features["label"].names
    _check_labels(f"tfds:{name}", splits[1], validation, names)
    return ImageData(
        train,
        validation,
        class_names=names,
        channels=info.features["image"].shape[-1],
    )


def _check_labels(name, split, validation, class_names):
    labels = validation.take(_CHECKED_LABELS).map(lambda _, label: label)
    labels = np.array(list(labels.as_numpy_iterator()), "int64")
    if (labels < 0).any():
        raise ValueError(
            f"The images in {split!r} of {name} must have labels to validate "
            f"with. Received: {(labels < 0).sum()} of {len(labels)} without."
        )
    missing = sorted(set(range(len(class_names))) - set(labels.tolist()))
    is_ours = split.startswith("train")
    if is_ours and missing and len(labels) == int(validation.cardinality()):
        listed = [class_names[label] for label in missing[:_NAMED]]
        warnings.warn(
            f"{len(missing)} of {len(class_names)} classes have no images in "
            f"{split!r} of {name}, which is validated on: {listed}"
            + (" and others." if len(missing) > _NAMED else "."),
            stacklevel=4,
        )


def typical_side(data):
    """Returns the median of the shorter sides of a sample of images.

    Args:
        data: An `ImageData`.

    Returns:
        A number of pixels.
    """
    # Files are sorted by class, but encoded images would all be read.
    step = max(data.num_train // _SAMPLE, 1) if data.reads_files else 1
    sample = data.train.shard(step, 0).take(_SAMPLE)
    sides = []
    for image, _ in sample.as_numpy_iterator():
        if isinstance(image, bytes):
            source = os.fsdecode(image) if data.reads_files else image
            sides.append(min(read_size(source)))
        else:
            sides.append(min(image.shape[:2]))
    return float(np.median(sides))


def check_readable(data, path_of=operator.itemgetter(0), **options):
    """Raises an error that names the images that cannot be decoded, if any.

    The errors of a pipeline do not say which image they are about; so all are
    read once more when there was one.

    Args:
        data: An `ImageData`.
        path_of: Function that returns the path in an example.
        **options: `advice` of `describe_corrupt`.

    Raises:
        ValueError: If there are such images.
    """
    if not data.reads_files:
        return
    both = data.train.concatenate(data.validation)
    corrupt = find_corrupt(map(path_of, both.as_numpy_iterator()))
    if corrupt:
        raise ValueError(describe_corrupt(corrupt, **options))


def steps_per_epoch(data, recipe):
    """Returns how many full batches the images to train with make.

    Raises:
        ValueError: If they make none.
    """
    steps = data.num_train // recipe.batch_size
    if not steps:
        raise ValueError(
            f"`batch_size` must be at most the {data.num_train} images to "
            f"train with. Received: batch_size={recipe.batch_size}."
        )
    return steps


def training_batches(data, recipe, seed=0, initial_epoch=0, shard=(0, 1)):
    """Makes the batches of all epochs, one after the other.

    Args:
        data: An `ImageData`.
        recipe: A `Recipe`: batch size, image size, augmentation, epochs.
        seed: Integer. Equal seeds give equal batches.
        initial_epoch: Integer, the epoch to begin with.
        shard: Pair of integers `(index, count)`: which part of every batch,
            of how many, this process computes.

    Returns:
        A `tf.data.Dataset` of pairs `(images, labels)`: `uint8`
        `(batch, image_size, image_size, channels)` and one-hot `float32`
        `(batch, num_classes)`. Each epoch has `steps_per_epoch` batches, all
        full: the images that are left over differ from epoch to epoch.
    """
    _check_augmentation(recipe)
    steps = steps_per_epoch(data, recipe)
    examples, is_prepared = data.train, False
    if recipe.augmentation == "shift" and _fits_in_memory(
        data, recipe, data.num_train
    ):
        # A resized crop is decoded when it is known what is cut out, and of a
        # larger set no more images than are needed are ever decoded.
        examples, is_prepared = _prepared(data, examples, recipe).cache(), True
    buffer = min(data.num_train, _SHUFFLE_BUFFER)
    if data.reads_files:
        # Paths, and images that are in memory anyway, have a perfect order.
        buffer = data.num_train

    def change(seeds, example):
        if recipe.augmentation == "shift" and not is_prepared:
            example = _prepare(*example, data, recipe)
        return _augment(*example, seeds, data, recipe)

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


def _batch(dataset, batch_size):
    return dataset.batch(batch_size, drop_remainder=True)


def epochs_of_batches(
    examples,
    change,
    recipe,
    buffer,
    steps,
    seed,
    initial_epoch,
    shard,
    batch=_batch,
):
    """Shuffles, changes and batches examples, epoch after epoch.

    Args:
        examples: `tf.data.Dataset`.
        change: Function of `(seeds, example)` that makes of an example what is
            batched; `seeds` holds two integers, which are no others' in this
            training.
        recipe: A `Recipe`: batch size and epochs.
        buffer: Integer, of how many examples a random one is drawn.
        steps: Integer, batches of an epoch.
        seed: Integer, see `training_batches`.
        initial_epoch: Integer, the same.
        shard: Pair of integers, the same.
        batch: Function of a dataset and a batch size that returns full batches.

    Returns:
        A `tf.data.Dataset`.
    """
    index, count = check_shard(shard, recipe.batch_size)

    def one_epoch(epoch):
        # Of this function's graph alone: the order shall not depend on the
        # global seed, which `shuffle` mixes with its own.
        tf.random.set_seed(1)
        # Distinct for any number of epochs below a million.
        order = tf.cast(seed, "int64") * 1_000_003 + epoch
        shuffled = examples.shuffle(
            buffer, seed=order, reshuffle_each_iteration=False
        )
        shuffled = shuffled.take(steps * recipe.batch_size).enumerate()
        # Decoding and augmenting is done by the process that needs the image.
        mine = shuffled.shard(count, index)
        changed = mine.map(
            lambda place, example: change(tf.stack([order, place]), example),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return batch(changed, recipe.batch_size // count)

    return (
        tf.data.Dataset.range(initial_epoch, recipe.epochs)
        .flat_map(one_epoch)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_batches(data, recipe, dataset=None, shard=(0, 1)):
    """Makes the batches of one exact pass over the images held out.

    The last batch is filled up with images of weight 0, so that every batch
    has the same shape and can be divided among devices. The weight of all
    others is constant and such that their mean over the padded batches is 1:
    the loss that Keras averages is then that of the real images, exactly.

    Args:
        data: An `ImageData`.
        recipe: A `Recipe`: batch size, image size, kind of augmentation.
        dataset: `data.train` to evaluate those. Default: `data.validation`.
        shard: See `training_batches`.

    Returns:
        A `tf.data.Dataset` of `(images, labels, weights)`, see
        `training_batches`; `weights` is `float32` `(batch,)`.
    """
    index, count = check_shard(shard, recipe.batch_size)
    dataset = data.validation if dataset is None else dataset
    number = int(dataset.cardinality())
    if number < 1:
        raise ValueError("There are no images to evaluate.")
    padded = -(-number // recipe.batch_size) * recipe.batch_size
    weight = padded / number
    mine = dataset.shard(count, index)
    prepared = _prepared(data, mine, recipe)
    if _fits_in_memory(data, recipe, int(mine.cardinality())):
        prepared = prepared.cache()
    prepared = prepared.map(lambda image, label: (image, label, weight))
    shape = (recipe.image_size, recipe.image_size, data.channels)
    filling = tf.data.Dataset.from_tensors(
        (
            tf.zeros(shape, "uint8"),
            tf.zeros(data.num_classes),
            tf.constant(0.0),
        )
    ).repeat(padded // count - int(mine.cardinality()))
    return (
        prepared.concatenate(filling)
        .batch(recipe.batch_size // count, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def check_shard(shard, batch_size):
    index, count = shard
    if not 0 <= index < count or batch_size % count:
        raise ValueError(
            "`shard` must be the index of a process and their number, of which "
            "the batch size is a multiple. "
            f"Received: shard={shard}, batch_size={batch_size}."
        )
    return index, count


def _fits_in_memory(data, recipe, number):
    size = recipe.image_size**2 * data.channels
    return number * size <= _CACHE_BYTES


def _prepared(data, dataset, recipe):
    return dataset.map(
        lambda image, label: _prepare(image, label, data, recipe),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def _prepare(image, label, data, recipe):
    """All that does not change from epoch to epoch."""
    image = prepare_image(load_pixels(image, data), recipe)
    return image, tf.one_hot(label, data.num_classes)


def prepare_image(image, recipe):
    """Makes of an image what a classifier is evaluated with.

    The middle square is resized, so that the proportions stay. Its side is
    the shorter side of the image, or 7/8 of that after a training with resized
    crops.

    Args:
        image: `uint8` tensor `(height, width, channels)`.
        recipe: The `Recipe` of the training: image size, augmentation.

    Returns:
        A `uint8` tensor `(image_size, image_size, channels)`.
    """
    _check_augmentation(recipe)
    part = _CENTRAL_PARTS[recipe.augmentation]
    return _resize(_central_square(image, part), recipe.image_size)


def resizing_of(recipe):
    """Returns what `prepare_image` does, as a name for `ImageRescaling`."""
    _check_augmentation(recipe)
    is_whole = _CENTRAL_PARTS[recipe.augmentation] == 1
    return "central_square" if is_whole else "central_crop"


def _check_augmentation(recipe):
    if recipe.augmentation not in _CENTRAL_PARTS:
        raise ValueError(
            "`augmentation` must be 'shift' or 'resized_crop' to classify "
            f"images. Received: augmentation={recipe.augmentation!r}."
        )


def _read(image, data):
    return tf.io.read_file(image) if data.reads_files else image


def load_pixels(image, data):
    """Returns the image of an example as a `uint8` tensor.

    Args:
        image: Pixels, the contents of a file, or its path.
        data: An `ImageData`.
    """
    image = _read(image, data)
    if image.dtype == tf.string:
        return decode_image(image, data.channels)
    image.set_shape((None, None, data.channels))
    return image


def _resize(image, side):
    """Resizes to a square of bytes, averaging where pixels become fewer."""
    if image.shape[0] == image.shape[1] == side:
        return image
    image = tf.image.resize(image, (side, side), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), "uint8")


def _central_square(image, part):
    """Cuts out the middle square; its side is a part of the shorter one."""
    height, width = image.shape[:2]
    if part == 1 and height is not None and height == width:
        return image
    shape = tf.shape(image)[:2]
    side = tf.cast(tf.reduce_min(shape), "float32") * part
    # Of one pixel, 7/8 is one pixel, too.
    side = tf.maximum(tf.cast(tf.round(side), "int32"), 1)
    top, left = tf.unstack((shape - side) // 2)
    return image[top : top + side, left : left + side]


def _augment(image, label, seed, data, recipe):
    """Changes one image at random; `seed` holds two integers."""
    side = recipe.image_size
    seeds = tf.unstack(tf.random.split(seed, 3))
    if recipe.augmentation == "resized_crop":
        image = _resize(_random_part(image, seeds[0], data), side)
        label = tf.one_hot(label, data.num_classes)
    else:
        image = tf.image.resize_with_crop_or_pad(
            image, side + side // 4, side + side // 4
        )
        image = tf.image.stateless_random_crop(
            image, (side, side, data.channels), seeds[0]
        )
    if recipe.flip:
        image = tf.image.stateless_random_flip_left_right(image, seeds[1])
    if recipe.rand_augment_factor:
        image = rand_augment(
            image, seeds[2], recipe.rand_augment_factor, data.white
        )
    return image, label


def _random_part(image, seed, data):
    """Cuts out a part; of a JPEG no more than that part is decoded."""

    def choose(shape):
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            seed,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            # The default leaves out all below a tenth of the area.
            min_object_covered=0.0,
        )
        return tf.concat([begin[:2], size[:2]], axis=0)

    image = _read(image, data)
    if image.dtype == tf.string:
        return decode_part(image, data.channels, choose)
    top, left, height, width = tf.unstack(choose(tf.shape(image)))
    part = image[top : top + height, left : left + width]
    part.set_shape((None, None, data.channels))
    return part
