"""The front door: imports, README, the metadata."""

import pathlib
import re
import subprocess
import sys

import pytest

import keras_sasa

ROOT = pathlib.Path(__file__).parents[1]
OPTIONAL = {
    "jax",
    "keras_cv",
    "matplotlib",
    "pycocotools",
    "sklearn",
    "tensorflow_datasets",
}


def test_import_loads_no_optional_package():
    # Keras itself imports some of them where they are installed.
    code = (
        "import sys, keras; before = set(sys.modules); import keras_sasa; "
        f"print(sorted({OPTIONAL} & (set(sys.modules) - before)))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.splitlines()[-1] == "[]"


def test_public_names():
    for name in keras_sasa.__all__:
        assert hasattr(keras_sasa, name), name
    for name in keras_sasa.applications.__all__:
        assert hasattr(keras_sasa.applications, name), name


def test_no_assert_in_the_package():
    for path in (ROOT / "keras_sasa").rglob("*.py"):
        assert not re.search(
            r"^\s*assert\b", path.read_text(encoding="utf-8"), re.MULTILINE
        ), path


def python_blocks(path):
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["README.md", "examples/README.md"])
def test_python_blocks_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(ROOT / name)
    if name == "README.md":
        assert blocks
    # One namespace: a reader types the blocks one after the other.
    namespace = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{name}[{number}]", "exec"), namespace)
