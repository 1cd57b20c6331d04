"""The table of the published networks."""

import keras
import pytest

from keras_sasa import applications
from keras_sasa.applications.__main__ import main
from keras_sasa.applications.model_table import PUBLISHED_NETWORKS
from keras_sasa.profile import profile
from tests.support.parameters import large


def test_all_named_networks_have_a_row():
    names = {
        name
        for name in applications.__all__
        if name != "ResNet" and name[0].isupper() and not name.isupper()
    }
    assert {row.name for row in PUBLISHED_NETWORKS} == names


@pytest.mark.parametrize(
    "row",
    [
        row if row.name == "NATMini" else large(row)
        for row in PUBLISHED_NETWORKS
    ],
    ids=lambda row: row.label,
)
def test_counts(row):
    model = getattr(applications, row.name)(
        weights=None,
        input_shape=(row.image_size, row.image_size, 3),
        **row.options,
    )
    found = profile(model)
    assert (found.parameters, found.flops) == (row.parameters, row.flops)
    assert not found.uncounted


def test_command(capsys, monkeypatch):
    main([])
    text = capsys.readouterr().out
    assert len(text.splitlines()) == 6 + len(PUBLISHED_NETWORKS)
    assert "name them: python -m keras_sasa.applications NATMini" in text
    (line,) = (
        line for line in text.splitlines() if line.startswith("NATTiny ")
    )
    assert line.split() == (
        "NATTiny arXiv:2204.07143 MIT 224x224 83.2 % 27.9 8.6 112 MB -".split()
    )
    built = []

    def small(weights, input_shape):
        built.append((weights, input_shape))
        inputs = keras.Input(input_shape)
        return keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(inputs))

    monkeypatch.setattr(applications, "NATTiny", small)
    main(["NATTiny"])
    (*_, line) = capsys.readouterr().out.splitlines()
    assert built == [(None, (224, 224, 3))]
    assert float(line.split()[-1]) > 0
    with pytest.raises(SystemExit):
        main(["NATHuge"])
    assert "must be one of ['SASAResNet26'" in capsys.readouterr().err
