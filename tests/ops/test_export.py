"""Exported models in their own runtimes."""

import dataclasses
import warnings

import keras
import numpy as np
import pytest

from keras_sasa import (
    AttentionStem,
    HaloAttention2D,
    NeighborhoodAttention2D,
    SelfAttention2D,
    local_attention,
    training,
)
from keras_sasa.applications import CONFIGURATIONS, ResNet
from keras_sasa.applications.nat import NAT, NATOptions
from keras_sasa.data import load_data
from keras_sasa.detection import RetinaNet
from tests.support import process
from tests.support.backend import BACKEND
from tests.support.cases import CASES
from tests.support.networks import open_blocks
from tests.support.parameters import large

pytestmark = [
    pytest.mark.skipif(
        BACKEND != "tensorflow", reason="exports are tried from TensorFlow"
    ),
    # Keras 3.15.1 looks for an attribute of NumPy before it runs tf2onnx.
    pytest.mark.filterwarnings("ignore:.*`np.object`:FutureWarning"),
]

SUFFIXES = {"tf_saved_model": "", "litert": ".tflite", "onnx": ".onnx"}
PACKAGES = {"litert": ("ai_edge_litert",), "onnx": ("onnxruntime", "tf2onnx")}


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def classifier(side, stem):
    model = ResNet(
        (1,),
        stem=stem,
        kernel_size=5,
        num_heads=2,
        input_shape=(side, side, 3),
        width_multiplier=1 / 8,
        classes=4,
    )
    return open_blocks(model)


def detector(side):
    backbone = ResNet(
        (1, 1, 1, 1),
        width_multiplier=0.25,
        include_top=False,
        input_shape=(side, side, 3),
    )
    model = RetinaNet(open_blocks(backbone), 3, "attention", filters=32)
    for name in ("classification_head", "box_head"):
        # Its outputs are nearly constant before any training.
        kernel = model.get_layer(name).layers[-1].kernel
        kernel.assign(100 * kernel)
    for layer in model._flatten_layers():
        # Many attentions one after the other, with logits as large as those of
        # new weights, make 1e-3 of what rounding does to the first.
        if isinstance(layer, SelfAttention2D):
            layer.query_kernel.assign(0.1 * layer.query_kernel)
    return model


def export(model, name, folder, **options):
    """Exports and returns the path; skips without what the format needs."""
    for package in PACKAGES.get(name, ()):
        pytest.importorskip(package, reason=f"{name} needs {package}")
    path = folder / f"model{SUFFIXES[name]}"
    model.export(str(path), format=name, verbose=False, **options)
    return path


SAVED_MODEL = """
    import json, sys
    import numpy as np
    import tensorflow as tf
    path, read, write = sys.argv[1:]
    signature = tf.saved_model.load(path).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    with np.load(read) as batches:
        outputs = {
            f"{number} {key}": value.numpy()
            for number, batch in batches.items()
            for key, value in signature(**{name: tf.constant(batch)}).items()
        }
    np.savez(write, **outputs)
    print(json.dumps("keras_sasa" in sys.modules))
"""


def run_saved_model(path, batches):
    """In a process of its own, without this package."""
    read, write = path.parent / "read.npz", path.parent / "write.npz"
    np.savez(read, **{str(number): x for number, x in enumerate(batches)})
    imported, _ = process.run(SAVED_MODEL, path, read, write)
    assert not imported
    with np.load(write) as arrays:
        return [
            [arrays[name] for name in sorted(arrays) if int(name[0]) == number]
            for number in range(len(batches))
        ]


def interpreter(path):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path))


def run_litert(path, batches):
    run = interpreter(path).get_signature_runner("serving_default")
    (name,) = run.get_input_details()
    results = []
    for batch in batches:
        outputs = run(**{name: batch})
        results.append([outputs[name] for name in sorted(outputs)])
    return results


def run_onnx(path, batches):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    (read,) = session.get_inputs()
    return [session.run(None, {read.name: batch}) for batch in batches]


RUNTIMES = {
    "tf_saved_model": run_saved_model,
    "litert": run_litert,
    "onnx": run_onnx,
}


def outputs_of(model, batch):
    """Outputs of a call, those of a dict by the order of their names."""
    outputs = keras.tree.flatten(model(batch, training=False))
    return [keras.ops.convert_to_numpy(output) for output in outputs]


