"""The folders of the C++ kernel depend on each other in one direction."""

import re

import pytest

from tests.support.kernel_driver import KERNELS

# What the files of a folder may include of the kernel, beside the folder.
MAY_INCLUDE = {
    "base": set(),
    "window": {"base"},
    "block": {"base"},
    "rows": {"base"},
    "levels": {"window", "block", "rows"},
    "tensorflow": {"base"},
    "xla": {"base", "window", "block", "rows", "levels"},
}


def test_all_folders_are_listed():
    folders = {path.parent.name for path in KERNELS.rglob("*.cc")}
    assert folders == set(MAY_INCLUDE)


@pytest.mark.parametrize("folder", MAY_INCLUDE)
def test_includes(folder):
    paths = [*KERNELS.glob(f"{folder}/*.cc"), *KERNELS.glob(f"{folder}/*.h")]
    for path in paths:
        included = re.findall(r'#include "([\w/]+)/\w+\.h"', path.read_text())
        kernel = {name.removeprefix("keras_sasa/kernels/") for name in included}
        allowed = MAY_INCLUDE[folder] | {folder}
        if folder == "xla":
            allowed = allowed | {"xla/ffi/api"}
        assert kernel <= allowed, path.name
