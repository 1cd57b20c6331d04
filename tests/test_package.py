"""The front door: imports, public names."""

import ast
import configparser
import importlib.metadata
import importlib.util
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

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


def test_version_of_the_citation():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (version,) = re.findall(r"^version: (.*)$", text, re.MULTILINE)
    assert version == keras_sasa.__version__
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(.*)\]", text, re.M).group(1) == version


def test_every_supported_python_is_tested():
    text = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    supported = re.findall(r"Python :: (3\.\d+)$", text, re.MULTILINE)
    workflow = ROOT / ".github/workflows/tests.yml"
    (line,) = re.findall(r"python: \[(.*)\]", workflow.read_text())
    assert re.findall(r"3\.\d+", line) == supported
    with open(ROOT / "pyproject.toml", "rb") as file:
        builds = tomllib.load(file)["tool"]["cibuildwheel"]["build"]
    assert re.findall(r"cp(\d+)", builds) == [
        version.replace(".", "") for version in supported
    ]


def required(extra):
    """Returns all distributions that `pip install .[extra]` brings."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")
    lines += config["options.extras_require"][extra].split("\n")
    waiting = [Requirement(line) for line in lines if line]
    found = set()
    while waiting:
        requirement = waiting.pop()
        name = requirement.name.replace("_", "-").lower()
        extras = requirement.extras or {""}
        if not found >= {(name, extra) for extra in extras}:
            found |= {(name, extra) for extra in extras}
            try:
                lines = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                lines = []
            waiting += [
                other
                for other in map(Requirement, lines)
                if other.marker is None
                or any(other.marker.evaluate({"extra": e}) for e in extras)
            ]
    return {name for name, _ in found}


def lazy_imports(package):
    """Returns the packages that etils imports for another when used first."""
    root = pathlib.Path(importlib.util.find_spec(package).origin).parent
    trees = (
        ast.parse(path.read_text(encoding="utf-8"))
        for path in (root / "core").rglob("*.py")
        if not path.name.endswith("_test.py")
    )
    blocks = (
        block
        for tree in trees
        for block in ast.walk(tree)
        if isinstance(block, ast.With)
        and "lazy_imports" in ast.unparse(block.items[0])
    )
    names = set()
    for block in blocks:
        for line in ast.walk(block):
            if isinstance(line, ast.Import):
                names |= {alias.name for alias in line.names}
            elif isinstance(line, ast.ImportFrom):
                names.add(line.module)
    return {name.partition(".")[0] for name in names}


def test_the_extra_brings_what_a_download_imports():
    """Whatever else is installed here, and although no test downloads."""
    pytest.importorskip("tensorflow_datasets")
    # For sets in the formats of others, and for tables.
    special = {
        "apache_beam",
        "datasets",
        "huggingface_hub",
        "mlcroissant",
        "pandas",
        "tf_agents",
    }
    imported = lazy_imports("tensorflow_datasets")
    assert {"importlib_resources", "promise", "requests"} <= imported
    brought = required("examples")
    distributions = importlib.metadata.packages_distributions()
    for module in sorted(imported - special):
        names = distributions.get(module, [module])
        names = {name.replace("_", "-").lower() for name in names}
        assert names & brought, f"{module}: one of {names} is not required"
