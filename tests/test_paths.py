"""Paths of remote file systems are rejected."""

import os
import pathlib

import pytest

from keras_sasa import command_line, training
from keras_sasa._paths import local_path, local_path_option
from keras_sasa.data import load_data, load_detection_data
from keras_sasa.profile.command import main as profile
from keras_sasa.training import DIGITS, Run
from keras_sasa.training.detection.detector import fit as fit_detector
from keras_sasa.training.detection.recipes import BLOOD_CELLS

REMOTE = [
    "gs://bucket/run",
    "s3://bucket/run",
    "hdfs://host:9000/run",
    "file:///data/run",
    # `pathlib` turns two slashes into one.
    pathlib.Path("gs://bucket/run"),
]


class RemotePath(os.PathLike):
    """Like the paths of etils and fsspec."""

    def __fspath__(self):
        return "gs://bucket/run"


@pytest.mark.parametrize("path", [*REMOTE, RemotePath()])
def test_remote_paths(path):
    message = f"`folder` must be a local path.*Received: folder='{path!s:.2}"
    if isinstance(path, RemotePath):
        message = "`folder` must be.*Received: folder='gs://bucket/run'"
    with pytest.raises(ValueError, match=message):
        local_path(path, "folder")


@pytest.mark.parametrize(
    "path", ["runs/digits", "/a:/b", "./gs:/run", "C:/runs", "gs:run", ""]
)
def test_local_paths(path):
    assert local_path(path, "folder") == pathlib.Path(path)
    assert local_path_option(path) == pathlib.Path(path)


def test_remote_paths_are_refused_first(tmp_path, monkeypatch):
    """Nothing is trained, and nothing is written to a local folder `gs:`."""
    monkeypatch.chdir(tmp_path)
    for path in REMOTE:
        # There is no data: the path is checked first.
        with pytest.raises(ValueError, match="`folder` must be a local path"):
            Run(path, {}, "val_accuracy")
        for load in (load_data, load_detection_data):
            with pytest.raises(ValueError, match="`name` must be a local path"):
                load(path)
    data = load_data("digits")
    for fit, recipe in ((training.fit, DIGITS), (fit_detector, BLOOD_CELLS)):
        with pytest.raises(ValueError, match="`folder` must be a local path"):
            fit({}, data, recipe, "gs://bucket/run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--output", "--resume", "--data"])
def test_remote_options_of_trainings(option, capsys):
    parser = command_line.make_parser("", "digits", "", "")
    with pytest.raises(SystemExit):
        command_line.parse_options(parser, [option, "gs://bucket/run"])
    assert f"argument {option}: `PATH` must be" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--csv", "--picture"])
def test_remote_options_of_profiles(option, capsys):
    with pytest.raises(SystemExit):
        profile(["model.keras", option, "gs://bucket/m.csv"])
    assert f"argument {option}: `PATH` must be" in capsys.readouterr().err
