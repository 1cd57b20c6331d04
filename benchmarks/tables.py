"""Renders the tables and the picture of the documentation from the rows.

    python benchmarks/tables.py

replaces what stands between `<!-- table: NAME -->` and `<!-- end -->` in the
pages by the table of that name, and draws `docs/overview.png` if its numbers
have changed. Nothing is measured here. Of each processor, the last row of its
kind in the file counts. `tests/test_tables.py` fails when pages and rows
differ.
"""

import argparse
import functools
import re
import textwrap

import common
import measured
import overview

PAGES = (
    "README.md",
    "docs/speed.md",
    "docs/detection.md",
    "docs/results.md",
    "docs/pretrained.md",
)
BLOCK = re.compile(
    r"(?<=<!-- table: )(?P<name>[^\n]+?)( -->\n).*?(?=<!-- end -->)", re.DOTALL
)
DIRECTIONS = ("forward", "forward + backward")
TWIN = "ConvResNet50"
NOT_MEASURED = "-"


def render(page):
    """Returns the text of a page with its tables made from the rows."""

    def block(match):
        name = match["name"]
        if name not in TABLES:
            raise ValueError(
                f"A page asks for the table {name!r}. There are {[*TABLES]}."
            )
        text = TABLES[name]()
        return f"{name}{match[2]}{text}\n" if text else f"{name}{match[2]}"

    return BLOCK.sub(block, page)


def table(header, lines):
    """Returns a table of Markdown; what comes first in a line is a name."""
    lines = [header, ["---"] * len(header), *lines]
    return "\n".join(
        f"| {' | '.join(map(str, line))} |".replace("|  |", "| |")
        for line in lines
    )


def with_source(text, *rows):
    """Returns a table followed by a paragraph that says where it is from."""
    return (
        f"{text}\n\n{textwrap.fill(source(*rows), 88, break_on_hyphens=False)}"
    )


def source(*rows):
    """Returns machines, versions, commands and dates of rows as a sentence.

    Older rows have neither a date nor a commit nor a version of keras_sasa.
    """
    found = {}
    for row in rows:
        processor = measured.processor_name(row["processor"])
        about = (
            f"{row['cores']} cores of an {processor}, "
            f"TensorFlow {row['tensorflow']}, Keras {row['keras']}"
        )
        if row["date"]:
            about += (
                f", keras_sasa {row['keras_sasa']} (commit {row['commit']})"
            )
            about += f", {row['date']}"
        found.setdefault(about, {})[f"`{row['command']}`"] = None
    return (
        "On "
        + "; on ".join(
            f"{about}: {' and '.join(commands)}"
            for about, commands in found.items()
        )
        + "."
    )


def number(row, column, digits):
    """Returns a number of a row that may not exist as text."""
    if row is None or not row.get(column):
        return NOT_MEASURED
    return f"{float(row[column]):.{digits}f}"


def milliseconds(row, column):
    text = number(row, column, 1)
    return text if text == NOT_MEASURED else f"{text} ms"


# The layer


def layer_rows(label):
    """Rows of the layer and of the convolution by map, layer and direction."""
    rows = measured.rows_by_key("layers.csv", label, "experiment", "what")
    return {
        (size, name, direction): rows.get(
            (f"layer / Conv2D, {size}", f"{name} {direction}")
        )
        for size in measured.MAPS
        for name in ("Conv2D 3x3", "SelfAttention2D")
        for direction in DIRECTIONS
    }


def layer(label):
    rows = layer_rows(label)
    lines = []
    for size in measured.MAPS:
        for direction in DIRECTIONS:
            ours = rows[size, "SelfAttention2D", direction]
            lines.append(
                [
                    size,
                    direction,
                    milliseconds(
                        rows[size, "Conv2D 3x3", direction], "fastest_ms"
                    ),
                    milliseconds(ours, "fastest_ms"),
                    number(ours, "ratio_of_fastest", 2),
                    number(ours, "ratio_of_medians", 2),
                ]
            )
    header = [
        f"{label}: map",
        "",
        "Conv2D",
        "SelfAttention2D",
        "ratio",
        "of medians",
    ]
    return with_source(table(header, lines), *filter(None, rows.values()))