def assert_equal_in_runtime(model, name, folder, batches, **options):
    expected = [outputs_of(model, batch) for batch in batches]
    path = export(model, name, folder, **options)
    for actual, wanted in zip(
        RUNTIMES[name](path, batches), expected, strict=True
    ):
        for one, other in zip(actual, wanted, strict=True):
            assert np.std(other) > 1e-2
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["litert", "onnx", large("tf_saved_model")])
def test_classifier(name, tmp_path, native_calls):
    """Two bands of tiles; the kernel computes what the export is held to."""
    model = classifier(40, "small")
    model(images(1, 40, 40, 3))
    assert native_calls
    native_calls.clear()
    path = export(model, name, tmp_path)
    assert not native_calls
    batch = images(3, 40, 40, 3)
    (expected,) = outputs_of(model, batch)
    ((actual,),) = RUNTIMES[name](path, [batch])
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


@pytest.fixture
def servers(native_available):
    """Makes modules with one function `serve`, which is not traced yet."""
    import tensorflow as tf

    model = keras.Sequential(
        [keras.Input((8, 8, 3)), SelfAttention2D(4, 3, num_heads=2)]
    )
    model.add(AttentionStem(4))
    batch = images(1, 8, 8, 3)

    def make():
        module = tf.Module()
        module.model = model
        module.serve = tf.function(lambda images: {"outputs": model(images)})
        return module

    return make, batch


def test_traces_without_the_kernel(servers, native_calls, tmp_path):
    """By `get_concrete_function` and `portable`; saving does not warn."""
    import tensorflow as tf

    make, batch = servers
    concrete, portable = make(), make()
    native_calls.clear()
    signature = concrete.serve.get_concrete_function(batch)
    with local_attention.portable():
        portable.serve(batch)
    portable.first = signature
    portable.second = portable.serve.get_concrete_function(batch)
    assert not native_calls
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tf.saved_model.save(portable, tmp_path / "saved", signature)
    assert not native_calls
    make().serve(batch)
    assert native_calls


