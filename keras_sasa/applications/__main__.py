"""`python -m keras_sasa.applications`: the table of the published networks."""

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np

from keras_sasa import applications
from keras_sasa._text_tables import align
from keras_sasa.applications.model_table import PUBLISHED_NETWORKS

_WARM_UP, _REPEATS = 2, 5
_HEADINGS = (
    ("network", "accuracy by", "licence"),
    ("image", "accuracy", "parameters", "FLOPs", "download", "ms"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table of the published networks.

    Args:
        arguments: Arguments of the command line, `None` for `sys.argv[1:]`.
    """
    names = list(dict.fromkeys(row.name for row in PUBLISHED_NETWORKS))
    parser = argparse.ArgumentParser(
        prog="python -m keras_sasa.applications",
        description="Prints parameters, FLOPs, published accuracy on ImageNet, "
        "licence and size of the weights of all networks. Networks that are "
        "named are measured: milliseconds of a prediction of one image.",
    )
    parser.add_argument(
        "networks",
        metavar="NETWORK",
        nargs="*",
        help=f"show and measure these alone: {', '.join(names)}",
    )
    options = parser.parse_args(arguments)
    for name in options.networks:
        if name not in names:
            parser.error(f"NETWORK must be one of {names}. Received: {name!r}.")
    lines = [sum(_HEADINGS, ())]
    for row in PUBLISHED_NETWORKS:
        if not options.networks or row.name in options.networks:
            lines.append(_line(row, measured=bool(options.networks)))
    print(
        "For one image of ImageNet; FLOPs in billions (a multiplication and an "
        "addition are\ntwo), parameters in millions, milliseconds with random "
        "weights on this machine.\n"
    )
    print("\n".join(align(lines, text_columns=len(_HEADINGS[0]))))
    if not options.networks:
        print(
            "\nNothing was measured. To measure networks, name them: "
            f"{parser.prog} NATMini"
        )


def _line(row, measured):
    return (
        row.label,
        row.source,
        row.licence or "no weights",
        f"{row.image_size}x{row.image_size}",
        f"{row.accuracy:.1f} %",
        f"{row.parameters / 1e6:.1f}",
        f"{row.flops / 1e9:.1f}",
        f"{row.megabytes} MB" if row.megabytes else "-",
        f"{_milliseconds(row):.1f}" if measured else "-",
    )


def _milliseconds(row):
    """Returns the median time of a prediction of one image."""
    shape = (row.image_size, row.image_size, 3)
    model = getattr(applications, row.name)(
        weights=None, input_shape=shape, **row.options
    )
    images = np.zeros((1, *shape), "float32")
    times = []
    for _ in range(_WARM_UP + _REPEATS):
        start = time.perf_counter()
        model.predict_on_batch(images)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[_WARM_UP:])


if __name__ == "__main__":
    main()
