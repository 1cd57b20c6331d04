"""`arguments.json`: the options of a script, to resume its run."""

import json
import pathlib
from collections.abc import Container
from typing import Any

from keras_sasa.training.engine.atomic_files import replace_file
from keras_sasa.training.engine.run import read_json

ARGUMENTS = "arguments.json"
# Options that older versions wrote by another name.
_RENAMED = {"held_out": "validation_split"}


def write_arguments(folder: pathlib.Path, arguments: dict[str, Any]) -> None:
    """Saves the arguments of a training script, for `read_arguments`.

    Args:
        folder: Path of the run.
        arguments: Dict of JSON values.
    """
    with replace_file(pathlib.Path(folder) / ARGUMENTS) as path:
        path.write_text(json.dumps(arguments, indent=1), encoding="utf-8")


def read_arguments(
    folder: pathlib.Path, known: Container[str]
) -> dict[str, Any]:
    """Returns the arguments that `write_arguments` saved, or an empty dict.

    Args:
        folder: Path of the run.
        known: The names of the arguments of the script that reads it.

    Raises:
        ValueError: If another script has written the file.
    """
    path = pathlib.Path(folder) / ARGUMENTS
    if not path.exists():
        return {}
    arguments = {
        _RENAMED.get(name, name): value
        for name, value in read_json(path).items()
    }
    unknown = [name for name in arguments if name not in known]
    if unknown:
        raise ValueError(
            f"{str(folder)!r} holds a training of another script, which also "
            f"has the arguments {unknown}."
        )
    return arguments
