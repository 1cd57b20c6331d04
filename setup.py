"""Compiles the native kernel; everything else is in setup.cfg.

Without a compiler or the headers of XLA the package is installed all the same
and computes attention another way.
"""

import importlib.util
import pathlib
import platform
import re

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = pathlib.Path("keras_sasa/kernels")

# Nothing that turns NaN, infinity or the order of additions into a guess.
FLAGS = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math"]

MATHEMATICS = ("block_attention.cc", "local_attention.cc")

# The mathematics is compiled once for each; the fastest is chosen when loaded.
LEVELS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    LEVELS["x86_64_v3"] = ["-march=x86-64-v3"]
    LEVELS["x86_64_v4"] = ["-march=x86-64-v4"]


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
            "The headers of XLA are in neither jaxlib nor tensorflow."
        )
    return found[min(found)]


class BuildKernel(build_ext):
    """A shared library, of which some objects have flags of their own."""

    def run(self):
        try:
            super().run()
        except Exception as error:
            self._skip(error)

    def build_extension(self, extension):
        try:
            extension.include_dirs.append(str(xla_headers()))
            for level, flags in LEVELS.items():
                extension.extra_objects += self.compiler.compile(
                    [str(KERNELS / name) for name in MATHEMATICS],
                    output_dir=str(pathlib.Path(self.build_temp) / level),
                    macros=[("KERAS_SASA_LEVEL", level)],
                    extra_postargs=FLAGS + flags,
                    depends=extension.depends,
                )
            super().build_extension(extension)
        except Exception as error:
            self._skip(error)

    def copy_extensions_to_source(self):
        try:
            super().copy_extensions_to_source()
        except Exception as error:
            self._skip(error)

    def get_export_symbols(self, extension):
        return []

    def _skip(self, error):
        self.warn(f"the native kernel of keras_sasa is not built: {error}")


setup(
    cmdclass={"build_ext": BuildKernel},
    ext_modules=[
        Extension(
            "keras_sasa.kernels._native",
            sources=[str(KERNELS / "bindings.cc")],
            depends=[
                str(KERNELS / name)
                for name in (
                    *MATHEMATICS,
                    "block_attention.h",
                    "local_attention.h",
                    "tasks.h",
                    "vectors.h",
                )
            ],
            include_dirs=[str(KERNELS)],
            extra_compile_args=[*FLAGS, "-fvisibility=hidden"],
            optional=True,
        )
    ],
)
