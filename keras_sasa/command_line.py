"""What the training scripts share: their options, and a summary on one screen.

A script gives presets; a network and a recipe are chosen by name, and single
values of both are changed by options of their own.
"""

import argparse
import collections
import dataclasses
import inspect
import os
import pathlib
import sys

import keras

from keras_sasa._paths import local_path_option
from keras_sasa.applications import CONFIGURATIONS, ResNet
from keras_sasa.applications.spatial_operators import SPATIAL_OPERATORS
from keras_sasa.applications.stems import STEMS
from keras_sasa.data.images import load_data, steps_per_epoch
from keras_sasa.profile import profile
from keras_sasa.training.classification.classifier import fit
from keras_sasa.training.engine.devices import STRATEGIES, make_devices
from keras_sasa.training.engine.loop import MIXED_PRECISION, MODEL
from keras_sasa.training.engine.recipe import CIFAR10, DIGITS, IMAGENET
from keras_sasa.training.engine.run import (
    ARGUMENTS,
    STATE,
    read_arguments,
    read_training,
    write_arguments,
)

RECIPES = {"imagenet": IMAGENET, "cifar10": CIFAR10, "digits": DIGITS}


def make_parser(description, data, network, recipe, recipes=None, cases=None):
    """Makes a parser of the options that all training scripts have.

    Args:
        description: Text for `--help`, the docstring of the script.
        data: Default of `--data`.
        network: Default of `--network`, or a text that says what it is.
        recipe: Default of `--recipe`, or a text that says what it is.
        recipes: Dict of a `Recipe` for each name. Default: `RECIPES`.
        cases: Dict of a pair for each case that the script tells apart, for
            which the help shows the defaults: what the network is (a dict of
            arguments of `ResNet`), and a `Recipe`.

    Returns:
        An `argparse.ArgumentParser`, for `parse_options`. What is not given
        is `None`.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    defaults = _describe_defaults(cases or {})

    def add_preset(group, name, text, **options):
        text += defaults.get(name, "")
        group.add_argument(f"--{name}", help=text, **options)

    add = parser.add_argument
    # That of a training that is resumed, whatever the number of its epochs.
    parser.set_defaults(warmup_epochs=None)
    add(
        "--data",
        type=data_option,
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
        help="go on with the training in DIR (default: in the output folder);\n"
        "options that are not given are those of before",
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
    group.add_argument(
        "--recipe", choices=recipes or RECIPES, help=f"(default {recipe})"
    )
    for name, text, kind in (
        ("epochs", "passes over the images", positive),
        ("batch-size", "images of a step, all devices", positive),
        ("learning-rate", "the highest, of this batch size", float),
        ("image-size", "images are resized to this side", positive),
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


def parse_options(parser, argv=None):
    """Parses the options of a script, with those of before on `--resume`.

    Args:
        parser: What `make_parser` has returned.
        argv: List of strings. Default: those of the program.

    Returns:
        An `argparse.Namespace`.

    Raises:
        ValueError: If the folder to resume from is that of another script.
    """
    options = parser.parse_args(argv)
    if not options.resume:
        return options
    folder = output_of(options)
    if options.resume is not True:
        if options.output not in (None, options.resume):
            parser.error("--resume DIR writes to DIR: leave --output out")
        if not any((folder / name).exists() for name in (STATE, ARGUMENTS)):
            parser.error(f"--resume: {str(folder)!r} holds no training")
    kept = read_arguments(folder, known=vars(options))
    parser.set_defaults(**kept)
    options = parser.parse_args(argv)
    if (folder / STATE).exists():
        options.warmup_epochs = read_training(folder)[0].warmup_epochs
    options.output = folder
    return options


def _kept_options(options):
    """Returns the options that `parse_options` takes from a file."""
    kept = vars(options).copy()
    for name in ("output", "resume", "warmup_epochs"):
        del kept[name]
    if os.path.exists(options.data):
        # So that a training can be resumed from anywhere.
        kept["data"] = os.path.abspath(options.data)
    return kept


def data_option(text):
    """Returns the name of data, for `type=` of an option of `argparse`."""
    local_path_option(text)
    return text


def _describe_defaults(cases):
    """Returns, for each option, what it is in each case."""
    rows = collections.defaultdict(list)
    for network, recipe in cases.values():
        # What is not given is what `ResNet` takes.
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


def add_selection(parser):
    """Adds which images of those to classify are taken for what."""
    add = parser.add_argument
    add(
        "--held-out",
        type=float,
        help="fraction to validate on (default: what the data has for that,\n"
        "or 0.2)",
    )
    add(
        "--skip-corrupt",
        action="store_true",
        help="leave out images that cannot be decoded (default: refuse them)",
    )


def load_selected(options):
    """Loads images to classify, with the options of `add_selection`."""
    return load_data(options.data, options.held_out, options.skip_corrupt)


def check_fits(data, images):
    """Raises an error if images are not such as a model was trained with.

    Args:
        data: An `ImageData`.
        images: What `load_trained` returned with the model.
    """
    for what, needed, received in (
        ("classes", images.class_names, data.class_names),
        ("number of channels", images.channels, data.channels),
        ("brightest pixel value", images.max_pixel_value, data.white),
    ):
        if received != needed:
            raise ValueError(
                f"--data must have the {what} of the model's training, "
                f"{needed}. Received: {received}."
            )


def check_distinct_names(paths):
    """Raises an error if pictures of images would overwrite each other."""
    names = [pathlib.Path(path).stem for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            "Images must have distinct names, because pictures are named after "
            f"them. Received more than once: {twice}."
        )


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return value


def fraction(text):
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{value} is not from 0 to 1")
    return value


def network_of(options, network):
    """Returns arguments of `ResNet`: those of `network`, changed by options."""
    network = dict(network)
    if options.network:
        network = dict(CONFIGURATIONS[options.network])
    for name, value in {
        "num_blocks": options.blocks,
        "width_multiplier": options.width and options.width / 64,
        "spatial": options.spatial,
        "stem": options.stem,
        "kernel_size": options.kernel_size,
        "num_heads": options.heads,
    }.items():
        if value is not None:
            network[name] = tuple(value) if isinstance(value, list) else value
    spatial = network.get("spatial")
    if isinstance(spatial, tuple):
        if len(spatial) == 1:
            network["spatial"] = spatial[0]
        elif options.spatial is None:
            # Convolutions early, attention late, in fewer groups too.
            network["spatial"] = spatial[-len(network["num_blocks"]) :]
    return network


def recipe_of(options, recipe, recipes=None):
    """Returns a `Recipe`: `recipe` or that named, changed by options."""
    if options.recipe:
        recipe = (recipes or RECIPES)[options.recipe]
    changes = {
        name: getattr(options, name)
        for name in ("epochs", "batch_size", "image_size")
        if getattr(options, name) is not None
    }
    if options.learning_rate is not None:
        changes["base_learning_rate"] = options.learning_rate
        changes["base_batch_size"] = options.batch_size or recipe.batch_size
    if options.warmup_epochs is not None:
        changes["warmup_epochs"] = options.warmup_epochs
    elif "epochs" in changes:
        # The same part of a longer or shorter training.
        part = changes["epochs"] / recipe.epochs
        changes["warmup_epochs"] = round(recipe.warmup_epochs * part, 2)
    return dataclasses.replace(recipe, **changes)


def output_of(options):
    if isinstance(options.resume, pathlib.Path):
        return options.resume
    name = pathlib.PurePath(options.data.removeprefix("tfds:")).name
    return options.output or pathlib.Path("runs") / (name or "folder")


def train(options, network, recipe, load=load_selected, fit=fit):
    """Loads the data, prints a summary, and trains.

    Args:
        options: Options of `make_parser`, and those that `load` wants.
        network: Dict of arguments that `fit` takes.
        recipe: A `Recipe`.
        load: Function of `options` that returns the data.
        fit: `keras_sasa.training.fit` or another function like it.

    Returns:
        The model, the history, the data and the folder of the run. Of several
        processes, the one that writes gets the model as it was saved, for
        itself alone, and the others `None`.
    """
    devices = make_devices(options.strategy, options.tpu)
    data = load(options)
    recipe = recipe.reduced_to(data.num_train, devices.num_replicas)
    folder = output_of(options)

    def summarize(model):
        if devices.is_chief:
            write_arguments(folder, _kept_options(options))
            print(
                summary(options, model, network, data, recipe, devices, folder)
            )

    model, history = fit(
        network,
        data,
        recipe,
        folder,
        devices=devices,
        seed=options.seed,
        mixed_precision=options.mixed_precision,
        resume=bool(options.resume),
        on_start=summarize,
    )
    if devices.shard[1] > 1:
        keras.distribution.set_distribution(None)
        path = folder / MODEL
        model = keras.models.load_model(path) if devices.is_chief else None
    return model, history, data, folder


def summary(options, model, network, data, recipe, devices, folder):
    """Returns one screen of text: all that decides what comes out."""
    counted = profile(model)
    lines = {
        "network": ", ".join(f"{k}={v}" for k, v in network.items()),
        "parameters": f"{counted.trainable_parameters:,} trained",
        "FLOPs": f"{counted.flops / 1e6:,.1f} million an image",
        "data": f"{options.data}: {data.num_train:,} images to train, "
        f"{data.num_validation:,} to validate, {data.num_classes} classes",
        "devices": devices.describe(),
        "validation": "with the moving average of the weights, as saved",
        "precision": keras.config.dtype_policy().name,
        "seed": options.seed,
        "output": folder,
    }
    steps = steps_per_epoch(data, recipe)
    momentum = recipe.limit_batch_norm_momentum(steps)
    if momentum != recipe.batch_norm_momentum:
        lines["batch normalization"] = (
            f"a momentum of {momentum:.4g}, as there are "
            f"{recipe.epochs * steps} steps only"
        )
    rows = [f"{name:20} {value}" for name, value in lines.items()]
    return "\n".join([*rows, "", recipe.describe(), ""])


def run(main):
    """Calls `main()`; what a user can mend ends in one line, not a traceback.

    Args:
        main: Function without arguments.
    """
    try:
        main()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        # As shells report a program that was interrupted.
        sys.exit(130)
