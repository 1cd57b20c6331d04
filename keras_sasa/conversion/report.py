"""The effect of a conversion on parameters and FLOPs."""

import dataclasses

from keras_sasa._text_tables import align
from keras_sasa.layers import SelfAttention2D
from keras_sasa.profile import Profile


@dataclasses.dataclass(frozen=True)
class Conversion:
    """Profiles of a model before and after; printing it gives a table.

    Args:
        before: `Profile` of the model with convolutions.
        after: `Profile` of the model with attention in their place.
    """

    before: Profile
    after: Profile

    @property
    def replaced(self) -> tuple[str, ...]:
        """Names of the replaced layers, with the models that contain them."""
        attention = SelfAttention2D.__name__
        names = {row.name for row in self.after.rows if row.layer == attention}
        return tuple(
            dict.fromkeys(
                row.name
                for row in self.before.rows
                if row.name in names and row.layer != attention
            )
        )

    def __str__(self) -> str:
        lines: list[tuple[str, ...]] = [
            ("layer", "was", "output", "parameters", "now", "FLOPs", "now")
            + ("separable",)
        ]
        for name in self.replaced:
            before = _rows(self.before, name)
            after = _rows(self.after, name)
            shape = "x".join(map(str, before.rows[0].output_shape))
            lines.append(
                (name, before.rows[0].layer, shape, *_counts(before, after))
            )
        lines.append(("model", "", "", *_counts(self.before, self.after)))
        lines.append(("change", "", "", *self._changes()))
        text = align(lines, text_columns=3)
        uncounted = dict.fromkeys(self.before.uncounted + self.after.uncounted)
        if uncounted:
            text.append(f"FLOPs not counted: {', '.join(uncounted)}")
        return "\n".join(text)

    def _changes(self):
        before, after = self.before, self.after
        return (
            "",
            _change(before.parameters, after.parameters),
            "",
            _change(before.flops, after.flops),
            _change(before.flops_separable, after.flops_separable),
        )


def _rows(whole, name):
    """Returns a profile of the calls of layers with this name alone."""
    return Profile(tuple(row for row in whole.rows if row.name == name))


def _counts(before, after):
    counts = (
        before.parameters,
        after.parameters,
        before.flops,
        after.flops,
        after.flops_separable,
    )
    return tuple(f"{count:,}" for count in counts)


def _change(before, after):
    return f"{after / before - 1:+.1%}" if before else "-"
