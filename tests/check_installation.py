"""Checks an installed package: the kernel runs, and agrees with the definition.

    python tests/check_installation.py

This is a script because pytest would import the sources of the clone instead of
the installed package.
"""

import argparse
import pathlib
import tempfile

import keras
import numpy as np

import keras_sasa
from keras_sasa import doctor


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    doctor.main()
    reason = keras_sasa.local_attention.available()["native"]
    if reason is not None:
        raise SystemExit(f"The kernel does not run: {reason}")

    images = np.random.default_rng(1).normal(size=(2, 15, 17, 3))
    images = images.astype("float32")
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras_sasa.SelfAttention2D(
                32, num_heads=4, implementation="native"
            ),
        ]
    )
    outputs = keras.ops.convert_to_numpy(model(images))

    definition = keras_sasa.SelfAttention2D.from_config(
        {**model.layers[0].get_config(), "implementation": "patches"}
    )
    definition.build(images.shape)
    definition.set_weights(model.get_weights())
    expected = keras.ops.convert_to_numpy(definition(images))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(loaded(images)), outputs
    )
    location = pathlib.Path(keras_sasa.__file__).parent
    print(f"{location}: the kernel agrees with the definition")


if __name__ == "__main__":
    main()
