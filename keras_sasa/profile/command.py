"""`python -m keras_sasa.profile`: a saved model, or the paper's networks."""

import argparse
import sys
from collections.abc import Sequence

import keras

from keras_sasa import detection  # noqa: F401, for saved detectors
from keras_sasa.optional import needs
from keras_sasa.profile.counting import profile
from keras_sasa.profile.picture import plot_profile
from keras_sasa.profile.published import (
    HEADER,
    format_published,
    profile_published,
    write_published,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the profile of a saved model, or the paper's tables beside ours.

    Args:
        arguments: Arguments of the command line, `None` for the real ones.
    """
    parser = argparse.ArgumentParser(
        prog="python -m keras_sasa.profile",
        description="Prints parameters, FLOPs and milliseconds of every layer "
        "of a saved model, for one image. Without a model: FLOPs and "
        "parameters of the paper's networks, the paper's numbers beside ours, "
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
        help="height, width and channels, where the model leaves them open",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=10,
        help="how often every layer is timed; 0 for no times (default 10)",
    )
    parser.add_argument("--csv", metavar="FILE", help="also write them here")
    parser.add_argument(
        "--picture", metavar="FILE", help="also draw the layers of a model here"
    )
    options = parser.parse_args(arguments)
    if options.model is None:
        if options.picture or options.input_shape:
            parser.error("--picture and --input-shape need a MODEL")
        rows = profile_published()
        print(HEADER)
        print(format_published(rows))
        if options.csv:
            write_published(rows, options.csv)
        return
    if options.picture:
        # Found missing now, not when all is measured.
        needs("matplotlib", extra="plots")
    try:
        model = keras.saving.load_model(options.model, compile=False)
        measured = profile(model, options.input_shape, options.repeats)
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")
    print(measured)
    if options.csv:
        measured.write_csv(options.csv)
    if options.picture:
        title = f"{model.name}: {options.model}"
        plot_profile(measured, title).savefig(options.picture, dpi=150)
