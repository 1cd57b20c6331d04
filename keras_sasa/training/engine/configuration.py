"""Configurations of runs: compared when a run is resumed."""

import dataclasses
import json
import reprlib
from collections.abc import Iterator
from typing import Any

from keras_sasa.training.engine.recipe import Recipe

# Errors list at most this many differences.
_LISTED = 12


def upgrade_configuration(configuration: dict[str, Any]) -> dict[str, Any]:
    """Adds the values that older versions did not write to `state.json`."""
    configuration = dict(configuration)
    if "mixed_precision" in configuration:
        name = configuration.pop("mixed_precision")
        configuration["dtype_policy"] = f"mixed_{name}" if name else "float32"
    if "recipe" in configuration:
        recipe = dataclasses.asdict(Recipe(**configuration["recipe"]))
        configuration["recipe"] = json.loads(json.dumps(recipe))
    return configuration


def describe_differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Names the values that differ; the number of epochs may.

    Args:
        before: Configuration of JSON values.
        now: The same.

    Returns:
        A text such as `"recipe.batch_size: 4 before, 8 now; seed: ..."`, empty
        if there is no difference.
    """
    differences = [
        difference
        for difference in _differences(before, now)
        if not difference.startswith("recipe.epochs: ")
    ]
    more = len(differences) - _LISTED
    if more > 0:
        differences = [*differences[:_LISTED], f"and {more} more"]
    return "; ".join(differences)


def _differences(before, now, name="") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _differences(
                before.get(key),
                now.get(key),
                f"{name}.{key}" if name else str(key),
            )
    elif (
        isinstance(before, list)
        and isinstance(now, list)
        and len(before) == len(now)
    ):
        for place, values in enumerate(zip(before, now, strict=True)):
            yield from _differences(*values, f"{name}[{place}]")
    elif before != now:
        yield f"{name}: {_short(before)} before, {_short(now)} now"


def _short(value):
    return "not set" if value is None else reprlib.repr(value)
