"""Who computes attention where the native kernel runs, and where it cannot."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_sasa import AttentionStem, SelfAttention2D
from keras_sasa.kernels import loader
from keras_sasa.ops import dispatch, native
from keras_sasa.ops import local_attention as package
from keras_sasa.ops.local_attention import local_attention
from tests.support import process
from tests.support.backend import BACKEND
from tests.support.parameters import large, large_on_jax

IMAGES = np.random.default_rng(0).normal(size=(4, 9, 8, 5)).astype("float32")

on_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="a feature of TensorFlow"
)


def to_numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def network(implementation=None, **options):
    images = keras.Input((None, None, 5))
    x = SelfAttention2D(
        8, 3, num_heads=2, implementation=implementation, **options
    )(images)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(3, dtype="float32")(x))


def assert_near(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def fresh():
    """Forgets what is known of the kernel, before and after."""

    def forget():
        loader.load.cache_clear()
        dispatch._warn.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def switched_off(monkeypatch, fresh):
    monkeypatch.setenv(loader.SWITCH, "0")


@pytest.fixture
def not_compiled(monkeypatch, fresh):
    monkeypatch.delenv(loader.SWITCH, raising=False)
    monkeypatch.setattr(native, "_accelerator", lambda: None)
    monkeypatch.setattr(loader, "library_path", lambda: None)


def test_available():
    reasons = package.available()
    assert list(reasons) == ["native", "tiled", "patches"]
    assert reasons["tiled"] is None
    assert reasons["patches"] is None
    assert reasons["native"] is None or isinstance(reasons["native"], str)


@pytest.mark.skipif(loader.library_path() is None, reason="it is not compiled")
def test_compiled_library_is_taken():
    # Else all tests of the kernel would be skipped, and nobody would notice.
    assert loader.load() is None


def test_default_is_native(native_calls):
    layer = SelfAttention2D(8, 3, num_heads=2)
    outputs = to_numpy(layer(IMAGES))
    assert len(native_calls) == 1
    layer.implementation = "patches"
    assert_near(outputs, to_numpy(layer(IMAGES)))
    assert len(native_calls) == 1


@pytest.mark.large_on_jax
@pytest.mark.parametrize("value", ["0", "False", " OFF ", "no", "Disabled"])
def test_switch(switched_off, monkeypatch, value):
    monkeypatch.setenv(loader.SWITCH, value)
    assert loader.SWITCH in package.available()["native"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = SelfAttention2D(8, 3, num_heads=2)
        outputs = to_numpy(layer(IMAGES))
    layer.implementation = "tiled"
    np.testing.assert_array_equal(outputs, to_numpy(layer(IMAGES)))
    with pytest.raises(ValueError, match=f"does not run.*{loader.SWITCH}"):
        SelfAttention2D(8, 3, num_heads=2, implementation="native")(IMAGES)


@pytest.mark.parametrize("value", ["1", "", "true", "Yes "])
def test_switch_left_on(native_available, monkeypatch, value):
    monkeypatch.setenv(loader.SWITCH, value)
    assert package.available()["native"] is None


@pytest.mark.parametrize("value", ["2", "offf", "-"])
def test_switch_that_is_neither(monkeypatch, value):
    monkeypatch.setenv(loader.SWITCH, value)
    message = (
        f"{loader.SWITCH} must be one of.*'off'.*{loader.SWITCH}='{value}'"
    )
    with pytest.raises(ValueError, match=message):
        SelfAttention2D(8, 3, num_heads=2)(IMAGES)


@pytest.mark.large_on_jax
def test_not_compiled_warns_once(not_compiled):
    assert "was not compiled" in package.available()["native"]
    layer = SelfAttention2D(8, 3, num_heads=2)
    with pytest.warns(
        RuntimeWarning, match='"native".*was not compiled.*slower'
    ) as seen:
        outputs = to_numpy(layer(IMAGES))
        layer(IMAGES)
        SelfAttention2D(8, 5, num_heads=2)(IMAGES)
    assert len(seen) == 1
    layer.implementation = "tiled"
    np.testing.assert_array_equal(outputs, to_numpy(layer(IMAGES)))
    layer.implementation = "native"
    with pytest.raises(ValueError, match='"native".*was not compiled'):
        layer(IMAGES)


@pytest.mark.parametrize("clone", [True, False])
def test_sources_of_a_clone_without_a_kernel(monkeypatch, tmp_path, clone):
    """Python finds them before a package that is installed elsewhere."""
    file = tmp_path / "keras_sasa" / "kernels" / "loader.py"
    file.parent.mkdir(parents=True)
    if clone:
        (tmp_path / "setup.py").touch()
    monkeypatch.setattr(loader, "__file__", str(file))
    reason = loader.load.__wrapped__()
    assert "was not compiled" in reason
    assert ("from a clone" in reason) == clone


@pytest.mark.large_on_jax
def test_what_the_kernel_never_takes_does_not_warn(not_compiled):
    for name, implementation in (
        ("float64", None),
        ("float32", "tiled"),
        ("float32", "patches"),
    ):
        SelfAttention2D(
            8, 3, num_heads=2, implementation=implementation, dtype=name
        )(IMAGES)


def test_library_that_does_not_load(not_compiled, monkeypatch, tmp_path):
    library = tmp_path / "_native.so"
    library.write_bytes(b"not a library")
    monkeypatch.setattr(loader, "library_path", lambda: library)
    assert "cannot be loaded" in package.available()["native"]


def test_accelerator(fresh, monkeypatch):
    monkeypatch.delenv(loader.SWITCH, raising=False)
    monkeypatch.setattr(native, "_accelerator", lambda: "GPU")
    assert "there is a GPU" in package.available()["native"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SelfAttention2D(8, 3, num_heads=2)(IMAGES)


@on_tensorflow
def test_hidden_accelerator(native_available, monkeypatch):
    """`set_visible_devices` hides one that is still listed."""
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [])
    assert package.available()["native"] is None
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind])
    assert "there is a GPU" in package.available()["native"]


UNFIT = {
    "mask": ({}, {"mask": np.arange(288).reshape(4, 9, 8) % 3 > 0}),
    "scores": ({}, {"return_attention_scores": True}),
    "dropout": ({"dropout": 0.5, "seed": 5}, {"training": True}),
    "float64": ({"dtype": "float64"}, {}),
}


@pytest.mark.parametrize(
    "name", ["mask", *(large_on_jax(name) for name in UNFIT if name != "mask")]
)
@pytest.mark.parametrize("implementation", [None, "native"])
def test_what_the_kernel_does_not_take(native_calls, implementation, name):
    options, call = UNFIT[name]

    def run(implementation):
        keras.utils.set_random_seed(2)
        layer = SelfAttention2D(
            8, 3, num_heads=2, implementation=implementation, **options
        )
        outputs = layer(IMAGES, **call)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return [ops.convert_to_numpy(output) for output in outputs]

    for actual, expected in zip(run(implementation), run("tiled"), strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert not native_calls


def test_dropout_only_drops_in_training(native_calls):
    layer = SelfAttention2D(8, 3, num_heads=2, dropout=0.5)
    layer(IMAGES, training=False)
    assert len(native_calls) == 1


def losses(implementation, jit_compile="auto"):
    keras.utils.set_random_seed(2)
    model = network(implementation)
    model.compile("sgd", "mse", jit_compile=jit_compile)
    targets = np.random.default_rng(1).normal(size=(4, 3))
    return model.fit(IMAGES, targets, epochs=3, verbose=0).history["loss"]


@pytest.mark.parametrize("jit_compile", [large_on_jax("auto"), True])
def test_fit(native_calls, jit_compile):
    expected = losses("tiled")
    assert not native_calls
    assert_near(losses(None, jit_compile), expected)
    assert native_calls


@pytest.mark.large_on_jax
@pytest.mark.parametrize("policy", ["mixed_float16", large("mixed_bfloat16")])
def test_fit_in_half_precision(native_calls, policy):
    keras.config.set_dtype_policy(policy)
    expected = losses("tiled")
    assert not native_calls
    np.testing.assert_allclose(losses(None), expected, rtol=0.02)
    assert native_calls


def test_files(native_calls, tmp_path):
    model = network()
    expected = to_numpy(model(IMAGES))
    model.save(tmp_path / "model.keras")
    native_calls.clear()
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(to_numpy(loaded(IMAGES)), expected)
    assert native_calls
    native_calls.clear()
    predicted = loaded.predict(IMAGES, verbose=0)
    assert_near(predicted, expected)
    assert native_calls


def test_file_of_native_loads_where_it_does_not_run(
    native_available, tmp_path, request
):
    path = tmp_path / "model.keras"
    model = network("native")
    expected = to_numpy(model(IMAGES))
    model.save(path)
    request.getfixturevalue("switched_off")
    loaded = keras.models.load_model(path, safe_mode=True)
    with pytest.raises(ValueError, match=loader.SWITCH):
        loaded(IMAGES)
    (layer,) = (x for x in loaded.layers if isinstance(x, SelfAttention2D))
    layer.implementation = None
    assert_near(to_numpy(loaded(IMAGES)), expected)


def operations(path):
    """Types of all operations of a SavedModel, those of functions as well."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    nodes = [*graph.node]
    for function in graph.library.function:
        nodes += function.node_def
    return {node.op for node in nodes}


