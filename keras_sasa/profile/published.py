"""The paper's tables, with its numbers next to ours."""

import csv
import dataclasses
import functools
import itertools

from keras_sasa._text_tables import align
from keras_sasa.applications import CONFIGURATIONS, ResNet
from keras_sasa.profile.profiling import profile
from keras_sasa.profile.report import Profile


@dataclasses.dataclass(frozen=True)
class Published:
    """Published numbers of a network; FLOPs in 1e9, parameters in 1e6.

    Args:
        table: Table of the paper.
        name: Row of the table.
        configuration: Name of the network in `CONFIGURATIONS`.
        flops: FLOPs in the table.
        parameters: Parameters in the table, or `None`.
        derived_flops: FLOPs of convolutions, projections and attention alone,
            derived from the text of the paper, or `None`.
        derived_separable: The same with separable q.r, or `None`.
        derived_parameters: Parameters without position embeddings, derived
            from the text of the paper, or `None`.
    """

    table: str
    name: str
    configuration: str
    flops: float
    parameters: float | None = None
    derived_flops: float | None = None
    derived_separable: float | None = None
    derived_parameters: float | None = None


def _published():
    def add(name, configuration, *numbers):
        rows.append(Published(table, name, configuration, *numbers))

    rows = []
    table = "ImageNet: ResNet"
    add("26, convolution", "resnet26_conv", 4.7, 13.7, 4.68)
    add("38, convolution", "resnet38_conv", 6.5, 19.6, 6.43)
    add("50, convolution", "resnet50_conv", 8.2, 25.6, 8.18)
    for depth, *numbers in (
        (26, 4.5, 10.3, 4.48, 4.39, 10.33),
        (38, 5.7, 14.1, 5.73, 5.60, 14.17),
        (50, 7.0, 18.0, 6.97, 6.81, 18.01),
    ):
        name = f"{depth}, conv stem + attention"
        add(name, f"resnet{depth}_attention", *numbers)
    for depth, *numbers in ((26, 4.7, 10.3), (38, 6.0, 14.1), (50, 7.2, 18.0)):
        name = f"{depth}, full attention"
        add(name, f"resnet{depth}_full_attention", *numbers)

    table = "groups: conv | attention"
    for name, configuration, flops, parameters, derived in (
        ("- | 1 2 3 4", "resnet50_attention", 7.0, 18.0, 18.01),
        ("1 | 2 3 4", "resnet50_conv1_attention234", 7.3, 18.1, 18.09),
        ("1 2 | 3 4", "resnet50_conv12_attention34", 7.5, 18.5, 18.48),
        ("1 2 3 | 4", "resnet50_conv123_attention4", 8.0, 20.8, 20.84),
        ("1 2 3 4 | -", "resnet50_conv", 8.2, 25.6, 25.56),
        ("2 3 4 | 1", "resnet50_conv234_attention1", 7.9, 25.5, 25.48),
        ("3 4 | 1 2", "resnet50_conv34_attention12", 7.8, 25.0, 25.09),
        ("4 | 1 2 3", "resnet50_conv4_attention123", 7.2, 22.7, 22.73),
    ):
        add(name, configuration, flops, parameters, None, None, derived)

    table = "kernel size"
    add("3", "resnet50_kernel3", 6.6, None, 6.51)
    add("5", "resnet50_kernel5", 6.7, None, 6.69)
    add("7", "resnet50_attention", 7.0, None, 6.97)
    add("9", "resnet50_kernel9", 7.3, None, 7.33)
    add("11", "resnet50_kernel11", 7.7, None, 7.79)

    table = "logits"
    add("q.k + q.r", "resnet50_attention", 7.0, 18.0)
    add("q.r only", "resnet50_position_only", 6.1, 16.7)
    add("q.k, no position", "resnet50_no_position", 6.9)
    add("q.k, absolute position", "resnet50_absolute_position", 6.9)

    table = "stem of full attention"
    add("plain", "resnet50_plain_stem", 7.1)
    add("convolution for values", "resnet50_conv_value_stem", 7.4)
    add("spatially aware values", "resnet50_full_attention", 7.2)
    return tuple(rows)


PUBLISHED = _published()


@functools.cache
def _profile_configuration(name):
    return profile(ResNet(**CONFIGURATIONS[name]))


def profile_published() -> list[tuple[Published, Profile]]:
    """Builds each network in `PUBLISHED` for 224x224 and profiles it."""
    return [
        (row, _profile_configuration(row.configuration)) for row in PUBLISHED
    ]


HEADER = """\
FLOPs in billions and trained parameters in millions for one image of 224x224.
A multiplication and an addition count as two FLOPs. Our counts are "naive" and
"separable":

naive      k*k products q.r of the width d of a head, as in the paper; the
           attention stem mixes a value matrix for each pixel
separable  q.r as 2k products of width d/2; the stem mixes a value matrix for
           each place in a block

Both include batch normalization, activations, softmax, additions and pooling;
windows at borders count in full. "paper prints" is from the tables of the
paper; "derived" follows from its text: FLOPs of convolutions, projections and
attention alone, parameters without position embeddings.
"""

# Heading (two lines), decimals and name in the CSV file.
_COLUMNS = (
    ("naive", "", 2, "flops"),
    ("paper", "prints", 1, "paper_flops"),
    ("derived", "", 2, "derived_flops"),
    ("separable", "", 2, "flops_separable"),
    ("derived", "", 2, "derived_flops_separable"),
    ("trained", "", 2, "trained_parameters"),
    ("paper", "prints", 1, "paper_parameters"),
    ("derived", "", 2, "derived_parameters"),
)


def _numbers(row: Published, ours: Profile) -> tuple[float | None, ...]:
    """Returns the cells of a row, FLOPs in 1e9 and parameters in 1e6."""
    return (
        ours.flops / 1e9,
        row.flops,
        row.derived_flops,
        ours.flops_separable / 1e9,
        row.derived_separable,
        ours.trainable_parameters / 1e6,
        row.parameters,
        row.derived_parameters,
    )


def format_published(rows: list[tuple[Published, Profile]]) -> str:
    """Returns the paper's tables as text, with our numbers next to them."""
    first, second, places, _ = zip(*_COLUMNS, strict=True)
    lines = []
    for title, table in itertools.groupby(rows, lambda row: row[0].table):
        lines += [(title, *first), ("", *second)]
        for row, ours in table:
            cells = (
                "-" if number is None else f"{number:.{decimals}f}"
                for number, decimals in zip(
                    _numbers(row, ours), places, strict=True
                )
            )
            lines.append((f"  {row.name}", *cells))
        lines.append(("",) * len(lines[0]))
    return "\n".join(align(lines[:-1], text_columns=1))


def write_published(rows: list[tuple[Published, Profile]], path: str) -> None:
    """Writes the tables to a CSV file; FLOPs in 1e9, parameters in 1e6."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("table", "network", *(name for *_, name in _COLUMNS)))
        for row, ours in rows:
            writer.writerow((row.table, row.name, *_numbers(row, ours)))
