"""Passes over training examples, each a pure function of `(seed, epoch)`.

Both the order and the random numbers of every example follow from the seed and
the epoch, so that a resumed run sees the same batches as one that was never
interrupted.
"""

from collections.abc import Callable
from typing import Protocol

import tensorflow as tf

from keras_sasa.data.image_data import ImageData, ImageFormat


class InputRecipe(ImageFormat, Protocol):
    """The values that the training batches depend on.

    A `keras_sasa.training.Recipe` has these attributes.
    """

    @property
    def epochs(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def augmentation(self) -> str: ...

    @property
    def flip(self) -> bool: ...

    @property
    def rand_augment_factor(self) -> float: ...


def steps_per_epoch(data: ImageData, batch_size: int) -> int:
    """Returns the number of full batches of training images.

    Args:
        data: An `ImageData`.
        batch_size: Integer.

    Raises:
        ValueError: If there is none.
    """
    steps = data.num_train // batch_size
    if not steps:
        raise ValueError(
            f"`batch_size` must be at most the {data.num_train} images to "
            f"train with. Received: batch_size={batch_size}."
        )
    return steps


def check_shard(shard: tuple[int, int], batch_size: int) -> tuple[int, int]:
    """Checks which part of every batch a process computes."""
    index, count = shard
    if not 0 <= index < count or batch_size % count:
        raise ValueError(
            "`shard` must be the index of a process and the number of "
            "processes, which must divide the batch size. "
            f"Received: shard={shard}, batch_size={batch_size}."
        )
    return index, count


def _batch(dataset, batch_size):
    return dataset.batch(batch_size, drop_remainder=True)


def epochs_of_batches(
    examples: tf.data.Dataset,
    change: Callable,
    recipe: InputRecipe,
    buffer: int,
    steps: int,
    seed: int,
    initial_epoch: int,
    shard: tuple[int, int],
    batch: Callable[[tf.data.Dataset, int], tf.data.Dataset] = _batch,
) -> tf.data.Dataset:
    """Shuffles, changes and batches examples, epoch after epoch.

    Args:
        examples: `tf.data.Dataset`.
        change: Function of `(seeds, example)` that returns the example as it
            is batched; `seeds` holds two integers, unique in this run.
        recipe: A `Recipe`, of which the batch size and the epochs are used.
        buffer: Integer, size of the shuffle buffer.
        steps: Integer, batches per epoch.
        seed: Integer. Equal seeds give equal batches.
        initial_epoch: Integer, the epoch to begin with.
        shard: Pair of integers `(index, count)`: this process computes part
            `index` of `count` parts of every batch.
        batch: Function of a dataset and a batch size that returns full batches.

    Returns:
        A `tf.data.Dataset`.
    """
    index, count = check_shard(shard, recipe.batch_size)

    def one_epoch(epoch):
        # Only for the graph of this function: the order must not depend on the
        # global seed, which `shuffle` mixes with its own.
        tf.random.set_seed(1)
        # Distinct for any number of epochs below a million.
        order = tf.cast(seed, "int64") * 1_000_003 + epoch
        shuffled = examples.shuffle(
            buffer, seed=order, reshuffle_each_iteration=False
        )
        shuffled = shuffled.take(steps * recipe.batch_size).enumerate()
        # Each process decodes and augments only the images that it needs.
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