def rates(label):
    """The FLOP rate of the attention, and bfloat16 compared with float32."""
    rows = measured.rows_by_key("layers.csv", label, "experiment", "what")
    rate = {
        what.split()[1]: row
        for (experiment, what), row in rows.items()
        if experiment == "FLOP rate relative to matmul"
        and what.startswith("attention")
    }
    policy = {
        (experiment.rpartition(", ")[2], what): row
        for (experiment, what), row in rows.items()
        if experiment.startswith("mixed_bfloat16")
    }
    lines = [
        [
            size,
            number(rate.get(size), "ratio_of_medians", 2),
            *(
                number(
                    policy.get((size, f"mixed_bfloat16 {direction}")),
                    "ratio_of_medians",
                    2,
                )
                for direction in DIRECTIONS
            ),
        ]
        for size in measured.MAPS
    ]
    header = [
        f"{label}: map",
        "FLOP rate / a matrix product's",
        *(f"bfloat16 / float32, {direction}" for direction in DIRECTIONS),
    ]
    return with_source(table(header, lines), *rate.values(), *policy.values())


# Networks


def network_rows(label, mode="graph"):
    rows = measured.rows_by_key(
        "networks.csv", label, "task", "mode", "network", "batch"
    )
    return {
        (task, network): row
        for (task, row_mode, network, batch), row in rows.items()
        if row_mode == mode and batch == "8"
    }


def images_per_second(row, digits):
    if row is None:
        return NOT_MEASURED
    return f"{int(row['batch']) / float(row['fastest_seconds']):.{digits}f}"


def networks(label):
    rows = network_rows(label)
    names = dict.fromkeys(network for _, network in rows)
    lines = []
    for name in names:
        line = [name]
        for task, digits in (("prediction", 1), ("training step", 2)):
            row = rows.get((task, name))
            line += [
                images_per_second(row, digits),
                number(row, "fastest_over_twin", 2),
                number(row, "median_over_twin", 2),
            ]
        step = rows.get(("training step", name))
        line += [
            number(rows.get(("prediction", name)), "first_call_over_twin", 2),
            f"{number(step, 'process_peak_mib', 0)} MiB".replace("- MiB", "-"),
        ]
        lines.append(line)
    header = [
        label,
        "prediction",
        "time / the twin's",
        "of medians",
        "training step",
        "time / the twin's",
        "of medians",
        "first call / the twin's",
        "memory of the step",
    ]
    return with_source(table(header, lines), *rows.values())


def median_ratio(rows, task, name, other):
    """Returns the ratio of the medians of two networks as text."""
    medians = [
        number(rows.get((task, network)), "median_seconds", 4)
        for network in (name, other)
    ]
    if NOT_MEASURED in medians:
        return NOT_MEASURED
    return f"{float(medians[0]) / float(medians[1]):.2f}"


def baselines():
    """`SASAResNet50` compared with every convolutional network."""
    labels = list(measured.MACHINES)
    rows = {label: network_rows(label) for label in labels}
    names = (TWIN, f"{TWIN}, Keras' normalization", "keras ResNet50")
    lines = [
        [
            name,
            *(
                median_ratio(rows[label], task, "SASAResNet50", name)
                for label in labels
                for task in ("prediction", "training step")
            ),
        ]
        for name in names
    ]
    header = ["time of `SASAResNet50` relative to"] + [
        f"{label}: {task}"
        for label in labels
        for task in ("prediction", "training step")
    ]
    return with_source(
        table(header, lines),
        *(row for of in rows.values() for row in of.values()),
    )


def processors(label):
    """Returns the processor whose layers were measured."""
    row = measured.rows_of_machine("layers.csv", label)[0]
    return measured.processor_name(row["processor"])