@on_tensorflow
@pytest.mark.parametrize(
    "how, used, implementation",
    [
        ("export", True, None),
        ("saved_model", True, "native"),
        ("export", False, "native"),
        large("export", False, None),
        large("export", True, "native"),
        large("saved_model", False, None),
        large("saved_model", False, "native"),
        large("saved_model", True, None),
    ],
)
def test_export_holds_no_call_of_the_kernel(
    native_calls, tmp_path, implementation, used, how
):
    import tensorflow as tf

    model = network(implementation)
    if used:
        model.compile("sgd", "mse")
        model.fit(IMAGES, np.ones((4, 3)), verbose=0)
        model.predict(IMAGES, verbose=0)
    expected = to_numpy(model(IMAGES))
    path = tmp_path / "model"
    if how == "export":
        model.export(path, format="tf_saved_model", verbose=False)
        names = operations(path)
        loaded = tf.saved_model.load(path)
        served = loaded.serve(tf.constant(IMAGES))
    else:
        tf.saved_model.save(model, path)
        names = operations(path)
        loaded = tf.saved_model.load(path)
        serve = loaded.signatures["serving_default"]
        (served,) = serve(tf.constant(IMAGES)).values()
    assert "MatMul" in names
    assert "XlaCallModule" not in names
    assert_near(served, expected)
    # Tracing for the export leaves the model itself as it was.
    native_calls.clear()
    np.testing.assert_array_equal(to_numpy(model(IMAGES)), expected)
    assert native_calls


