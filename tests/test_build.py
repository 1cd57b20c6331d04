"""`setup.py` compiles what the compiler supports, and says what it does not."""

import importlib.machinery
import json
import os
import pathlib
import platform
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from keras_sasa.kernels import build_report, loader, targets
from keras_sasa.kernels.source_digest import source_digest
from tests.support.backend import BACKEND

ROOT = pathlib.Path(__file__).parents[1]
LIBRARY = f"_native{importlib.machinery.EXTENSION_SUFFIXES[-1]}"

# Refuses AVX-512, as GCC 5 does, or everything with the word REFUSED.
FAKE = """#!/bin/sh
case "$*" in
  --version) echo "fake 1.0"; echo "and more"; exit 0 ;;
  *{refused}*) echo "in x:" >&2; echo "x.cc:1: error: no {refused}" >&2
               exit 1 ;;
esac
while [ "$#" -gt 1 ]; do
  [ "$1" = "-o" ] && echo > "$2"
  shift
done
"""

pytestmark = pytest.mark.skipif(
    BACKEND == "jax", reason="the run on TensorFlow does it for all backends"
)
on_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="there is one level alone"
)


def run_setup(folder, *arguments, compiler, **environment):
    """Calls setup.py in this folder; returns its status and its messages."""
    variables = {**os.environ, "CC": str(compiler), "CXX": str(compiler)}
    variables.pop("KERAS_SASA_REQUIRE_KERNEL", None)
    result = subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=folder,
        env={**variables, **environment},
        capture_output=True,
        text=True,
    )
    return result.returncode, result.stderr


def build(folder, compiler, **environment):
    """Compiles with this compiler; returns the folder and the report."""
    shutil.copy(ROOT / "setup.py", folder)
    shutil.copytree(
        ROOT / "keras_sasa/kernels",
        folder / "keras_sasa/kernels",
        ignore=shutil.ignore_patterns("*.so", "*.json", "__pycache__"),
        dirs_exist_ok=True,
    )
    status, log = run_setup(
        folder,
        *("build_ext", "--build-lib", "out", "--build-temp", "objects"),
        compiler=compiler,
        **environment,
    )
    assert bool(status) == bool(environment), log
    built = folder / "out/keras_sasa/kernels"
    return built, build_report.read(built / "_native.json"), log


def fake(folder, refused):
    path = folder / "compiler"
    path.write_text(FAKE.format(refused=refused))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("written", [{}, {"sources": "of an older commit"}])
def test_a_library_older_than_the_clone_is_not_used(
    written, native_available, tmp_path, monkeypatch
):
    report = tmp_path / "_native.json"
    report.write_text(json.dumps({**written, "failure": None}))
    monkeypatch.setattr(build_report, "PATH", report)
    assert loader.load.__wrapped__() == (
        "it was compiled from other sources than those in this clone; "
        "`pip install --editable .` compiles it again"
    )


def test_the_digest_depends_on_every_source(tmp_path):
    assert source_digest(tmp_path) is None
    folder = tmp_path / "window"
    folder.mkdir()
    digests = set()
    for name, text in (("a.cc", "1"), ("a.cc", "2"), ("b.h", "2"), ("c", "")):
        (folder / name).write_text(text)
        digests.add(source_digest(tmp_path))
    assert len(digests) == 3


@on_x86
def test_a_level_that_the_compiler_lacks_is_left_out(tmp_path):
    folder, report, log = build(tmp_path, fake(tmp_path, "-mavx512f"))
    assert (folder / LIBRARY).is_file()
    cause = f"{tmp_path}/compiler: x.cc:1: error: no -mavx512f"
    assert report == {
        "sources": source_digest(ROOT / "keras_sasa/kernels"),
        "compiler": "fake 1.0",
        "levels": ["baseline", "x86_64_v3"],
        "left_out": {"x86_64_v4": cause},
        "failure": None,
    }
    assert build_report.failure(report) is None
    assert build_report.describe(report) == (
        f"fake 1.0: baseline, x86_64_v3; without x86_64_v4: {cause}"
    )
    assert "a level of the kernel is left out: " in log


@pytest.mark.parametrize("refused", ["tap_products.cc", "window_calls.cc"])
def test_what_cannot_be_compiled_at_all_says_why(
    refused, tmp_path, monkeypatch
):
    folder, report, log = build(tmp_path, fake(tmp_path, refused))
    assert not (folder / LIBRARY).exists()
    cause = f"{tmp_path}/compiler: x.cc:1: error: no {refused}"
    assert (report["failure"], report["levels"]) == (cause, [])
    assert f"is not built: {cause}" in log
    assert build_report.describe(report) == f"failed: fake 1.0: {cause}"
    # An installed package without its library gives this reason.
    monkeypatch.setattr(build_report, "PATH", folder / "_native.json")
    monkeypatch.setattr(loader, "library_path", lambda: None)
    assert f"(fake 1.0: {cause})" in loader.load.__wrapped__()


def test_a_compiler_that_is_not_there_is_named(tmp_path):
    _, report, _ = build(tmp_path, tmp_path / "no-compiler")
    assert f"{tmp_path}/no-compiler cannot be run: " in report["failure"]


def test_the_library_of_an_earlier_build_is_deleted(tmp_path):
    folder, _, _ = build(tmp_path, fake(tmp_path, "nothing"))
    assert (folder / LIBRARY).is_file()
    folder, report, _ = build(tmp_path, tmp_path / "no-compiler")
    assert report["failure"]
    assert [path.name for path in folder.iterdir()] == ["_native.json"]


