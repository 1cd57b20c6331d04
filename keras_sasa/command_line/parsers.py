"""The options of command-line scripts."""

import argparse
import collections
import inspect
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from keras_sasa._paths import local_path_option
from keras_sasa.applications import CONFIGURATIONS, ResNet
from keras_sasa.applications.spatial_operators import SPATIAL_OPERATORS
from keras_sasa.applications.stems import STEMS
from keras_sasa.command_line.arguments_file import ARGUMENTS, read_arguments
from keras_sasa.command_line.option_types import data_name, positive
from keras_sasa.command_line.presets import resolve_output
from keras_sasa.data.classification.sources import load_data
from keras_sasa.data.image_data import ImageData
from keras_sasa.training.classification.recipes import RECIPES
from keras_sasa.training.engine.devices import STRATEGIES
from keras_sasa.training.engine.recipe import Recipe
from keras_sasa.training.engine.run import STATE
from keras_sasa.training.engine.train import MIXED_PRECISION
from keras_sasa.training.saved_models import read_training


def _make_parser(description):
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )


def make_image_parser(
    description: str, output: str, networks: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """Makes a parser for a script that runs a trained model on image files.

    Args:
        description: Text for `--help`, the docstring of the script.
        output: Default of `--output`.
        networks: Names of published networks that can take the place of a
            trained model.

    Returns:
        An `argparse.ArgumentParser` with the options `model`, `images` and
        `output`. With `networks`, it has the options `network` and `weights`
        as well; `model` is then the first image, and `images` may be empty.
    """
    parser = _make_parser(description)
    add = parser.add_argument
    text = "a .keras file of a training run"
    if networks:
        add(
            "--network",
            choices=networks,
            metavar="NAME",
            help="a published network in the place of MODEL (default: none), "
            f"one of\n{', '.join(networks)}",
        )
        add(
            "--weights",
            default="imagenet",
            help="of --network: imagenet, or the path of a file\n"
            "(default imagenet)",
        )
        text += "; none with --network"
    add("model", type=pathlib.Path, metavar="MODEL", help=text)
    nargs = "*" if networks else "+"
    add("images", type=pathlib.Path, nargs=nargs, metavar="IMAGE")
    add(
        "--output",
        type=local_path_option,
        default=output,
        help=f"folder (default {output})",
    )
    return parser


def make_parser(
    description: str,
    data: str,
    network: str,
    recipe: str,
    recipes: Mapping[str, Recipe] = RECIPES,
    cases: Mapping[str, tuple[Mapping[str, Any], Recipe]] | None = None,
) -> argparse.ArgumentParser:
    """Makes a parser of the options that all training scripts have.

    Args:
        description: Text for `--help`, the docstring of the script.
        data: Default of `--data`.
        network: Default of `--network`, or a text that describes it.
        recipe: Default of `--recipe`, or a text that describes it.
        recipes: Dict of the recipes that `--recipe` may name.
        cases: Dict of the cases that the script distinguishes, each with its
            presets: a dict of arguments of `ResNet`, and a `Recipe`. The help
            shows them as the defaults.

    Returns:
        An `argparse.ArgumentParser`, for `parse_options`. Omitted options are
        `None`.
    """
    parser = _make_parser(description)
    defaults = _describe_defaults(cases or {})

    def add_preset(group, name, text, **options):
        text += defaults.get(name, "")
        group.add_argument(f"--{name}", help=text, **options)

    add = parser.add_argument
    # A resumed run keeps its warm-up, whatever the number of epochs.
    parser.set_defaults(warmup_epochs=None)
    add(
        "--data",
        type=data_name,
        default=data,
        help=f"a folder or tfds:NAME (default {data})",
    )
    add(
        "--output",
        type=local_path_option,
        help="folder (default runs/NAME)",
    )
    add(
        "--resume",
        type=local_path_option,
        nargs="?",
        const=True,
        metavar="DIR",
        help="resume the training in DIR (default: in the output folder);\n"
        "omitted options keep their values",
    )
    add("--seed", type=int, default=0, help="of weights and images (default 0)")

    group = parser.add_argument_group("network")
    group.add_argument(
        "--network",
        choices=CONFIGURATIONS,
        metavar="NAME",
        help=f"a name of CONFIGURATIONS (default {network})",
    )
    for name, text, kind in (
        ("blocks", "blocks of each group", {"type": positive, "nargs": "+"}),
        ("width", "channels of the first group", {"type": positive}),
        (
            "spatial",
            f"for each group one of {', '.join(SPATIAL_OPERATORS)}",
            {"choices": SPATIAL_OPERATORS, "nargs": "+", "metavar": "NAME"},
        ),
        ("stem", "the first layers", {"choices": STEMS}),
        ("kernel-size", "side of the window", {"type": positive}),
        ("heads", "of each attention", {"type": positive}),
    ):
        add_preset(group, name, text, **kind)

    group = parser.add_argument_group("recipe")
    group.add_argument("--recipe", choices=recipes, help=f"(default {recipe})")
    for name, text, kind in (
        ("epochs", "passes over the images", positive),
        ("batch-size", "images per step, on all devices", positive),
        ("learning-rate", "peak, with this batch size", float),
        ("image-size", "side that images are resized to", positive),
    ):
        add_preset(group, name, text, type=kind)

    add = parser.add_argument_group("devices").add_argument
    add("--strategy", choices=STRATEGIES, default="none", help="(default none)")
    add("--tpu", help="name or address, with --strategy tpu")
    add(
        "--mixed-precision",
        choices=MIXED_PRECISION,
        help="(default: the global policy of Keras, float32)",
    )
    return parser


def parse_options(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parses the options of a script; `--resume` restores earlier ones.

    Args:
        parser: The result of `make_parser`.
        argv: List of strings. Default: the arguments of the program.

    Returns:
        An `argparse.Namespace`.

    Raises:
        ValueError: If another script has written the folder to resume from.
    """
    options = parser.parse_args(argv)
    if not options.resume:
        return options
    folder = resolve_output(options)
    if options.resume is not True:
        if options.output not in (None, options.resume):
            parser.error("--resume DIR writes to DIR: omit --output")
        if not any((folder / name).exists() for name in (STATE, ARGUMENTS)):
            parser.error(f"--resume: {str(folder)!r} holds no training")
    kept = read_arguments(folder, known=vars(options))
    parser.set_defaults(**kept)
    options = parser.parse_args(argv)
    if (folder / STATE).exists():
        options.warmup_epochs = read_training(folder)[0].warmup_epochs
    options.output = folder
    return options


def _describe_defaults(cases):
    """Returns a text for each option: its defaults in all cases."""
    rows = collections.defaultdict(list)
    for network, recipe in cases.values():
        # Omitted arguments have the defaults of `ResNet`.
        bound = inspect.signature(ResNet).bind(**network)
        bound.apply_defaults()
        network = bound.arguments
        for name, value in {
            "blocks": network["num_blocks"],
            "width": round(64 * network["width_multiplier"]),
            "spatial": network["spatial"],
            "stem": network["stem"],
            "kernel-size": network["kernel_size"],
            "heads": network["num_heads"],
            "epochs": recipe.epochs,
            "batch-size": recipe.batch_size,
            "learning-rate": f"{recipe.learning_rate:.3g}",
            "image-size": recipe.image_size,
        }.items():
            if isinstance(value, tuple):
                value = " ".join(map(str, value))
            rows[name].append(str(value))
    texts = {}
    for name, values in rows.items():
        text = f" (default {values[0]})"
        if len(set(values)) > 1:
            where = collections.defaultdict(list)
            for value, case in zip(values, cases, strict=True):
                where[value].append(case)
            text = "".join(
                f"\n  {value} by default for {', '.join(names)}"
                for value, names in where.items()
            )
        texts[name] = text
    return texts


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Adds the options that select images to classify."""
    add = parser.add_argument
    add(
        "--validation-split",
        type=float,
        help="fraction of the training images to validate with (default: the\n"
        "validation set of the data, or 0.2)",
    )
    add(
        "--skip-corrupt",
        action="store_true",
        help="skip images that cannot be decoded (default: stop with an error)",
    )


def load_selected(options: argparse.Namespace) -> ImageData:
    """Loads images to classify, with the options of `add_selection`."""
    return load_data(
        options.data, options.validation_split, options.skip_corrupt
    )
