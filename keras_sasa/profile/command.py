"""`python -m keras_sasa.profile`: a saved model or the paper's networks."""

import argparse
import sys
from collections.abc import Sequence

import keras

from keras_sasa._optional_imports import optional_import
from keras_sasa._paths import local_path_option
from keras_sasa.profile.picture import plot_profile
from keras_sasa.profile.profiling import profile
from keras_sasa.profile.published import (
    HEADER,
    format_published,
    profile_published,
    write_published,
)

PICTURES = (".png", ".pdf", ".svg", ".jpg")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the profile of a saved model, or the paper's tables and ours.

    Args:
        arguments: Arguments of the command line, `None` for `sys.argv[1:]`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m keras_sasa.profile",
        description="Prints parameters, FLOPs and milliseconds of each layer "
        "of a saved model for one image. Without a model it prints FLOPs and "
        "parameters of the paper's networks next to the paper's own numbers, "
        "which takes about half a minute.",
    )
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="a `.keras` file"
    )
    parser.add_argument(
        "--input-shape",
        type=int,
        nargs="+",
        metavar="SIZE",
        help="height, width and channels, if the model leaves them open",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=10,
        help="how often each layer is timed; 0 for no times (default 10)",
    )
    parser.add_argument(
        "--csv",
        type=local_path_option,
        metavar="FILE",
        help="also write the table to this CSV file",
    )
    parser.add_argument(
        "--picture",
        type=local_path_option,
        metavar="FILE",
        help="also draw the layers of the model in this file",
    )
    options = parser.parse_args(arguments)
    for name in ("csv", "picture"):
        _check_file(parser, name, getattr(options, name))
    if options.model is None:
        if options.picture or options.input_shape:
            parser.error("--picture and --input-shape need a MODEL")
        rows = profile_published()
        print(HEADER)
        print(format_published(rows))
        if options.csv:
            write_published(rows, options.csv)
        return
    try:
        if options.picture:
            # Fails now if it is missing, not after all measurements.
            optional_import("matplotlib")
        model = _load(options.model)
        measured = profile(model, options.input_shape, options.repeats)
        print(measured)
        if options.csv:
            measured.write_csv(options.csv)
        if options.picture:
            title = f"{model.name}: {options.model}"
            plot_profile(measured, title).savefig(options.picture, dpi=150)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{parser.prog}: {error}")


def _check_file(parser, option, path):
    """Exits before any measurement if a file cannot be written.

    Args:
        parser: The `argparse.ArgumentParser` of the program.
        option: Name of the option.
        path: Value of the option, a path or `None`.
    """
    if path is None:
        return
    if path.is_dir():
        parser.error(f"--{option}: {str(path)!r} is a directory")
    if not path.parent.is_dir():
        parser.error(
            f"--{option}: the directory of {str(path)!r} does not exist"
        )
    if option == "picture" and path.suffix not in PICTURES:
        parser.error(
            f"--{option}: {str(path)!r} must end in one of "
            f"{', '.join(PICTURES)}"
        )


def _load(path):
    try:
        return keras.saving.load_model(path, compile=False)
    except TypeError as error:
        # The last line of Keras' message names the class or function.
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(
            f"{path!r} uses classes or functions that only the program behind "
            "it defines. Load it there and call `keras_sasa.profile.profile("
            f"model, repeats=10)`. Keras says: {reason}"
        ) from error
