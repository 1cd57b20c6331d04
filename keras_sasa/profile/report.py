"""Parameters, FLOPs and times of a model as rows, tables and CSV files."""

import csv
import dataclasses
import os

from keras_sasa._text_tables import align


@dataclasses.dataclass(frozen=True)
class Row:
    """One call of one layer.

    Args:
        name: Name of the layer, after the names of the models that contain
            it.
        layer: Name of its class.
        output_shape: Shape of its (first) output without the batch.
        parameters: Number of its parameters; 0 from the second call on.
        trainable_parameters: Number of its trained parameters.
        flops: FLOPs of the equations as written, `None` if unknown.
        flops_separable: FLOPs with shared terms computed once, or `None`.
        milliseconds: Median time of the call on its own, or `None`.
    """

    name: str
    layer: str
    output_shape: tuple[int, ...]
    parameters: int
    trainable_parameters: int
    flops: int | None
    flops_separable: int | None
    milliseconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Profile:
    """Parameters and FLOPs of a model; printing it gives a table.

    Args:
        rows: One `Row` for every call of a layer, in an order of computation.
        milliseconds: Median time of one call of the whole model, or `None`.
            It is less than the sum of the rows where layers are fused.
    """

    rows: tuple[Row, ...]
    milliseconds: float | None = None

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def trainable_parameters(self) -> int:
        return sum(row.trainable_parameters for row in self.rows)

    @property
    def flops(self) -> int:
        return sum(row.flops or 0 for row in self.rows)

    @property
    def flops_separable(self) -> int:
        return sum(row.flops_separable or 0 for row in self.rows)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Names of the layers whose unknown FLOPs the totals leave out."""
        names = (row.name for row in self.rows if row.flops is None)
        return tuple(dict.fromkeys(names))

    @property
    def layer_milliseconds(self) -> float:
        """Sum of the times of the rows."""
        return sum(row.milliseconds or 0 for row in self.rows)

    def __str__(self) -> str:
        timed = self.milliseconds is not None
        headings = ("layer", "class", "output", "parameters", "FLOPs")
        lines = [(*headings, "separable", *(("ms", "share") if timed else ()))]
        for row in self.rows:
            shape = "x".join(map(str, row.output_shape))
            counts = (row.parameters, row.flops, row.flops_separable)
            lines.append(
                (
                    row.name,
                    row.layer,
                    shape,
                    *map(_digits, counts),
                    *(self._time(row.milliseconds) if timed else ()),
                )
            )
        total = (self.parameters, self.flops, self.flops_separable)
        times = self._time(self.layer_milliseconds) if timed else ()
        lines.append(("total", "", "", *map(_digits, total), *times))
        text = align(lines, text_columns=3)
        if timed:
            text.append(
                f"one call of the whole model: {self.milliseconds:.2f} ms"
            )
        text.append(
            f"{self.trainable_parameters:,} of the parameters are trained"
        )
        if self.uncounted:
            text.append(f"FLOPs not counted: {', '.join(self.uncounted)}")
        return "\n".join(text)

    def _time(self, number):
        if number is None:
            return "-", "-"
        share = number / (self.layer_milliseconds or 1)
        return f"{number:.2f}", f"{share:.1%}"

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes the rows to a CSV file with a column for each field."""
        names = [field.name for field in dataclasses.fields(Row)]
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            for row in self.rows:
                shape = "x".join(map(str, row.output_shape))
                writer.writerow(
                    {**dataclasses.asdict(row), "output_shape": shape}
                )


def _digits(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"
