"""The front door: imports, public names."""

import ast
import configparser
import importlib.metadata
import importlib.util
import pathlib
import re
import tomllib
import zipfile

import keras
import pytest
from packaging.requirements import Requirement

import keras_sasa
from tests.support import process
from tests.support.detectors import tiny_detector

ROOT = pathlib.Path(__file__).parents[1]
# In a process that has imported Keras, and nothing of this package.
FRESH_PROCESS = """
import importlib, json, pathlib, pkgutil, sys, warnings

# As if it were not installed. Keras imports it where it can.
sys.modules["matplotlib"] = None
import keras

warnings.simplefilter("error")
before = set(sys.modules)
import keras_sasa

imported = {name.partition(".")[0] for name in set(sys.modules) - before}
registered = set(keras.saving.get_custom_objects())
loaded = [
    type(keras.saving.load_model(path)).__name__ for path in sys.argv[1:]
]
lazy = [name for name in keras_sasa.__all__ if name not in vars(keras_sasa)]
for name in keras_sasa.__all__:
    getattr(keras_sasa, name)
for module in pkgutil.walk_packages(keras_sasa.__path__, "keras_sasa."):
    if not module.name.endswith(("__main__", "_native")):
        importlib.import_module(module.name)
imported_with_all_modules = {
    name.partition(".")[0] for name in set(sys.modules) - before
}
print(json.dumps({
    "imported": sorted(imported),
    "imported_with_all_modules": sorted(imported_with_all_modules),
    "registered": sorted(registered),
    "registered_later": sorted(
        set(keras.saving.get_custom_objects()) - registered
    ),
    "loaded": loaded,
    "lazy": lazy,
}))
"""
OPTIONAL = {
    "keras_cv",
    "keras_hub",
    "matplotlib",
    "pycocotools",
    "sklearn",
    "tensorboard",
    "tensorflow_datasets",
}


def saved_models(folder):
    """Saves models that contain every serializable class of the package."""
    classifier = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras_sasa.layers.ImageRescaling(["cat", "dog"], image_size=8),
            keras_sasa.AttentionStem(8, num_heads=2),
            keras_sasa.SelfAttention2D(8, 3, num_heads=2),
            keras_sasa.layers.BatchNormalization(),
            keras_sasa.NeighborhoodAttention2D(2, 3),
            keras_sasa.HaloAttention2D(8, 2, 2, 1),
            keras_sasa.layers.LayerNormalization(),
            keras_sasa.layers.LayerScale(),
            keras.layers.GlobalAveragePooling2D(),
            keras_sasa.layers.Dense(2),
        ]
    )
    classifier.compile(keras_sasa.optimizers.AveragingSGD(use_ema=True), "mse")
    detector = tiny_detector(spatial="attention")
    detector.compile(keras_sasa.optimizers.AveragingAdamW(use_ema=True))
    exported = detector.detection_model()
    for model in (classifier, detector):
        # Keras warns when it loads the file of an optimizer without variables.
        model.optimizer.build(model.trainable_variables)
    models = (classifier, detector, exported)
    paths = [folder / f"{number}.keras" for number in range(len(models))]
    for model, path in zip(models, paths, strict=True):
        model.save(path)
    return paths


def registered_names(path):
    """Returns the names of this package that the file of a model needs."""
    with zipfile.ZipFile(path) as file:
        config = file.read("config.json").decode()
    return set(re.findall(r'"(keras_sasa>\w+)"', config))


def test_fresh_process(tmp_path):
    paths = saved_models(tmp_path)
    seen, _ = process.run(FRESH_PROCESS, *paths)
    assert "keras_sasa" in seen["imported"]
    assert not OPTIONAL & set(seen["imported"])
    assert not OPTIONAL & set(seen["imported_with_all_modules"])
    assert seen["loaded"] == ["Sequential", "RetinaNet", "FusedModel"]
    # `FusedModel` has this name in legacy HDF5 files.
    assert set(seen["registered"]) == {"FusedModel"}.union(
        *map(registered_names, paths)
    )
    assert seen["registered_later"] == []
    assert {"data", "local_attention", "training"} <= set(seen["lazy"])


def test_import_on_jax_loads_no_tensorflow():
    pytest.importorskip("jax")
    seen, _ = process.run(
        "import json, sys, keras_sasa; print(json.dumps(list(sys.modules)))",
        KERAS_BACKEND="jax",
    )
    assert "jax" in seen
    assert "tensorflow" not in seen


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        keras_sasa.nothing  # noqa: B018


def test_public_names():
    assert set(keras_sasa.__all__) <= set(dir(keras_sasa))
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
