"""Training scripts: data, a summary on one screen, and the run itself."""

import argparse
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_sasa.command_line.arguments_file import write_arguments
from keras_sasa.command_line.parsers import load_selected
from keras_sasa.command_line.presets import resolve_output
from keras_sasa.data.epochs import steps_per_epoch
from keras_sasa.data.image_data import ImageData
from keras_sasa.profile import profile
from keras_sasa.training.classification.classifier import fit
from keras_sasa.training.engine.devices import make_devices
from keras_sasa.training.engine.recipe import Recipe
from keras_sasa.training.engine.train import MODEL


def train(
    options: argparse.Namespace,
    network: Mapping[str, Any],
    recipe: Recipe,
    load: Callable[[argparse.Namespace], ImageData] = load_selected,
    fit: Callable[..., tuple[keras.Model, list[dict[str, float]]]] = fit,
) -> tuple[keras.Model | None, list[dict[str, float]], ImageData, pathlib.Path]:
    """Loads the data, prints a summary, and trains.

    Args:
        options: Options of `make_parser`, and others that `load` uses.
        network: Dict of arguments, passed to `fit`.
        recipe: A `Recipe`.
        load: Function of `options` that returns the data.
        fit: `keras_sasa.training.fit` or a function like it.

    Returns:
        The model, the history, the data and the folder of the run. Of several
        processes, the one that writes returns the model loaded from its file,
        for a single process, and the others return `None`.
    """
    devices = make_devices(options.strategy, options.tpu)
    data = load(options)
    recipe = recipe.limit_batch_size(data.num_train, devices.num_replicas)
    folder = resolve_output(options)

    def summarize(model):
        if devices.is_chief:
            write_arguments(folder, _options_to_keep(options))
            print(
                summarize_run(
                    options, model, network, data, recipe, devices, folder
                )
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


def _options_to_keep(options):
    """Returns the options that `parse_options` restores."""
    kept = vars(options).copy()
    for name in ("output", "resume", "warmup_epochs"):
        del kept[name]
    if os.path.exists(options.data):
        # Runs can be resumed from anywhere.
        kept["data"] = os.path.abspath(options.data)
    return kept


def summarize_run(options, model, network, data, recipe, devices, folder):
    """Returns one screen of text: everything that determines the result."""
    counted = profile(model)
    lines = {
        "network": ", ".join(f"{k}={v}" for k, v in network.items()),
        "parameters": f"{counted.trainable_parameters:,} trained",
        "FLOPs": f"{counted.flops / 1e6:,.1f} million per image",
        "data": f"{options.data}: {data.num_train:,} images to train, "
        f"{data.num_validation:,} to validate, {data.num_classes} classes",
        "devices": devices.describe(),
        "validation": "with the moving average of the weights, as saved",
        "precision": keras.config.dtype_policy().name,
        "seed": options.seed,
        "output": folder,
    }
    steps = steps_per_epoch(data, recipe.batch_size)
    momentum = recipe.limit_batch_norm_momentum(steps)
    if momentum != recipe.batch_norm_momentum:
        lines["batch normalization"] = (
            f"momentum {momentum:.4g}, because there are only "
            f"{recipe.epochs * steps} steps"
        )
    rows = [f"{name:20} {value}" for name, value in lines.items()]
    return "\n".join([*rows, "", recipe.describe(), ""])
