"""Every exporter is recognized while it traces, and what saves says a remedy.

A canary for each entry of `EXPORTERS`: a new version of the exporter may move
its modules, and then exported files would call the kernel.
"""

import keras
import numpy as np
import pytest

from keras_sasa import SelfAttention2D, local_attention
from keras_sasa.ops import dispatch, exporters
from tests.support.backend import BACKEND

# Keras 3.15.1 looks for an attribute of NumPy before it runs tf2onnx.
pytestmark = pytest.mark.filterwarnings("ignore:.*`np.object`:FutureWarning")

on_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="an exporter of TensorFlow"
)
SHAPE = (1, 4, 4, 2)


def make_model():
    return keras.Sequential(
        [keras.Input(SHAPE[1:]), SelfAttention2D(2, 3, num_heads=1)]
    )


def export_by_keras(model, folder):
    model.export(folder / "model", format="tf_saved_model", verbose=False)


def save(model, folder):
    import tensorflow as tf

    tf.saved_model.save(model, folder / "model")


def convert_to_litert(model, folder):
    import tensorflow as tf

    tf.lite.TFLiteConverter.from_keras_model(model).convert()


def convert_to_onnx(model, folder):
    tf2onnx = pytest.importorskip("tf2onnx")
    import tensorflow as tf

    tf2onnx.convert.from_function(
        tf.function(model),
        [tf.TensorSpec(SHAPE)],
        opset=18,
    )


def export_by_jax(model, folder):
    import jax

    jax.export.export(jax.jit(lambda images: model(images)))(
        jax.ShapeDtypeStruct(SHAPE, "float32")
    )


def convert_by_jax(model, folder):
    pytest.importorskip("tensorflow")
    import tensorflow as tf
    from jax.experimental import jax2tf

    function = jax2tf.convert(lambda images: model(images))
    tf.function(function, autograph=False)(tf.zeros(SHAPE))


CANARIES = {
    "keras.src.export": ("tensorflow", export_by_keras),
    "tensorflow.python.saved_model.save": ("tensorflow", save),
    "tensorflow.lite.python.lite": ("tensorflow", convert_to_litert),
    "tf2onnx": ("tensorflow", convert_to_onnx),
    "jax._src.export": ("jax", export_by_jax),
    "jax.experimental.jax2tf": ("jax", convert_by_jax),
}


def test_every_exporter_has_a_canary():
    assert set(CANARIES) == set(exporters.EXPORTERS)


@pytest.mark.parametrize("entry", CANARIES)
def test_canary(entry, tmp_path, monkeypatch, native_calls):
    backend, export = CANARIES[entry]
    if backend != BACKEND:
        pytest.skip(f"an exporter of {backend}")
    model = make_model()
    model(np.zeros(SHAPE, "float32"))
    native_calls.clear()
    seen = []

    def exporting():
        seen.append(exporters.called_from((entry,)))
        return exporters.exporting()

    monkeypatch.setattr(dispatch, "exporting", exporting)
    export(model, tmp_path)
    # The exporter traced the layer, and every trace was the exporter's.
    assert seen
    assert any(seen)
    assert not native_calls


def traced(function, images):
    """A `tf.function` that was called, so that it calls the kernel."""
    import tensorflow as tf

    function = tf.function(function)
    function(images)
    return function


@on_tensorflow
@pytest.mark.parametrize("tracked", [True, False])
def test_saving_a_signature_that_calls_the_kernel_warns(
    native_available, tmp_path, tracked
):
    import tensorflow as tf

    model, images = make_model(), tf.zeros(SHAPE)
    module = tf.Module()
    # A module may know the variables alone.
    module.parts = model if tracked else model.variables
    module.serve = traced(lambda images: model(images), images)
    signature = module.serve.get_concrete_function(images)
    with pytest.warns(UserWarning, match="imports keras_sasa.*portable"):
        tf.saved_model.save(module, tmp_path / "model", signature)


@on_tensorflow
def test_converting_a_function_that_calls_the_kernel_fails(
    native_available, tmp_path
):
    import tensorflow as tf

    model, images = make_model(), tf.zeros(SHAPE)
    function = traced(lambda images: model(images), images)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function(images)], model
    )
    remedy = r"`keras_sasa\.local_attention\.portable\(\)`"
    with (
        pytest.raises(Exception, match=remedy),
        pytest.warns(UserWarning, match="imports keras_sasa.*portable"),
    ):
        converter.convert()


@on_tensorflow
def test_converting_a_portable_function(native_calls):
    import tensorflow as tf

    model, images = make_model(), tf.ones(SHAPE)
    native_calls.clear()
    with local_attention.portable():
        function = traced(lambda images: model(images), images)
    assert not native_calls
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function(images)], model
    )
    assert b"keras_sasa" not in converter.convert()
