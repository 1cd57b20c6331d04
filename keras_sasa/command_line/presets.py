"""Networks, recipes and folders that follow from presets and options."""

import argparse
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_sasa.applications import CONFIGURATIONS
from keras_sasa.training.classification.recipes import RECIPES
from keras_sasa.training.engine.recipe import Recipe


def resolve_network(
    options: argparse.Namespace, network: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the arguments of `ResNet` for the options of a script.

    Args:
        options: The result of `parse_options`.
        network: Dict of arguments of `ResNet`, the preset of the script.
    """
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
            # Convolutions early, attention late, in fewer groups, too.
            network["spatial"] = spatial[-len(network["num_blocks"]) :]
    return network


def resolve_recipe(
    options: argparse.Namespace,
    recipe: Recipe,
    recipes: Mapping[str, Recipe] = RECIPES,
) -> Recipe:
    """Returns the `Recipe` for the options of a script.

    Args:
        options: The result of `parse_options`.
        recipe: A `Recipe`, the preset of the script.
        recipes: Dict of the recipes that `--recipe` may name.
    """
    if options.recipe:
        recipe = recipes[options.recipe]
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
        # The same part of a longer or shorter run.
        part = changes["epochs"] / recipe.epochs
        changes["warmup_epochs"] = round(recipe.warmup_epochs * part, 2)
    return dataclasses.replace(recipe, **changes)


def resolve_output(options: argparse.Namespace) -> pathlib.Path:
    """Returns the folder of the run."""
    if isinstance(options.resume, pathlib.Path):
        return options.resume
    name = pathlib.PurePath(options.data.removeprefix("tfds:")).name
    return options.output or pathlib.Path("runs") / (name or "folder")
