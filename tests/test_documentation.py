"""What README and guides tell a reader to type, and where they point."""

import argparse
import functools
import pathlib
import re
import runpy
import shlex
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("examples/*.md"),
        *ROOT.glob("benchmarks/*.md"),
    )
)


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, language):
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, text_of(page), re.MULTILINE | re.DOTALL)


# Keras 3.15.1 looks for an attribute of NumPy before it runs tf2onnx.
@pytest.mark.filterwarnings("ignore:.*`np.object`:FutureWarning")
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the guides are for TensorFlow",
)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")]
)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # One namespace: a reader types the blocks one after the other.
    namespace = {}
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{page}[{number}]", "exec"), namespace)


def commands(page):
    """Returns the programs of this repository that a page calls."""
    text = "".join(blocks(page, "bash"))
    # Whatever a benchmark is said to have been run with stands in the text.
    text += "\n" + "\n".join(
        " ".join(code.split())
        for code in re.findall(r"`(python [^`]*)`", text_of(page))
    )
    text = text.replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        for start, word in enumerate(words):
            if word == "python" and not {"pytest"} & set(words[start:]):
                end = start + 1
                while end < len(words) and words[end] != "&&":
                    end += 1
                found.append(tuple(words[start + 1 : end]))
    return found


COMMANDS = sorted({command for page in PAGES for command in commands(page)})


class Parsed(BaseException):
    """Raised where a program would begin its work."""


# A module that was imported before is run once more.
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_are_understood(command, monkeypatch):
    """Up to their arguments; test_examples.py runs the examples as a whole."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse_only(parser, *args, **kwargs):
        parse_args(parser, *args, **kwargs)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    # As `python FILE` does, for modules beside.
    monkeypatch.syspath_prepend(str((ROOT / command[0]).parent))
    if command[0] == "-m":
        name, *arguments = command[1:]
        run = functools.partial(runpy.run_module, name)
    else:
        name, *arguments = command
        run = functools.partial(runpy.run_path, str(ROOT / name))
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    try:
        run(run_name="__main__")
    except Parsed:
        return
    except SystemExit as end:
        assert "--help" in arguments and end.code == 0
        return
    # The one that takes no arguments has done its work.
    assert command == ("-m", "keras_sasa.doctor")


def test_commands_are_found():
    assert ("examples/train_classifier.py",) in COMMANDS
    assert any("benchmarks/three_claims.py" in words for words in COMMANDS)
    assert any("keras_sasa.profile" in words for words in COMMANDS)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if not target.startswith(("http://", "https://", "#")):
            assert (folder / target.split("#")[0]).exists(), target