MIRRORED = """
    import json, sys
    import tensorflow as tf
    devices = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        devices[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    import keras
    import numpy as np
    from keras_sasa.kernels import custom_call
    from tests.ops.test_native_dispatch import IMAGES, network

    calls = []
    original = custom_call.with_gradient
    def spy(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)
    custom_call.with_gradient = spy

    def losses(strategy, implementation):
        keras.utils.set_random_seed(2)
        with strategy.scope():
            model = network(implementation)
            model.compile("sgd", "mse")
        data = tf.data.Dataset.from_tensors((IMAGES, np.ones((4, 3))))
        data = data.unbatch().batch(4)
        return model.fit(data, epochs=3, verbose=0).history["loss"]

    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    expected = losses(tf.distribute.get_strategy(), "tiled")
    before = len(calls)
    actual = losses(mirrored, None)
    print(json.dumps([before, len(calls), expected, actual]))
"""


@pytest.mark.large
@on_tensorflow
def test_mirrored_strategy(native_available):
    (before, calls, expected, actual), _ = process.run(MIRRORED)
    assert before == 0
    assert calls > 0
    assert_near(actual, expected)


SWITCH = """
    import json
    import warnings
    warnings.simplefilter("error", RuntimeWarning)
    import keras_sasa
    from tests.ops.test_native_dispatch import IMAGES, to_numpy
    layer = keras_sasa.SelfAttention2D(8, 3, num_heads=2)
    shape = layer(IMAGES).shape
    print(json.dumps([keras_sasa.ops.local_attention.available(), list(shape)]))
"""


@pytest.mark.large
@on_tensorflow
def test_switch_in_the_environment():
    (reasons, shape), _ = process.run(SWITCH, KERAS_SASA_NATIVE="0")
    assert "KERAS_SASA_NATIVE" in reasons["native"]
    assert reasons["tiled"] is None
    assert shape == [4, 9, 8, 8]


def test_function_takes_tensors_that_are_not_float32(native_calls):
    maps = ops.cast(np.ones((1, 4, 4, 8)), "bfloat16")
    outputs = local_attention(maps, maps, maps, kernel_size=3, num_heads=2)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    np.testing.assert_array_equal(to_numpy(outputs), 1)
    assert len(native_calls) == 1


@pytest.mark.skipif(BACKEND != "jax", reason="arrays of JAX on many devices")
@pytest.mark.parametrize("kind, arrays", [("windows", 8), ("blocks", 12)])
def test_devices_of_jax_divide_the_batch(native_available, kind, arrays):
    """Each of two computes its images alone; only gradients are summed."""
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(jax.devices(), ("batch",))
    assert mesh.size == 2
    images = np.random.default_rng(0).normal(size=(6, 5, 7, 8))

    def run(implementation, axis):
        keras.utils.set_random_seed(0)
        if kind == "windows":
            layer = SelfAttention2D(
                8, 3, num_heads=2, implementation=implementation
            )
        else:
            layer = AttentionStem(8, implementation=implementation)
            # Else it would need the images of all devices.
            layer.batch_normalization.trainable = False
        layer.build((None, 5, 7, 8))
        weights = [v.value for v in layer.trainable_variables]
        others = [v.value for v in layer.non_trainable_variables]

        def loss(weights, images, training):
            outputs, _ = layer.stateless_call(
                weights, others, images, training=training
            )
            return (outputs**3).sum(), outputs

        def train(weights, images):
            return jax.grad(loss, (0, 1), has_aux=True)(weights, images, True)

        def predict(weights, images):
            return loss(weights, images, False)[1]

        divided = jax.device_put(
            images.astype("float32"), NamedSharding(mesh, PartitionSpec(axis))
        )
        compiled = [
            jax.jit(function).lower(weights, divided).compile()
            for function in (train, predict)
        ]
        gathers = [each.as_text().count("all-gather") for each in compiled]
        results = [each(weights, divided) for each in compiled]
        return gathers, jax.tree.leaves(results)

    _, expected = run("patches", None)
    _, whole = run("native", None)
    gathers, divided = run("native", "batch")
    assert gathers == [0, 0]
    assert len(expected) == arrays
    for one, two, three in zip(expected, whole, divided, strict=True):
        # Sums of many numbers, rounded in the size of the largest.
        largest = np.abs(one).max()
        np.testing.assert_allclose(two, one, atol=1e-5 * largest)
        np.testing.assert_allclose(three, two, atol=1e-6 * largest)
