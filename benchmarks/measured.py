"""The rows of the processors that the documentation shows."""

import pathlib
import re

import common

FOLDER = pathlib.Path(__file__).resolve().parent
RESULTS = FOLDER / "results"
# Of the processors with an instruction set, the first one that has rows counts.
MACHINES = {
    "AVX2": ("AMD EPYC family 25 model 1",),
    "AVX-512": (
        "AMD EPYC family 25 model 17",
        "AMD EPYC family 26 model 2",
    ),
}
MAPS = ("56x56x64", "28x28x128", "14x14x256", "7x7x512")


def rows_of_machine(name, label):
    """Returns the rows of the processor with an instruction set.

    Args:
        name: Name of the CSV file.
        label: A key of `MACHINES`.

    Returns:
        List of dicts of strings, empty if nothing was measured there.
    """
    path = RESULTS / name
    rows = common.read_rows(path) if path.exists() else []
    for processor in MACHINES[label]:
        found = [row for row in rows if row["processor"] == processor]
        if found:
            return found
    return []


def rows_by_key(name, label, *columns):
    """Returns the last row of a machine for all values of some columns.

    Args:
        name: Name of the CSV file.
        label: A key of `MACHINES`.
        columns: Names of columns.

    Returns:
        Dict from a tuple of the values to the row.
    """
    return {
        tuple(row[column] for column in columns): row
        for row in rows_of_machine(name, label)
    }


def processor_name(processor):
    """Returns "AMD EPYC (family 25, model 1)" as prose has it."""
    return re.sub(
        r" family (\d+) model (\d+)", r" (family \1, model \2)", processor
    )
