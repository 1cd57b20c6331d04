"""Image files that cannot be decoded: found, and named in errors."""

import operator
import os
from collections.abc import Callable, Iterable

import tensorflow as tf

from keras_sasa.data.decoding import decode_image, reason_of
from keras_sasa.data.image_data import ImageData

# Errors list at most this many corrupt files.
_LISTED = 20
# For fewer files, building a pipeline takes longer than it saves.
_READ_ONE_BY_ONE = 20
_ADVICE = "; repair them, or leave them out (skip_corrupt, --skip-corrupt)"


def find_corrupt(paths: Iterable[str | bytes]) -> dict[str, str]:
    """Finds the image files that cannot be decoded.

    Args:
        paths: Strings.

    Returns:
        Dict from the path of each file that cannot be decoded to the reason,
        in the order of `paths`.
    """
    paths = [os.fsencode(path) for path in paths]
    readable = set()
    if len(paths) > _READ_ONE_BY_ONE:
        readable = _find_readable(paths)
    reasons = {}
    for path in paths:
        if path not in readable:
            try:
                decode_image(tf.io.read_file(path), channels=3)
            except tf.errors.OpError as error:
                reasons[os.fsdecode(path)] = reason_of(error)
    return reasons


def _find_readable(paths):
    """Returns the paths that a pipeline decodes; its errors name no file."""
    decoded = tf.data.Dataset.from_tensor_slices(paths).map(
        lambda path: (path, tf.size(decode_image(tf.io.read_file(path), 3))),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return {path for path, _ in decoded.ignore_errors().as_numpy_iterator()}


def describe_corrupt(corrupt: dict[str, str], advice: str = _ADVICE) -> str:
    """Returns the message of an error about the result of `find_corrupt`.

    Args:
        corrupt: Dict from paths to reasons.
        advice: String that names the remedies.
    """
    listed = [
        f"{path!r}: {reason}"
        for path, reason in list(corrupt.items())[:_LISTED]
    ]
    if len(corrupt) > _LISTED:
        listed.append(f"and {len(corrupt) - _LISTED} more")
    return f"{len(corrupt)} images cannot be decoded{advice}: " + "; ".join(
        listed
    )


def check_readable(
    data: ImageData,
    path_of: Callable = operator.itemgetter(0),
    advice: str = _ADVICE,
) -> None:
    """Raises an error that names all images that cannot be decoded.

    The errors of a pipeline do not say which image caused them. After such an
    error this function reads all images again.

    Args:
        data: An `ImageData`.
        path_of: Function that returns the path in an example.
        advice: See `describe_corrupt`.

    Raises:
        ValueError: If there are such images.
    """
    if not data.reads_files:
        return
    both = data.train.concatenate(data.validation)
    corrupt = find_corrupt(map(path_of, both.as_numpy_iterator()))
    if corrupt:
        raise ValueError(describe_corrupt(corrupt, advice))
