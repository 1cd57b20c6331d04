"""What command-line scripts share: options, a summary, errors in one line.

A script gives presets; users choose a network and a recipe by name, and change
single values of both by options of their own.
"""

from keras_sasa.command_line.checks import check_distinct_names, check_fits
from keras_sasa.command_line.errors import run
from keras_sasa.command_line.option_types import fraction, positive
from keras_sasa.command_line.parsers import (
    add_selection,
    load_selected,
    make_image_parser,
    make_parser,
    parse_options,
)
from keras_sasa.command_line.presets import (
    resolve_network,
    resolve_output,
    resolve_recipe,
)
from keras_sasa.command_line.training_scripts import train

__all__ = [
    "add_selection",
    "check_distinct_names",
    "check_fits",
    "fraction",
    "load_selected",
    "make_image_parser",
    "make_parser",
    "parse_options",
    "positive",
    "resolve_network",
    "resolve_output",
    "resolve_recipe",
    "run",
    "train",
]
