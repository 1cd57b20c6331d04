"""What all data sets of TensorFlow Datasets have in common."""

import contextlib
from collections.abc import Iterator

from keras_sasa._optional_imports import optional_import


def import_tfds():
    """Returns the module `tensorflow_datasets`."""
    return optional_import("tensorflow_datasets", "tensorflow-datasets")


@contextlib.contextmanager
def errors_in_one_line(name: str) -> Iterator[None]:
    """Turns errors while loading the set `name` into a short `ValueError`."""
    try:
        yield
    except Exception as error:
        # Failed downloads raise errors of many types. Only the first line is
        # shown: the others list every known data set.
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"tfds:{name} cannot be loaded: {reason}") from error