@pytest.mark.parametrize(
    "refused, part",
    [
        ("window_calls.cc", "the kernel"),
        pytest.param("-mavx512f", "x86_64_v4", marks=on_x86),
    ],
)
def test_a_required_kernel_that_is_not_built_is_an_error(
    refused, part, tmp_path
):
    compiler = fake(tmp_path, refused)
    _, _, log = build(tmp_path, compiler, KERAS_SASA_REQUIRE_KERNEL="1")
    assert (
        "error: KERAS_SASA_REQUIRE_KERNEL=1, but not everything was built. "
        f"{part}: {compiler}: x.cc:1: error: no {refused}"
    ) in log


def test_a_misspelled_requirement_is_an_error(tmp_path):
    compiler = fake(tmp_path, "nothing")
    _, _, log = build(tmp_path, compiler, KERAS_SASA_REQUIRE_KERNEL="yes")
    assert re.search(
        "KERAS_SASA_REQUIRE_KERNEL must be 1, .*, or 0. "
        "Received: KERAS_SASA_REQUIRE_KERNEL='yes'.",
        log,
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The sources as a packager unpacks them."""
    folder = tmp_path_factory.mktemp("sources")
    clone = folder / "clone"
    shutil.copytree(
        ROOT,
        clone,
        ignore=shutil.ignore_patterns(
            *("*.so", ".*", "__pycache__", "_native.json", "build", "dist"),
            *("*.egg-info", "runs"),
        ),
    )
    status, log = run_setup(clone, "sdist", compiler="none")
    assert status == 0, log
    with tarfile.open(*clone.glob("dist/*.tar.gz")) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("keras_sasa-*"))


@pytest.mark.parametrize("refused", ["nothing", "window_calls.cc"])
def test_a_wheel_is_for_every_python_and_says_if_it_has_no_kernel(
    refused, sources, tmp_path
):
    folder = tmp_path / "sources"
    shutil.copytree(sources, folder)
    assert not (folder / "tests").exists()
    status, log = run_setup(
        folder, "bdist_wheel", compiler=fake(tmp_path, refused)
    )
    assert status == 0, log
    (wheel,) = folder.glob("dist/*.whl")
    _, _, *tags = wheel.stem.split("-")
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if ".dist-info/" not in n]
    names = {name.removeprefix("keras_sasa/") for name in names}
    natives = {name for name in names if "_native." in name}
    if refused == "nothing":
        assert tags[:2] == ["py3", "none"] and tags[2] != "any"
        assert natives == {"kernels/_native.json", f"kernels/{LIBRARY}"}
    else:
        assert tags == ["0_without_kernel", "py3", "none", "any"]
        assert natives == {"kernels/_native.json"}
    package = ROOT / "keras_sasa"
    modules = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    assert names == modules | natives | {"py.typed"}


@pytest.mark.parametrize("refused", ["nothing", "window_calls.cc"])
def test_an_editable_wheel_says_if_it_has_no_kernel(refused, sources, tmp_path):
    folder = tmp_path / "sources"
    shutil.copytree(sources, folder)
    status, log = run_setup(
        folder, "editable_wheel", compiler=fake(tmp_path, refused)
    )
    assert status == 0, log
    (wheel,) = folder.glob("dist/*.whl")
    without = "_without_kernel" if refused != "nothing" else ""
    assert f"-0.editable{without}-py3-none-" in wheel.name
    # Type checkers follow a path, but no hook.
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (n for n in archive.namelist() if n.endswith(".pth"))
        assert archive.read(path).decode().strip() == str(folder)
    library = folder / f"keras_sasa/kernels/{LIBRARY}"
    assert library.exists() == (not without)


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")
def test_the_library_exports_its_own_functions_alone(native_available):
    def inspect(*command):
        if not shutil.which(command[0]):
            pytest.skip(f"there is no {command[0]}")
        command = [*command, str(loader.library_path())]
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout

    lines = inspect("nm", "--dynamic", "--defined-only").splitlines()
    names = {line.split()[-1] for line in lines}
    register = {"keras_sasa_register", "keras_sasa_register_operations"}
    assert names == {*targets.TARGETS, *register}
    assert ".debug_info" not in inspect("readelf", "--sections", "--wide")
    # No path of the machine that built it.
    assert "RUNPATH" not in inspect("readelf", "--dynamic")


def test_check_of_an_installation(native_available, monkeypatch, capsys):
    path = str(ROOT / "tests/check_installation.py")
    monkeypatch.setattr(sys, "argv", [path])
    runpy.run_path(path, run_name="__main__")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("the kernel agrees with the definition")
    monkeypatch.setenv("KERAS_SASA_NATIVE", "0")
    with pytest.raises(SystemExit, match="The kernel does not run: "):
        runpy.run_path(path, run_name="__main__")


@pytest.mark.large
@on_x86
@pytest.mark.parametrize("lacking, levels", [("-mavx512f", 2), ("-mavx2", 1)])
def test_kernel_without_levels_computes(lacking, levels, tmp_path):
    real = shutil.which("g++") or pytest.skip("there is no C++ compiler")
    compiler = fake(tmp_path, lacking)
    compiler.write_text(
        compiler.read_text().partition("while")[0] + f'exec {real} "$@"\n'
    )
    folder, report, _ = build(tmp_path, compiler)
    assert len(report["levels"]) == levels
    # The tests of the kernel, with this library in the place of the other.
    clone = tmp_path / "clone"
    shutil.copytree(
        ROOT, clone, ignore=shutil.ignore_patterns("*.so", ".git", "runs")
    )
    shutil.copy(folder / LIBRARY, clone / "keras_sasa/kernels")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/kernels/test_kernel.py"]
        + ["-k", "not sanitizers and not threads"],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(clone)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-5000:]
    assert " passed" in result.stdout and " skipped" not in result.stdout