def test_saving_a_trace_with_the_kernel_warns(servers, tmp_path):
    import tensorflow as tf

    make, batch = servers
    module = make()
    module.serve(batch)
    signature = module.serve.get_concrete_function(batch)
    with pytest.warns(UserWarning, match="<lambda>.*`keras_sasa.*portable") as (
        caught
    ):
        tf.saved_model.save(module, tmp_path / "kernel", signature)
    # On Python 3.13, AutoGraph adds warnings of deprecated functions.
    assert [warning.category for warning in caught].count(UserWarning) == 1
    # What TensorFlow traces while it saves, and Keras' own functions.
    model = module.model
    model.predict(batch, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tf.saved_model.save(model, tmp_path / "model")


def test_data_sets_call_the_kernel(servers, native_calls):
    """TensorFlow traces them by `get_concrete_function`, too."""
    import tensorflow as tf

    make, batch = servers
    native_calls.clear()
    data = tf.data.Dataset.from_tensors(batch).map(make().model)
    assert native_calls
    assert list(data)


@pytest.mark.large
@pytest.mark.parametrize("name", RUNTIMES)
def test_classifier_of_unknown_size(name, tmp_path):
    """Sizes that tiles and blocks of the stem do not divide."""
    batches = [images(2, 42, 27, 3), images(1, 13, 50, 3)]
    assert_equal_in_runtime(
        classifier(None, "attention"), name, tmp_path, batches
    )


LAYERS = {
    "absolute": {"position_encoding": "absolute", "use_bias": True},
    "dilated": {"dilation_rate": (2, 3)},
    "strided": {"strides": 2, "padding": "valid"},
    "patches": {"implementation": "patches"},
}


# In `SavedModel` it is TensorFlow's graph,
# which other tests run for unknown sizes.
@pytest.mark.parametrize(
    "name, keys",
    [
        ("litert", ["dilated"]),
        ("onnx", ["absolute"]),
        *(large(name, list(LAYERS)) for name in RUNTIMES),
    ],
)
def test_layers_of_unknown_size(name, keys, tmp_path):
    inputs = keras.Input((None, None, 4))
    outputs = {
        key: SelfAttention2D(4, 3, num_heads=2, **LAYERS[key])(inputs)
        for key in keys
    }
    assert_equal_in_runtime(
        keras.Model(inputs, outputs), name, tmp_path, [images(2, 13, 9, 4)]
    )


@pytest.mark.parametrize(
    "name", ["litert", large("tf_saved_model"), large("onnx")]
)
def test_neighborhood_attention_of_unknown_size(name, tmp_path):
    """The last image is smaller than a window."""
    inputs = keras.Input((None, None, 4))
    layer = NeighborhoodAttention2D(
        2, 3, (2, 1), embedding_initializer="random_normal"
    )
    model = keras.Model(inputs, layer(inputs))
    batches = [images(2, 13, 9, 4), images(1, 4, 5, 4)]
    assert_equal_in_runtime(model, name, tmp_path, batches)


@pytest.mark.parametrize(
    "name", ["litert", large("tf_saved_model"), large("onnx")]
)
def test_halo_attention_of_unknown_size(name, tmp_path):
    inputs = keras.Input((None, None, 4))
    layer = HaloAttention2D(4, 2, 4, 1, strides=2, key_filters=2)
    model = keras.Model(inputs, layer(inputs))
    batches = [images(2, 8, 12, 4), images(1, 4, 4, 4)]
    assert_equal_in_runtime(model, name, tmp_path, batches)


@pytest.mark.large
@pytest.mark.parametrize("name", RUNTIMES)
def test_nat(name, tmp_path):
    """Windows are larger than the maps of the last level.

    tf2onnx cannot export a single head with an unknown batch.
    """
    options = NATOptions("NATMini", (1, 2), 64, 2, 0.0, 0.5, (1, 2))
    model = NAT(
        options,
        kernel_size=5,
        weights=None,
        input_shape=(None, None, 3),
        classifier_activation=None,
    )
    batches = [images(2, 40, 48, 3), images(1, 33, 52, 3)]
    assert_equal_in_runtime(model, name, tmp_path, batches)


# A batch of known size is 150 nodes of ONNX fewer for every attention, of which
# a detector has 47; tf2onnx takes minutes for them.
@pytest.mark.large
@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("side", [64, None])
def test_detector(name, side, tmp_path):
    options = {}
    if name == "onnx":
        shape = (2, side, side, 3)
        options["input_signature"] = [keras.InputSpec("float32", shape)]
    batches = [images(2, 64, 64, 3)]
    if side is None:
        batches.append(images(2, 70, 97, 3))
    assert_equal_in_runtime(detector(side), name, tmp_path, batches, **options)


# Tiles compute it, which are compared with the oracle in all cases.
@pytest.mark.parametrize(
    "name",
    [name if CASES[name].compiled else large(name) for name in CASES],
)
def test_portable_computes_the_same(name):
    """In float64; a weight that is masked is exactly 0."""
    case = CASES[name]
    batch, options = case.make_inputs(), {"mask": case.make_mask()}
    definition, layer = case.make_layer("patches"), case.make_layer()
    both = {"return_attention_scores": True, **options}
    expected, expected_scores = definition(batch, **both)
    with local_attention.portable():
        outputs, scores = layer(batch, **options), layer(batch, **both)[1]
    tolerance = {"rtol": 1e-9, "atol": 1e-11}
    np.testing.assert_allclose(outputs, expected, **tolerance)
    np.testing.assert_allclose(scores, expected_scores, **tolerance)
    np.testing.assert_array_equal(scores == 0, expected_scores == 0)


@pytest.mark.parametrize("size", [(8, 8), (10, 7), (3, 4)], ids=str)
def test_portable_stem(size):
    stem = AttentionStem(8, 4, 2, dtype="float64")
    batch = np.random.default_rng(0).normal(size=(2, *size, 3))
    expected = stem(batch)
    with local_attention.portable():
        np.testing.assert_allclose(stem(batch), expected, rtol=1e-12)


def test_large_logits_are_exported():
    """Masked keys may have far larger logits than those of the window."""
    random = np.random.default_rng(0)
    maps = 1e3 * random.normal(size=(3, 1, 9, 9, 4)).astype("float32")
    options = {"kernel_size": 3, "num_heads": 2}
    expected = local_attention.local_attention(
        *maps, implementation="patches", **options
    )
    with local_attention.portable():
        outputs = local_attention.local_attention(*maps, **options)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4)


def full_quantization(operations, images):
    """Options of an export to LiteRT that is calibrated by images."""
    import tensorflow as tf

    return {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "representative_dataset": lambda: [[images]],
        "target_spec": {"supported_ops": [getattr(tf.lite.OpsSet, operations)]},
    }


INT8 = "TFLITE_BUILTINS_INT8"
INT16 = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"


