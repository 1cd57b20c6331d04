"""The report that `setup.py` writes about the compilation of the kernel."""

import json
import pathlib

# Beside the library; setup.py uses the same name.
PATH = pathlib.Path(__file__).with_name("_native.json")


def read(path=None) -> dict | None:
    """Reads the report.

    Returns:
        Dict with `"sources"` (the `source_digest` of the C++ files),
        `"compiler"` (its first line of `--version`, or `None` if no compiler
        ran), `"levels"` (the instruction sets that were compiled), `"left_out"`
        (the others, with the reasons) and `"failure"` (why there is no kernel,
        or `None`). `None` if there is no report.
    """
    try:
        return json.loads((path or PATH).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def failure(report: dict | None) -> str | None:
    """Returns why there is no kernel, if the report says so."""
    if report is None or report["failure"] is None:
        return None
    return f"{_with_compiler(report)}{report['failure']}"


def describe(report: dict | None) -> str:
    """Returns one line about the instruction sets that were compiled."""
    if report is None:
        return "no report"
    if report["failure"] is not None:
        return f"failed: {failure(report)}"
    left_out = "".join(
        f"; without {level}: {why}" for level, why in report["left_out"].items()
    )
    levels = ", ".join(report["levels"])
    return f"{_with_compiler(report)}{levels}{left_out}"


def _with_compiler(report):
    return f"{report['compiler']}: " if report["compiler"] else ""
