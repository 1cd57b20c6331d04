"""Type checkers resolve the arguments of public classes and functions."""

import json
import subprocess
import sys

import pytest

# Every line that ends in "# wrong" is an error, and no other line is.
SCRIPT = """\
import keras_sasa
from typing import Any
from keras_sasa import SelfAttention2D, training
from keras_sasa.applications import SASAResNet50

SelfAttention2D(64, kernel_size=7, num_heads=8)
SelfAttention2D(kernel_size=7)  # wrong
SelfAttention2D("64")  # wrong
SelfAttention2D(64, num_heads="8")  # wrong
keras_sasa.SelfAttention2D(kernel_size=7)  # wrong

SASAResNet50(classes=10, input_shape=(32, 32, 3))
SASAResNet50(klasses=10)  # wrong
SASAResNet50(classes="10")  # wrong
keras_sasa.applications.SASAResNet50(klasses=10)  # wrong

data: Any = None
training.fit({}, data, training.DIGITS, "runs", seed=1)
training.fit({}, data, training.DIGITS, "runs", sead=1)  # wrong
training.fit({}, data, training.DIGITS, "runs", seed="1")  # wrong
training.fit(seed=1)  # wrong
keras_sasa.training.fit(seed=1)  # wrong
keras_sasa.detection.RetinaNet(klasses=10)  # wrong
keras_sasa.profile.no_such_function()  # wrong

reveal_type(SelfAttention2D(64))
reveal_type(SASAResNet50())
reveal_type(keras_sasa.applications.SASAResNet50())
"""
TYPES = ["SelfAttention2D", "Model", "Model"]


# pyright is not among the requirements: it downloads itself when it starts.
@pytest.mark.large
def test_pyright_reports_wrong_arguments(tmp_path):
    pytest.importorskip("pyright")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson"]
        + ["--pythonpath", sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.stdout, process.stderr
    diagnostics = json.loads(process.stdout)["generalDiagnostics"]
    lines = SCRIPT.splitlines()
    wrong = {
        lines[found["range"]["start"]["line"]]
        for found in diagnostics
        if found["severity"] == "error"
    }
    assert wrong == {line for line in lines if line.endswith("# wrong")}
    types = [
        found["message"].split('"')[-2]
        for found in diagnostics
        if found["severity"] == "information"
    ]
    assert types == TYPES