def quantize_onnx(source, target, images):
    """Full quantization of ONNX Runtime, calibrated by images."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    import onnxruntime

    (read,) = onnxruntime.InferenceSession(source).get_inputs()

    class Reader(quantization.CalibrationDataReader):
        batches = iter([{read.name: images}])

        def get_next(self):
            return next(self.batches, None)

    quantization.quantize_static(source, target, Reader())


@pytest.mark.parametrize(
    "kind, bound",
    [
        (INT8, 0.1),
        large("weights", 0.02),
        large(INT16, 0.01),
        large("onnx", 0.1),
    ],
)
def test_quantized_layers(kind, bound, tmp_path):
    """Logits of keys outside leave bits for the others."""
    import tensorflow as tf

    inputs = keras.Input((10, 10, 3))
    attention = SelfAttention2D(
        128,  # LiteRT quantizes weights of 1,024 numbers and more alone.
        5,
        num_heads=8,
        embedding_initializer=keras.initializers.RandomNormal(stddev=1.0),
        name="attention",
    )
    model = keras.Model(
        inputs,
        {
            "attention": attention(inputs),
            "stem": AttentionStem(8, 4, 2, name="stem")(inputs),
        },
    )
    batch = images(8, 10, 10, 3)
    options = {"input_signature": [keras.InputSpec("float32", batch.shape)]}
    expected = outputs_of(model, batch)
    if kind == "onnx":
        path = tmp_path / "quantized.onnx"
        quantize_onnx(export(model, kind, tmp_path, **options), path, batch)
        (actual,) = run_onnx(path, [batch])
    else:
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
        if kind != "weights":
            options |= full_quantization(kind, batch)
        path = export(model, "litert", tmp_path, **options)
        (actual,) = run_litert(path, [batch])
        kinds = {
            np.dtype(tensor["dtype"]).name
            for tensor in interpreter(path).get_tensor_details()
        }
        assert {INT16: "int16"}.get(kind, "int8") in kinds
    for one, other in zip(actual, expected, strict=True):
        assert np.abs(one - other).mean() < bound * np.abs(other).mean()


@pytest.mark.large
def test_quantized_is_as_accurate(tmp_path):
    import tensorflow as tf

    pytest.importorskip("sklearn")
    recipe = dataclasses.replace(training.DIGITS, epochs=3, warmup_epochs=0.3)
    data = load_data("digits")
    model, _ = training.fit(
        CONFIGURATIONS["digits_attention"], data, recipe, tmp_path / "run"
    )
    (digits, labels), (others, _) = (
        next(images.batch(360).as_numpy_iterator())
        for images in (data.validation, data.train)
    )
    digits, others = (array.astype("float32") for array in (digits, others))
    signature = [keras.InputSpec("float32", digits.shape)]
    paths = {}
    for name, options in {
        "float32": {},
        "weights": {"optimizations": [tf.lite.Optimize.DEFAULT]},
        "int8": full_quantization(INT8, others),
        "int16": full_quantization(INT16, others),
        "onnx": {},
    }.items():
        (tmp_path / name).mkdir()
        paths[name] = export(
            model,
            "onnx" if name == "onnx" else "litert",
            tmp_path / name,
            input_signature=signature,
            **options,
        )
    source, paths["onnx"] = paths["onnx"], tmp_path / "quantized.onnx"
    quantize_onnx(source, paths["onnx"], others)
    accuracy = {}
    for name, path in paths.items():
        run = run_onnx if name == "onnx" else run_litert
        ((outputs,),) = run(path, [digits])
        accuracy[name] = np.mean(outputs.argmax(-1) == labels)
    assert accuracy["float32"] > 0.8
    for name, bound in {
        "weights": 0.01,
        "int8": 0.02,
        "int16": 0.01,
        "onnx": 0.02,
    }.items():
        assert abs(accuracy[name] - accuracy["float32"]) <= bound, accuracy
    assert paths["weights"].stat().st_size < paths["float32"].stat().st_size


@pytest.mark.parametrize("policy", ["mixed_bfloat16", large("mixed_float16")])
def test_mixed_precision_becomes_float32(policy, tmp_path):
    """The recipe of the guide to exports, with models in models."""
    keras.config.set_dtype_policy(policy)
    inner = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            AttentionStem(8, 4, 2),
            SelfAttention2D(8, 3, num_heads=2, use_bias=True),
        ]
    )
    inputs = keras.Input((12, 12, 3))
    outputs = keras.layers.GlobalAveragePooling2D()(inner(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(outputs))
    keras.config.set_dtype_policy("float32")
    text = model.to_json().replace(f'"{policy}"', '"float32"')
    converted = keras.models.model_from_json(text)
    converted.set_weights(model.get_weights())
    assert {layer.compute_dtype for layer in converted._flatten_layers()} == {
        "float32"
    }
    batch = images(2, 12, 12, 3)
    np.testing.assert_allclose(
        converted(batch),
        keras.ops.cast(model(batch), "float32"),
        atol=0.05 * np.abs(converted(batch)).max(),
    )
    if policy == "mixed_bfloat16":
        assert_equal_in_runtime(converted, "litert", tmp_path, [batch])