def summary():
    """Ratios of medians on every machine."""
    labels = list(measured.MACHINES)
    layers = {label: layer_rows(label) for label in labels}
    nets = {label: network_rows(label) for label in labels}
    lines = []
    for size in measured.MAPS:
        name = f"layer, {size}"
        if size == measured.MAPS[0]:
            name += ": forward; forward + backward"
        lines.append(
            [
                name,
                *(
                    "; ".join(
                        number(
                            layers[label][size, "SelfAttention2D", direction],
                            "ratio_of_medians",
                            2,
                        )
                        for direction in DIRECTIONS
                    )
                    for label in labels
                ),
            ]
        )
    for name, task in (
        ("SASAResNet50", "prediction"),
        ("SASAResNet50", "training step"),
        ("SASAResNet50, strides", "prediction"),
        ("SASAResNet50, strides", "training step"),
        ("hybrid", "prediction"),
    ):
        lines.append(
            [
                f"`{name}`, {task}".replace(", strides`", "`, strides")
                if name != "hybrid"
                else f"hybrid, {task}",
                *(
                    number(nets[label].get((task, name)), "median_over_twin", 2)
                    for label in labels
                ),
            ]
        )
    header = ["time / the convolution's, medians"] + [
        f"{label}: {processors(label)}" for label in labels
    ]
    return table(header, lines)


def readme():
    """The sentence of the README."""
    parts = []
    for label in measured.MACHINES:
        ratios = [
            float(row["ratio_of_medians"])
            for (_, name, direction), row in layer_rows(label).items()
            if name == "SelfAttention2D" and direction == DIRECTIONS[0]
        ]
        network = network_rows(label)["prediction", "SASAResNet50"]
        parts.append(
            f"with {label}, a forward pass of the layer takes "
            f"{min(ratios):.2f} to {max(ratios):.2f} of the time of `Conv2D` "
            "3x3, and `SASAResNet50` predicts in "
            f"{number(network, 'median_over_twin', 2)} of the time of its "
            "convolutional twin"
        )
    text = (
        f"- **Fast.** On two cores {'; '.join(parts)} "
        "([medians](docs/speed.md))."
    )
    return textwrap.fill(
        text, 88, subsequent_indent="  ", break_on_hyphens=False
    )


# Growth and sizes


def scaling(label):
    rows = measured.rows_by_key("scaling.csv", label, "experiment", "what")
    lines = [
        [
            row["experiment"],
            row["what"],
            milliseconds(row, "median_ms")
            if row["median_ms"]
            else f"{number(row, 'mib', 0)} MiB",
            number(row, "ratio_of_medians", 2),
        ]
        for row in rows.values()
    ]
    return with_source(
        table([label, "", "median", "ratio"], lines), *rows.values()
    )


# Other implementations

PEERS = {
    "flex_attention": ("FlexAttention", "ms_over_native_ms"),
    "natten": ("NATTEN", "ms_over_native_ms"),
    "natten_optimized": ("NATTEN -O3", "ms_over_native_ms"),
    "timm": ("HaloAttn, timm", "ms_over_native_layer_ms"),
    "kecam": ("HaloAttn, kecam", "ms_over_native_layer_ms"),
}


def times(row, column):
    """Returns how many times as long something takes, such as "57x"."""
    if row is None or not row[column]:
        return NOT_MEASURED
    value = float(row[column])
    return f"{value:.0f}x" if value >= 13 else f"{value:.1f}x"


def peers(label):
    rows = measured.rows_by_key(
        "peers.csv", label, "map", "direction", "method"
    )
    lines = []
    for size in measured.MAPS:
        for direction in DIRECTIONS:
            batch = next(
                row["batch"] for key, row in rows.items() if key[0] == size
            )
            lines.append(
                [
                    f"{size}, {batch}",
                    direction,
                    *(
                        times(rows.get((size, direction, method)), column)
                        for method, (_, column) in PEERS.items()
                    ),
                ]
            )
    header = [
        f"{label}: map, batch",
        "",
        *(title for title, _ in PEERS.values()),
    ]
    return with_source(table(header, lines), *rows.values())


