"""Compiles the native kernel; everything else is in setup.cfg.

If there is no compiler or no header of XLA, the package is installed without
the kernel and computes attention another way. A report next to the library says
what was built and what was not, and why; `keras_sasa.kernels` and the doctor
read it. The name of the wheel says so, too: pip prints it, and nothing else of
a build that succeeds. With KERAS_SASA_REQUIRE_KERNEL=1 it is an error.
"""

import importlib.machinery
import importlib.util
import json
import os
import pathlib
import platform
import re
import runpy
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.editable_wheel import editable_wheel
from setuptools.errors import CompileError, ExecError, OptionError

KERNELS = pathlib.Path("keras_sasa/kernels")
# The library refers to no symbol of Python, so that its name has no version of
# Python. `keras_sasa.kernels` has the same names.
LIBRARY = "_native" + importlib.machinery.EXTENSION_SUFFIXES[-1]
REPORT = "_native.json"

# `keras_sasa.kernels` compares it with the sources of a clone. Importing the
# package would need Keras.
source_digest = runpy.run_path(KERNELS / "source_digest.py")["source_digest"]

# Set to 1, a kernel or a level of it that is missing is an error.
REQUIRE = "KERAS_SASA_REQUIRE_KERNEL"

# Nothing that turns NaN, infinity or the order of additions into a guess. The
# last one overrides Python's own `-g`.
FLAGS = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-g0"]
# Functions call each other directly, not through a table.
FLAGS += ["-fvisibility=hidden"]

# The functions that XLA and the package call are visible, those of the C++
# library that are compiled into the kernel are not.
EXPORTS = KERNELS / "exports.map"
LINKER_FLAGS = []
if sys.platform == "linux":
    LINKER_FLAGS = [f"-Wl,--version-script={EXPORTS}", "-Wl,--strip-all"]


def sources(*folders):
    """Returns the source files in these folders of the kernel."""
    return sorted(
        str(path)
        for folder in folders
        for path in KERNELS.glob(f"{folder}/*.cc")
    )


# The mathematics is compiled once for each; the fastest is chosen when loaded.
MATHEMATICS = sources("window", "block", "rows")
LEVELS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    # -march=x86-64-v3 and -v4 in full, because GCC knows these from version 11
    # on only. The instructions are the same.
    LEVELS["x86_64_v3"] = [
        *("-mcx16", "-msahf", "-mpopcnt", "-msse4.2", "-mavx2", "-mbmi"),
        *("-mbmi2", "-mf16c", "-mfma", "-mlzcnt", "-mmovbe", "-mxsave"),
    ]
    LEVELS["x86_64_v4"] = [
        *LEVELS["x86_64_v3"],
        *("-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"),
    ]


def xla_headers():
    """Returns the include folder of the oldest headers of XLA installed.

    A kernel built with older headers runs in newer versions of XLA.
    """
    found = {}
    for name in ("jaxlib", "tensorflow"):
        spec = importlib.util.find_spec(name)
        for location in spec.submodule_search_locations if spec else ():
            include = pathlib.Path(location) / "include"
            header = include / "xla/ffi/api/c_api.h"
            if header.is_file():
                version = re.findall(
                    r"define XLA_FFI_API_M(?:AJO|INO)R (\d+)",
                    header.read_text(),
                )
                found[tuple(map(int, version))] = include
    if not found:
        raise FileNotFoundError(
            "the headers of XLA are in neither jaxlib nor tensorflow"
        )
    return found[min(found)]


def kernel_required():
    """Returns whether the environment asks for a complete kernel."""
    value = os.environ.get(REQUIRE, "")
    if value not in ("", "0", "1"):
        raise OptionError(
            f"The environment variable {REQUIRE} must be 1, to make a kernel "
            "or an instruction set that is not built an error, or 0. "
            f"Received: {REQUIRE}={value!r}."
        )
    return value == "1"


