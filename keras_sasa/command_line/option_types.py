"""Types of options, for `type=` of `argparse`."""

import argparse

from keras_sasa._paths import local_path_option


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return value


def fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{value} is not from 0 to 1")
    return value


def data_name(text: str) -> str:
    """Returns the name of a data set, which may be a local path."""
    local_path_option(text)
    return text
