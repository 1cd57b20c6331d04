"""The benchmarks run to their end, on as little as they take; minutes."""

import csv
import importlib
import pathlib
import shutil
import subprocess
import sys

import keras
import pytest

from tests.support.images import image_folder

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"

pytestmark = [
    pytest.mark.large,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="the benchmarks are of TensorFlow",
    ),
]


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("layers", []),
        ("networks", ["--tasks", "prediction", "--first-calls", "1"]),
        ("local_attention", []),
        ("detector", []),
        ("pretrained", ["--networks", "NATMini", "--batches", "1"]),
        ("export", ["--epochs", "1", "--networks", "digits_attention"]),
    ],
)
def test_runs(name, arguments, tmp_path):
    path = tmp_path / "rows.csv"
    script = BENCHMARKS / f"{name}.py"
    command = [sys.executable, str(script), "--repeats", "1", *arguments]
    result = subprocess.run(
        [*command, "--csv", str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert rows_of(path)


def test_the_command_in_the_inner_products_runs(tmp_path):
    (tmp_path / "empty.cc").write_text("int main() {}\n")
    link = ["g++", "empty.cc", "-lbenchmark", "-o", "empty"]
    if (
        shutil.which("g++") is None
        or subprocess.run(link, cwd=tmp_path).returncode
    ):
        pytest.skip("g++ does not link google-benchmark")
    source = BENCHMARKS / "inner_products.cc"
    lines = source.read_text(encoding="utf-8").splitlines()
    command = "\n".join(
        line.removeprefix("//   ") for line in lines if line.startswith("//   ")
    )
    result = subprocess.run(
        command.replace("build", str(tmp_path)) + " --benchmark_min_time=0.001",
        shell=True,
        cwd=BENCHMARKS.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert result.returncode == 0
    for name in ("TapProducts", "WeightedSums", "PixelProducts", "Softmax"):
        assert f"BM_{name}" in result.stdout


def test_rows_of_other_machines_stay(of_folder, tmp_path):
    write_rows = of_folder("common").write_rows
    path = tmp_path / "rows.csv"

    def row(processor, command, value):
        return {"value": value, "processor": processor, "command": command}

    for rows in (
        [row("old", "a", "1")],
        [row("new", "a", "2"), row("new", "a", "3")],
        [row("new", "b", "4")],
        [row("new", "a", "5")],
    ):
        write_rows(path, rows)
    assert [row["value"] for row in rows_of(path)] == ["1", "4", "5"]


@pytest.fixture
def of_folder(monkeypatch):
    """Imports a benchmark."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_input_pipeline_runs(of_folder, tmp_path, monkeypatch):
    images = image_folder(tmp_path / "images", images=100)
    path = tmp_path / "rows.csv"
    monkeypatch.setattr(
        sys,
        "argv",
        ["input_pipeline.py", "--data", str(images), "--csv", str(path)]
        + ["--seconds", "0.2", "--repeats", "1"],
    )
    of_folder("input_pipeline").main()
    assert all(float(row["images_per_second"]) > 0 for row in rows_of(path))


def test_three_claims_run(of_folder, tmp_path, monkeypatch):
    images = image_folder(tmp_path / "images", images=100)
    three_claims = of_folder("three_claims")
    monkeypatch.setattr(three_claims, "TRAININGS", tmp_path / "trainings.csv")
    path = tmp_path / "rows.csv"
    monkeypatch.setattr(
        sys,
        "argv",
        ["three_claims.py", "--data", str(images), "--csv", str(path)]
        + ["--runs", str(tmp_path / "runs"), "--repeats", "1", "--epochs", "3"]
        + ["--networks", "relative, k = 7", "k = 3", "--seeds", "0"],
    )
    three_claims.main()
    names = [row["network"] for row in rows_of(path)]
    assert names == ["relative, k = 7", "k = 3"]
    assert len(rows_of(tmp_path / "trainings.csv")) == 2
    assert path.with_suffix(".png").stat().st_size > 1000