def run_compiler(command, **_):
    """Runs a compiler; its first error becomes the text of the exception."""
    try:
        result = subprocess.run(
            command,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # In English, because the error is searched for.
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise ExecError(f"{command[0]} cannot be run: {error}") from error
    sys.stderr.write(result.stderr)
    if result.returncode:
        lines = result.stderr.splitlines() or ["no message"]
        causes = [
            line
            for line in lines
            # The last line after what a linker says.
            if "error:" in line and not line.startswith("collect2")
        ]
        raise ExecError(f"{command[0]}: {(causes or lines)[0].strip()}")


def version_of(compiler):
    """Returns the first line that a compiler says about itself."""
    try:
        result = subprocess.run(
            [compiler, "--version"], capture_output=True, text=True
        )
    except OSError:
        return f"{compiler} (cannot be run)"
    return (result.stdout.splitlines() or [compiler])[0]


class BuildKernel(build_ext):
    """A shared library, of which some objects have flags of their own."""

    def initialize_options(self):
        super().initialize_options()
        self.report = {
            "sources": source_digest(KERNELS),
            "compiler": None,
            "levels": [],
            "left_out": {},
            "failure": None,
        }

    def finalize_options(self):
        super().finalize_options()
        self.required = kernel_required()

    def run(self):
        # An editable installation runs in the folder of the sources.
        folders = [pathlib.Path(self.build_lib) / KERNELS]
        folders += [KERNELS] * bool(self.inplace)
        # The library of an earlier build is not the result of this one.
        for folder in folders:
            for path in folder.glob("_native*"):
                path.unlink()
        try:
            super().run()
        except Exception as error:
            self._skip(error)
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.report, indent=1)
            (folder / REPORT).write_text(text, encoding="utf-8")
        missing = self.report["left_out"]
        if self.report["failure"]:
            missing = {"the kernel": self.report["failure"]}
        if missing and self.required:
            raise CompileError(
                f"{REQUIRE}=1, but not everything was built. "
                + "; ".join(f"{part}: {why}" for part, why in missing.items())
            )

    def get_ext_filename(self, fullname):
        return str(pathlib.Path(*fullname.split(".")).with_name(LIBRARY))

    def build_extension(self, extension):
        try:
            self._set_up_compiler()
            extension.include_dirs.append(str(xla_headers()))
            for level, flags in LEVELS.items():
                try:
                    objects = self._compile(extension, level, flags)
                except (CompileError, ExecError) as error:
                    if level == "baseline":
                        raise
                    self.report["left_out"][level] = str(error)
                    self.warn(f"a level of the kernel is left out: {error}")
                    continue
                extension.extra_objects += objects
                extension.define_macros.append(
                    (f"KERAS_SASA_HAS_{level.upper()}", None)
                )
                self.report["levels"].append(level)
            super().build_extension(extension)
        except Exception as error:
            self._skip(error)

    def _set_up_compiler(self):
        # Setuptools 83 and older call the first, later ones the second.
        self.compiler.spawn = self.compiler.call = run_compiler
        command = getattr(self.compiler, "compiler_so_cxx", None)
        if command:
            self.report["compiler"] = version_of(command[0])
        # Where Python's own libraries are is nothing that a wheel should know.
        for name in ("linker_so", "linker_so_cxx"):
            words = getattr(self.compiler, name, ())
            if any(word.startswith("-Wl,-rpath") for word in words):
                words = [w for w in words if not w.startswith("-Wl,-rpath")]
                setattr(self.compiler, name, words)

    def _compile(self, extension, level, flags):
        return self.compiler.compile(
            MATHEMATICS,
            include_dirs=["."],
            output_dir=str(pathlib.Path(self.build_temp) / level),
            macros=[("KERAS_SASA_LEVEL", level)],
            extra_postargs=FLAGS + flags,
            depends=extension.depends,
        )

    def copy_extensions_to_source(self):
        try:
            super().copy_extensions_to_source()
        except Exception as error:
            self._skip(error)

    def get_export_symbols(self, extension):
        return []

    @property
    def without_kernel(self):
        return self.report["failure"] is not None

    def _skip(self, error):
        # The first is the cause of the others.
        self.report["failure"] = self.report["failure"] or str(error)
        self.report["levels"] = []
        self.warn(f"the native kernel of keras_sasa is not built: {error}")


class BuildWheel(bdist_wheel):
    """One wheel for every Python; its name says if it has no kernel."""

    def get_tag(self):
        *_, system = super().get_tag()
        if self.get_finalized_command("build_ext").without_kernel:
            self.build_number = "0_without_kernel"
            system = "any"
        return "py3", "none", system


class BuildEditable(editable_wheel):
    """As `BuildWheel`; the kernel is built after the wheel has its name."""

    def run(self):
        super().run()
        if self.get_finalized_command("build_ext").without_kernel:
            for wheel in pathlib.Path(self.dist_dir).glob("*-0.editable-*.whl"):
                name = wheel.name.replace(
                    "-0.editable-", "-0.editable_without_kernel-"
                )
                wheel.rename(wheel.with_name(name))


setup(
    cmdclass={
        "bdist_wheel": BuildWheel,
        "build_ext": BuildKernel,
        "editable_wheel": BuildEditable,
    },
    ext_modules=[
        Extension(
            "keras_sasa.kernels._native",
            sources=sources("base", "levels", "tensorflow", "xla"),
            depends=[
                str(EXPORTS),
                *MATHEMATICS,
                *sorted(map(str, KERNELS.glob("*/*.h"))),
            ],
            include_dirs=["."],
            extra_compile_args=FLAGS,
            extra_link_args=LINKER_FLAGS,
            optional=True,
        )
    ],
)
