"""The tables and the picture of the documentation are made from the rows."""

import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("tables")


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def test_tables_are_those_of_the_rows(tables):
    for page in tables.PAGES:
        text = text_of(page)
        assert text.count("<!-- table: ") == text.count("<!-- end -->") > 0
        message = f"Run `python benchmarks/tables.py`: {page} is not its output"
        assert tables.render(text) == text, message


def test_bars_are_those_of_the_rows(tables):
    drawn = tables.overview.drawn_numbers()
    message = "Run `python benchmarks/tables.py`: the picture has other numbers"
    assert drawn == tables.overview.numbers(), message


def test_rows_make_the_table(tables, monkeypatch, tmp_path):
    rows = text_of("benchmarks/results/three_claims_trainings.csv")
    name = "three_claims_trainings.csv"
    (tmp_path / name).write_text(rows.replace(",60.52,", ",61.5,"))
    monkeypatch.setattr(tables.measured, "RESULTS", tmp_path)
    page = "Before.\n<!-- table: ablations -->\n<!-- end -->\nBehind.\n"
    rendered = tables.render(page)
    assert "| 11x11 | relative | 61.5 % |\n" in rendered
    assert "| 3x3 | relative | 57.0 % |\n" in rendered
    assert rendered.startswith("Before.\n<!-- table: ablations -->\n| window")
    assert rendered.endswith(" |\n<!-- end -->\nBehind.\n")
    assert tables.render(rendered) == rendered
    # A machine without rows has an empty table.
    page = page.replace("ablations", "scaling, AVX2")
    assert tables.render(page) == page
    with pytest.raises(ValueError, match="'speed'.*'summary'"):
        tables.render(page.replace("scaling, AVX2", "speed"))


def test_rows_keep_their_source(tables):
    row = {
        "processor": "AMD EPYC family 25 model 1",
        "cores": "2",
        "tensorflow": "2.21.0",
        "keras": "3.15.1",
        "command": "python benchmarks/layers.py",
        "date": "",
        "commit": "",
        "keras_sasa": "",
    }
    old = (
        "On 2 cores of an AMD EPYC (family 25, model 1), TensorFlow 2.21.0, "
        "Keras 3.15.1: `python benchmarks/layers.py`."
    )
    assert tables.source(row, row) == old
    new = row | {"date": "2026-11-28", "commit": "abc", "keras_sasa": "1.2.0"}
    assert ", keras_sasa 1.2.0 (commit abc), 2026-11-28: `" in tables.source(
        new
    )