def pretrained(label):
    rows = measured.rows_by_key("pretrained.csv", label, "network", "batch")
    lines = [
        [
            f"`{name}`" if " " not in name else name,
            f"{row['image_size']} pixels",
            f"{row['published_accuracy']} %",
            number(row, "median_ms", 1),
            number(rows.get((name, "8")), "median_ms", 1),
        ]
        for (name, batch), row in rows.items()
        if batch == "1"
    ]
    header = [
        f"{label}: network",
        "images",
        "published accuracy",
        "median ms per image, batch 1",
        "batch 8",
    ]
    return with_source(table(header, lines), *rows.values())


METHODS = ("patches", "tiled", "native")
CONVOLUTION = "conv 3x3"


def implementations(label):
    rows = measured.rows_by_key(
        "local_attention.csv", label, "map", "direction", "method", "mode"
    )

    def best(column, size, direction, method):
        """The better of graph and XLA."""
        return min(
            float(row[column])
            for key, row in rows.items()
            if key[:3] == (size, direction, method)
        )

    lines = []
    for size in measured.MAPS:
        for direction in DIRECTIONS:
            ms = {
                method: best("ms", size, direction, method)
                for method in (*METHODS, CONVOLUTION)
            }
            batch = rows[size, direction, "native", "graph"]["batch"]
            lines.append(
                [
                    f"{size}, {batch}",
                    direction,
                    f"{ms['patches']:.0f} ms",
                    f"{ms['tiled']:.1f} ms",
                    f"{ms['native']:.1f} ms",
                    f"{ms['patches'] / ms['native']:.0f}x",
                    f"{ms[CONVOLUTION]:.1f} ms",
                    *(
                        f"{best('peak_mib', size, direction, method):.0f} MiB"
                        for method in METHODS
                    ),
                ]
            )
    header = [
        f"{label}: map, batch",
        "",
        *METHODS,
        "patches / native",
        CONVOLUTION,
        "memory: patches",
        "tiled",
        "native",
    ]
    return with_source(table(header, lines), *rows.values())


# Detectors

DETECTORS = {
    "conv_conv": ("convolution", "convolution"),
    "attention_conv": ("convolutional stem, attention", "convolution"),
    "full_attention_conv": ("full attention", "convolution"),
    "attention_attention": ("convolutional stem, attention", "attention"),
    "full_attention_attention": ("full attention", "attention"),
}
# Elsewhere the C library keeps freed memory, see README.md of this folder.
WITH_MEMORY = "AVX2"


def detectors():
    labels = list(measured.MACHINES)
    rows = {
        label: measured.rows_by_key("detector.csv", label, "detector", "mode")
        for label in labels
    }
    lines = []
    for detector, names in DETECTORS.items():
        line = list(names)
        for label in labels:
            row = rows[label].get((detector, "graph"))
            seconds = (
                NOT_MEASURED
                if row is None
                else f"{float(row['fastest_ms']) / 1e3:.2f} s"
            )
            line += [
                seconds,
                number(row, "ratio", 2),
                number(row, "ratio_of_medians", 2),
            ]
            if label == WITH_MEMORY:
                line.append(f"{number(row, 'peak_mib', 0)} MiB")
        lines.append(line)
    header = ["backbone", "pyramid and heads"]
    for label in labels:
        header += [f"{label}: fastest call", "ratio", "of medians"]
        if label == WITH_MEMORY:
            header.append("memory of a call")
    return with_source(
        table(header, lines),
        *(
            row
            for of in rows.values()
            for (_, mode), row in of.items()
            if mode == "graph"
        ),
    )


# Networks on CIFAR-10

# Name in the rows and name in the tables; the first is the twin of the others.
CLAIMS = (
    {
        "convolution, two groups": "convolution, two groups, 32 px",
        "hybrid, two groups, q.r": "hybrid, two groups, q.r",
        "hybrid, two groups": "hybrid, two groups",
    },
    {
        "convolution": "convolution, three groups, 48 px",
        "hybrid": "hybrid, three groups",
        "attention": "attention, three groups",
    },
)


def claim_pairs(rows):
    """Yields name, row and row of the twin of each network of the tables."""
    for names in CLAIMS:
        twin = next(iter(names))
        for name, title in names.items():
            if (name,) in rows:
                yield title, rows[name,], rows[twin,]


