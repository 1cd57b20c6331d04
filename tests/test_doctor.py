"""`python -m keras_sasa.doctor`."""

import sys

import keras
import pytest

from keras_sasa import doctor, local_attention


def test_what_runs_and_why_not(monkeypatch):
    reasons = {"native": "no compiler was found", "tiled": None}
    monkeypatch.setattr(local_attention, "available", lambda: reasons)
    assert doctor.report()["attention"] == {
        "native": "does not run: no compiler was found",
        "tiled": "runs",
    }


def test_versions_and_settings(monkeypatch):
    monkeypatch.setenv("KERAS_SASA_NATIVE", "0")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    report = doctor.report()
    assert report["versions"]["keras"] == keras.__version__
    assert report["versions"]["Python"] == sys.version.split()[0]
    assert report["Keras"]["backend"] == keras.backend.backend()
    assert report["environment"]["KERAS_SASA_NATIVE"] == "0"
    assert report["environment"]["XLA_FLAGS"] == "not set"


def test_a_missing_package_is_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(doctor, "_DISTRIBUTIONS", ("no-such-package",))
    assert doctor.report()["versions"]["no-such-package"] == "not installed"


def test_a_broken_backend_does_not_stop_the_report(monkeypatch):
    def list_devices():
        raise AttributeError("no devices here")

    monkeypatch.setattr(keras.distribution, "list_devices", list_devices)
    devices = doctor.report()["Keras"]["devices"]
    assert devices == "unknown (AttributeError: no devices here)"


def test_a_misspelled_setting_does_not_stop_the_report(monkeypatch):
    monkeypatch.setenv("KERAS_SASA_NATIVE", "offf")
    report = doctor.report()
    assert "KERAS_SASA_NATIVE='offf'" in report["attention"]["none"]
    assert report["environment"]["KERAS_SASA_NATIVE"] == "offf"


@pytest.mark.parametrize("heading", doctor.report())
def test_main_prints_all(heading, capsys):
    doctor.main()
    text = capsys.readouterr().out
    assert f"{heading}:" in text.splitlines()
    for name, value in doctor.report()[heading].items():
        assert any(
            line.split() == [*name.split(), *value.split()]
            for line in text.splitlines()
        )
