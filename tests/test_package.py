"""The front door: imports, public names."""

import pathlib
import re
import subprocess
import sys

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