def claims(label):
    """Parameters, FLOPs, times and accuracy; better than the twin's is bold."""
    rows = measured.rows_by_key("three_claims.csv", label, "network")
    columns = (
        ("parameters", lambda v: f"{v:,.0f}", -1),
        ("flops", lambda v: f"{v / 1e6:.1f}", -1),
        ("seconds_per_epoch", lambda v: f"{v:.0f}", -1),
        ("seconds_per_1000_predictions", lambda v: f"{v:.2f} s", -1),
        ("accuracy_mean", lambda v: f"{v:.1f} %", 1),
    )
    lines = []
    for name, row, twin in claim_pairs(rows):
        line = [name]
        for column, text, better in columns:
            value, of_twin = float(row[column]), float(twin[column])
            cell = text(value)
            if better * (value - of_twin) > 0 and cell != text(of_twin):
                cell = f"**{cell}**"
            line.append(cell)
        line[-1] += f" ({float(row['accuracy_spread']):.1f})"
        lines.append(line)
    header = [
        "network",
        "parameters",
        "million FLOPs",
        "seconds per epoch",
        "1,000 predictions",
        "validation accuracy",
    ]
    return with_source(table(header, lines), *rows.values())


def claim_times(label):
    rows = measured.rows_by_key("three_claims.csv", label, "network")
    lines = []
    for name, row, twin in claim_pairs(rows):
        line = [name]
        for column, digits, unit in (
            ("seconds_per_epoch", 1, ""),
            ("seconds_per_1000_predictions", 3, " s"),
        ):
            value = float(row[column])
            line += [
                f"{value:.{digits}f}{unit}",
                f"{value / float(twin[column]):.2f}",
            ]
        lines.append(line)
    header = [
        "network",
        "seconds per epoch",
        "time / the twin's",
        "1,000 predictions",
        "time / the twin's",
    ]
    return with_source(table(header, lines), *rows.values())


def ablations():
    rows = {
        row["network"]: row
        for row in common.read_rows(
            measured.RESULTS / "three_claims_trainings.csv"
        )
    }
    lines = [
        [window, positions, f"{float(rows[name]['accuracy']):.1f} %"]
        for name, window, positions in (
            ("k = 3", "3x3", "relative"),
            ("relative, k = 7", "7x7", "relative"),
            ("k = 11", "11x11", "relative"),
            ("absolute position", "7x7", "absolute"),
            ("no position", "7x7", "none"),
        )
    ]
    return table(["window", "positions", "validation accuracy"], lines)


def _for_machines(name, make, file):
    """Returns a table for each machine, which is empty without rows."""

    def of_machine(label):
        return make(label) if measured.rows_of_machine(file, label) else ""

    return {
        f"{name}, {label}": functools.partial(of_machine, label)
        for label in measured.MACHINES
    }


TABLES = {
    "summary": summary,
    "summary of the README": readme,
    **_for_machines("layer", layer, "layers.csv"),
    **_for_machines("rates", rates, "layers.csv"),
    **_for_machines("networks", networks, "networks.csv"),
    "baselines": baselines,
    **_for_machines("scaling", scaling, "scaling.csv"),
    **_for_machines("peers", peers, "peers.csv"),
    **_for_machines("pretrained", pretrained, "pretrained.csv"),
    **_for_machines("implementations", implementations, "local_attention.csv"),
    "detectors": detectors,
    **_for_machines("three claims", claims, "three_claims.csv"),
    **_for_machines("times of three claims", claim_times, "three_claims.csv"),
    "ablations": ablations,
}


def main():
    argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    for name in PAGES:
        page = measured.FOLDER.parent / name
        text = page.read_text(encoding="utf-8")
        rendered = render(text)
        if rendered != text:
            page.write_text(rendered, encoding="utf-8")
            print(name)
    if overview.drawn_numbers() != overview.numbers():
        overview.main()
        print(overview.PICTURE)


if __name__ == "__main__":
    main()
