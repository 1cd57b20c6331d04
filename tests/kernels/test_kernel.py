"""The compiled kernel: its mathematics alone, and as a custom call of XLA."""

import concurrent.futures
import ctypes
import hashlib
import pathlib
import platform
import subprocess

import keras
import numpy as np
import pytest
from keras import ops

from keras_sasa import (
    AttentionStem,
    NeighborhoodAttention2D,
    SelfAttention2D,
)
from keras_sasa.applications import ResNet
from keras_sasa.kernels import targets, tensorflow_call
from keras_sasa.kernels.dimensions import Spec
from keras_sasa.ops.local_attention import local_attention
from keras_sasa.ops.local_attention import native as native_module
from keras_sasa.ops.local_attention.epilogue import Epilogue
from tests.support import kernel_driver, process
from tests.support.backend import BACKEND, MODES, value_and_gradients
from tests.support.networks import open_blocks
from tests.support.parameters import large

on_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="the call of TensorFlow"
)


def runs(*needed):
    """Whether this is an x86-64 processor with all these flags."""
    flags = pathlib.Path("/proc/cpuinfo")
    return platform.machine() == "x86_64" and (
        flags.exists() and set(needed) <= set(flags.read_text().split())
    )


def level(name, *flags):
    """A parameter: the flags of a level, where the processor has it."""
    reason = f"this processor is not {name}"
    skip = pytest.mark.skipif(not runs(*flags), reason=reason)
    return pytest.param((f"-march={name}",), id=name, marks=skip)


# A driver that is not in the cache takes 20 seconds.
@pytest.mark.large
@pytest.mark.skipif(
    BACKEND == "jax", reason="the run on TensorFlow does it for all backends"
)
@pytest.mark.parametrize(
    "flags",
    [
        pytest.param((), id="baseline"),
        level("x86-64-v3", "avx2", "fma", "bmi2"),
        level("x86-64-v4", "avx512f", "avx512bw", "avx512dq", "avx512vl"),
    ],
)
def test_mathematics_under_sanitizers(request, flags):
    program = kernel_driver.build(flags, request.config.cache)
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.stdout == "0 failures\n", result.stdout + result.stderr
    assert result.returncode == 0, result.stderr


MAP = (2, 5, 6, 8)
FORWARD_CALL = {
    "name": targets.FORWARD,
    "operands": [MAP, MAP, MAP, (3, 2, 2), (3, 2, 2)],
    "results": [MAP, (2, 2, 5, 6)],
    "sources": 3,
    "places": (0, 0, 1, 0, 2, 0),
    "filters": 8,
    "num_heads": 2,
    "kernel_size": (3, 3),
    "strides": (1, 1),
    "dilation_rate": (1, 1),
    "padding": "same",
    "border": "mask",
    "relative": 1,
    "position_bias": 0,
    "scale": 1.0,
}
SHIFT_CALL = {
    **FORWARD_CALL,
    "operands": [MAP, MAP, MAP, (2, 5, 5)],
    "border": "shift",
    "relative": 0,
    "position_bias": 1,
}
BACKWARD_CALL, SHIFT_BACKWARD_CALL = (
    {
        **base,
        "name": targets.BACKWARD,
        "operands": [*base["operands"], MAP, (2, 2, 5, 6)],
        "results": base["operands"],
    }
    for base in (FORWARD_CALL, SHIFT_CALL)
)


def call(change, base=FORWARD_CALL):
    """Calls the kernel with zeros of the shapes or `Spec`s of the operands."""
    attributes = {**base, **change}
    name, operands, results = (
        attributes.pop(key) for key in ("name", "operands", "results")
    )
    return tensorflow_call.call(
        name,
        [ops.zeros(*spec(operand)) for operand in operands],
        [spec(result) for result in results],
        tuple(attributes.items()),
    )


def spec(shape):
    return shape if isinstance(shape, Spec) else Spec(shape)


def replaced(shapes, number, shape):
    return [*shapes[:number], shape, *shapes[number + 1 :]]


def with_operand(number, shape, base=FORWARD_CALL):
    return {"operands": replaced(base["operands"], number, shape)}


def with_result(number, shape, base=FORWARD_CALL):
    return {"results": replaced(base["results"], number, shape)}


HUGE = 2**62
WRONG = {
    "query_height": (with_operand(0, (2, 4, 6, 8)), "height and width"),
    "query_batch": (with_operand(0, (1, 5, 6, 8)), "differ in batch"),
    "query_channels": (with_operand(0, (2, 5, 6, 7)), "fewer channels"),
    "query_rank": (with_operand(0, (2, 5, 48)), "rank 4"),
    "key_width": (with_operand(1, (2, 5, 5, 8)), "key and value differ"),
    "key_batch": (with_operand(1, (3, 5, 6, 8)), "key and value differ"),
    "value_height": (with_operand(2, (2, 9, 6, 8)), "key and value differ"),
    "no_value": ({"operands": [MAP, MAP]}, "missing"),
    "no_operand": ({"operands": [(1,)]}, "rank 4"),
    "no_embedding": ({"operands": [MAP] * 3}, "missing: embedding"),
    "row_embedding": (with_operand(3, (5, 2, 2)), "embedding has the shape"),
    "column_embedding": (with_operand(4, (3, 2, 3)), "embedding has the shape"),
    "embedding_rank": (with_operand(4, (3, 4)), "rank 3"),
    "embedding_type": (
        with_operand(3, Spec((3, 2, 2), "bfloat16")),
        "embedding must be float32",
    ),
    "log_sum_exp_type": (
        with_result(1, Spec((2, 2, 5, 6), "bfloat16")),
        "log_sum_exp must be a float32",
    ),
    "sources_0": ({"sources": 0}, "sources"),
    "sources_negative": ({"sources": -1}, "sources"),
    "sources_many": ({"sources": HUGE}, "rank 4"),
    "places_few": ({"places": (0, 0, 1, 0)}, "places"),
    "places_source": ({"places": (0, 0, 1, 0, 7, 0)}, "no such source"),
    "places_no_query": ({"places": (-1, 0, 1, 0, 2, 0)}, "no such source"),
    "places_no_value": ({"places": (0, 0, 1, 0, -1, 0)}, "no such source"),
    "places_channel": ({"places": (0, 1, 1, 0, 2, 0)}, "fewer channels"),
    "places_before": ({"places": (0, -1, 1, 0, 2, 0)}, "no such source"),
    "places_far": ({"places": (0, 2**63 - 1, 1, 0, 2, 0)}, "channels"),
    "filters_0": ({"filters": 0}, "filters"),
    "filters_huge": ({"filters": HUGE}, "fewer channels"),
    "num_heads_0": ({"num_heads": 0}, "num_heads"),
    "num_heads_3": ({"num_heads": 3}, "num_heads"),
    "num_heads_odd_width": ({"num_heads": 8}, "an even one"),
    "kernel_size_even": ({"kernel_size": (3, 2)}, "must be odd"),
    "kernel_size_0": ({"kernel_size": (0, 3)}, "kernel_size"),
    "kernel_size_one": ({"kernel_size": (3,)}, "kernel_size"),
    "kernel_size_huge": ({"kernel_size": (HUGE + 1, 3)}, "too large"),
    "strides_0": ({"strides": (1, 0)}, "strides"),
    "strides_2": ({"strides": (2, 2)}, "height and width of the output"),
    "strides_huge": ({"strides": (2**63 - 1, 1)}, "too large"),
    "dilation_negative": ({"dilation_rate": (-1, 1)}, "dilation_rate"),
    "dilation_huge": (
        {"dilation_rate": (HUGE, 1), "padding": "valid"},
        "too large",
    ),
    "dilation_and_strides": (
        {"dilation_rate": (2, 2), "strides": (2, 2)},
        "cannot be combined",
    ),
    "padding": ({"padding": "full"}, "padding"),
    "border": ({"border": "wrap"}, "border"),
    "two_position_terms": ({"position_bias": 1}, "`relative` can be combined"),
    "shift": ({"border": "shift"}, "`relative` can be combined"),
    "scale": ({"scale": 0.5}, "`relative` can be combined"),
    "output": (with_result(0, (2, 5, 6, 4)), "output must be"),
    "log_sum_exp": (with_result(1, (2, 5, 6, 2)), "log_sum_exp must be"),
}
WRONG_SHIFT = {
    "position_bias": (
        with_operand(3, (2, 5, 3), SHIFT_CALL),
        "position_bias has the shape",
    ),
    "no_position_bias": ({"operands": [MAP] * 3}, "missing: position_bias"),
    "strides": ({"strides": (1, 2)}, "windows that shift"),
    "padding": ({"padding": "valid"}, "windows that shift"),
    "dilation": ({"dilation_rate": (2, 1)}, "smaller than a window"),
}
WRONG_SHIFT_BACKWARD = {
    "position_bias": (
        with_result(3, (2, 3, 3), SHIFT_BACKWARD_CALL),
        "gradient of position_bias must be",
    ),
}
WRONG_BACKWARD = {
    "output_gradient": (
        with_operand(5, (2, 5, 6, 4), BACKWARD_CALL),
        "output_gradient has the shape",
    ),
    "log_sum_exp": (
        with_operand(6, (2, 5, 6, 2), BACKWARD_CALL),
        "log_sum_exp has the shape",
    ),
    "no_log_sum_exp": (
        {"operands": BACKWARD_CALL["operands"][:-1]},
        "missing: log_sum_exp",
    ),
    "gradient": (
        with_result(1, (2, 5, 6, 9), BACKWARD_CALL),
        "gradient of a source must be",
    ),
    "embedding": (
        with_result(4, (5, 2, 2), BACKWARD_CALL),
        "gradient of an embedding must be",
    ),
    "few_results": (
        {"results": BACKWARD_CALL["results"][:3]},
        "gradient of an embedding must be",
    ),
}


KERNEL = (5, 8)
PROJECTED_CALL = {
    "name": targets.PROJECTED,
    "operands": [(2, 5, 6, 5), *[KERNEL] * 3, (3, 2, 2), (3, 2, 2)],
    "results": [MAP],
    "filters": 8,
    "num_heads": 2,
    "kernel_size": (3, 3),
    "strides": (1, 1),
    "dilation_rate": (1, 1),
    "border": "mask",
    "content": 1,
    "query_bias": 0,
    "relative": 1,
    "position_bias": 0,
    "scale": 1.0,
    "epilogue": 0,
    "relu": 0,
    "pool_size": 1,
}
EPILOGUE_CALL = {
    **PROJECTED_CALL,
    "operands": [*PROJECTED_CALL["operands"], (8,), (8,)],
    "results": [(2, 3, 3, 8)],
    "epilogue": 1,
    "relu": 1,
    "pool_size": 2,
}
WRONG_PROJECTED = {
    "image": (
        with_operand(0, (2, 30, 5), PROJECTED_CALL),
        "image must be .*rank 4",
    ),
    "channels": (
        with_operand(0, (2, 5, 6, 4), PROJECTED_CALL),
        "query_kernel has the shape",
    ),
    "no_channels": (
        with_operand(0, (2, 5, 6, 0), PROJECTED_CALL),
        "the image has no channels",
    ),
    "query_kernel": (
        with_operand(1, (5, 7), PROJECTED_CALL),
        "query_kernel has the shape",
    ),
    "key_kernel": (
        with_operand(2, (8, 5), PROJECTED_CALL),
        "key_kernel has the shape",
    ),
    "value_kernel": (
        with_operand(3, (5, 8, 1), PROJECTED_CALL),
        "value_kernel must be .*rank 2",
    ),
    "no_content": ({"content": 0}, "embedding must be .*rank 3"),
    "no_embedding": (
        {"operands": PROJECTED_CALL["operands"][:5]},
        "missing: embedding",
    ),
    "few_operands": ({"operands": [MAP]}, "missing|has the shape"),
    "embedding": (
        with_operand(5, (5, 2, 2), PROJECTED_CALL),
        "embedding has the shape",
    ),
    "output": (with_result(0, (2, 5, 6, 4), PROJECTED_CALL), "output must be"),
    "filters_0": ({"filters": 0}, "filters"),
    "num_heads_3": ({"num_heads": 3}, "num_heads"),
    "kernel_size_even": ({"kernel_size": (3, 2)}, "must be odd"),
    "strides": ({"strides": (2, 2)}, "output must be"),
    "strides_0": ({"strides": (1, 0)}, "strides"),
    "dilation_0": ({"dilation_rate": (1, 0)}, "dilation_rate"),
    "query_bias": ({"query_bias": 1}, "query_bias must be .*rank 1"),
    "border": ({"border": "wrap"}, "border"),
    "relu": ({"relu": 1}, "need `epilogue`"),
    "pool_size": ({"pool_size": 2}, "need `epilogue`"),
}
WRONG_EPILOGUE = {
    "scale": (with_operand(6, (4,), EPILOGUE_CALL), "scale has the shape"),
    "no_offset": (
        {"operands": EPILOGUE_CALL["operands"][:7]},
        "missing: offset",
    ),
    "output": (with_result(0, MAP, EPILOGUE_CALL), "output must be"),
    "pool_size_3": ({"pool_size": 3}, "must be 1 or 2"),
    "dilation": ({"dilation_rate": (2, 1)}, "cannot be combined"),
}


IMAGE, LOGIT_KERNELS, VALUE_KERNELS = (2, 5, 6, 3), (2, 3, 3), (16, 3, 8)
BLOCK_CALL = {
    "name": targets.BLOCK_FORWARD,
    "operands": [IMAGE, LOGIT_KERNELS, VALUE_KERNELS],
    "results": [MAP],
    "num_heads": 2,
    "block_size": 4,
}
POOLED_CALL = {
    **BLOCK_CALL,
    "name": targets.BLOCK_POOLED,
    "operands": [*BLOCK_CALL["operands"], (8,), (8,)],
    "results": [(2, 2, 2, 8)],
}
BLOCK_BACKWARD_CALL = {
    **BLOCK_CALL,
    "name": targets.BLOCK_BACKWARD,
    "operands": [*BLOCK_CALL["operands"], MAP],
    "results": BLOCK_CALL["operands"],
}
WRONG_BLOCK = {
    "image": (
        with_operand(0, (2, 30, 3), BLOCK_CALL),
        "image must be .*rank 4",
    ),
    "channels": (
        with_operand(0, (2, 5, 6, 4), BLOCK_CALL),
        "logit_kernels has the shape",
    ),
    "no_channels": (
        with_operand(0, (2, 5, 6, 0), BLOCK_CALL),
        "the image has no channels",
    ),
    "logit_kernels": (
        with_operand(1, (2, 3), BLOCK_CALL),
        "logit_kernels must be .*rank 3",
    ),
    "value_kernels": (
        with_operand(2, (15, 3, 8), BLOCK_CALL),
        "value_kernels has the shape",
    ),
    "value_rank": (with_operand(2, (16, 24), BLOCK_CALL), "rank 3"),
    "few_operands": ({"operands": [IMAGE]}, "missing: value_kernels"),
    "output": (with_result(0, (2, 5, 6, 4), BLOCK_CALL), "output must be"),
    "num_heads_0": ({"num_heads": 0}, "num_heads"),
    "num_heads_3": ({"num_heads": 3}, "num_heads"),
    "block_size_0": ({"block_size": 0}, "block_size"),
    "block_size_huge": ({"block_size": HUGE}, "block_size"),
    "block_size_5": ({"block_size": 5}, "value_kernels has the shape"),
}
WRONG_POOLED = {
    "scale": (with_operand(3, (4,), POOLED_CALL), "scale has the shape"),
    "offset": (with_operand(4, (8, 1), POOLED_CALL), "offset must be .*rank 1"),
    "no_offset": ({"operands": POOLED_CALL["operands"][:4]}, "missing: offset"),
    "output": (with_result(0, MAP, POOLED_CALL), "output must be"),
}
WRONG_BLOCK_BACKWARD = {
    "output_gradient": (
        with_operand(3, (2, 5, 6, 4), BLOCK_BACKWARD_CALL),
        "output_gradient has the shape",
    ),
    "no_output_gradient": (
        {"operands": BLOCK_CALL["operands"]},
        "missing: output_gradient",
    ),
    **{
        name: (
            with_result(number, (1,), BLOCK_BACKWARD_CALL),
            "gradient of an operand must",
        )
        for number, name in enumerate(("image", "logits", "values"))
    },
}
NORMALIZE_CALL = {
    "name": targets.NORMALIZE,
    "operands": [IMAGE, (3,), (3,)],
    "results": [IMAGE],
    "epsilon": 1e-3,
}
WRONG_NORMALIZE = {
    "image": (with_operand(0, (30, 3), NORMALIZE_CALL), "rank 4"),
    "scale": (with_operand(1, (4,), NORMALIZE_CALL), "scale has the shape"),
    "no_offset": ({"operands": [IMAGE, (3,)]}, "missing: offset"),
    "output": (with_result(0, MAP, NORMALIZE_CALL), "output must be"),
}


@on_tensorflow
@pytest.mark.usefixtures("native_available")
@pytest.mark.parametrize(
    "base, change, message",
    [
        pytest.param(
            base,
            *wrong,
            id=f"{base['name'][11:]}-{base.get('border', '')}-{name}",
        )
        for base, cases in (
            (FORWARD_CALL, WRONG),
            (BACKWARD_CALL, WRONG_BACKWARD),
            (SHIFT_CALL, WRONG_SHIFT),
            (SHIFT_BACKWARD_CALL, WRONG_SHIFT_BACKWARD),
            (PROJECTED_CALL, WRONG_PROJECTED),
            (EPILOGUE_CALL, WRONG_EPILOGUE),
            (BLOCK_CALL, WRONG_BLOCK),
            (POOLED_CALL, WRONG_POOLED),
            (BLOCK_BACKWARD_CALL, WRONG_BLOCK_BACKWARD),
            (NORMALIZE_CALL, WRONG_NORMALIZE),
        )
        for name, wrong in cases.items()
    ],
)
def test_errors_of_the_call(base, change, message):
    import tensorflow as tf

    call({}, base)
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=f"keras_sasa kernel: .*{message}",
    ):
        call(change, base)


def attend(arrays, implementation="native", **options):
    """The function's output and all its gradients, as arrays.

    The layer lends only its weights, the embeddings.
    """
    query, key, value = arrays
    options = {"kernel_size": 3, "num_heads": 2, **options}
    filters = value.shape[-1]
    layer = SelfAttention2D(
        filters, options["kernel_size"], num_heads=options["num_heads"]
    )
    layer.build((None, None, None, filters))
    random = np.random.default_rng(7)
    for weight in layer.weights:
        weight.assign(random.normal(size=weight.shape))
    cotangent = random.normal(size=query.shape)
    shapes = [array.shape for array in arrays]
    ends = np.cumsum([array.size for array in arrays])

    def function(flat):
        parts = [
            ops.reshape(flat[end - np.prod(shape, dtype=int) : end], shape)
            for end, shape in zip(ends, shapes, strict=True)
        ]
        return local_attention(
            *parts,
            layer.row_embedding,
            layer.column_embedding,
            implementation=implementation,
            **options,
        )

    flat = np.concatenate([array.ravel() for array in arrays])
    result = value_and_gradients(
        layer, flat.astype("float32"), cotangent, function=function
    )
    parts = np.split(result.gradients["inputs"], ends[:-1])
    gradients = [
        part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)
    ]
    return {
        "output": result.outputs,
        **dict(zip(("query", "key", "value"), gradients, strict=True)),
        "rows": result.gradients["row_embedding"],
        "columns": result.gradients["column_embedding"],
    }


def normal(*shapes, seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(size=shape).astype("float32") for shape in shapes]


@pytest.mark.parametrize(
    "queries, keys, options",
    [
        ((0, 5, 6, 8), (0, 5, 6, 8), {}),
        ((2, 0, 6, 8), (2, 0, 6, 8), {}),
        ((2, 5, 0, 8), (2, 5, 0, 8), {}),
        ((2, 0, 2, 8), (2, 4, 6, 8), {"kernel_size": 5, "padding": "valid"}),
        ((2, 2, 0, 8), (2, 6, 4, 8), {"kernel_size": 5, "padding": "valid"}),
    ],
    ids=["batch", "height", "width", "valid_height", "valid_width"],
)
def test_empty_maps(native_calls, queries, keys, options):
    results = attend(normal(queries, keys, keys), **options)
    assert native_calls
    assert results["output"].shape == results["query"].shape == queries
    assert results["value"].shape == results["key"].shape == keys
    for name, array in results.items():
        np.testing.assert_array_equal(array, 0, err_msg=name)


@on_tensorflow
def test_window_larger_than_a_map_of_unknown_size(native_available):
    import tensorflow as tf

    layer = SelfAttention2D(
        8, 5, num_heads=2, padding="valid", implementation="native"
    )
    layer.build((None, None, None, 3))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
    def gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images)
        return outputs, tape.gradient(outputs, images)

    outputs, gradients = gradient(tf.ones((2, 3, 7, 3)))
    assert outputs.shape == (2, 0, 3, 8)
    np.testing.assert_array_equal(gradients, np.zeros((2, 3, 7, 3)))


THREADS = """
    import json, sys
    import tensorflow as tf
    tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
    tf.config.threading.set_inter_op_parallelism_threads(int(sys.argv[1]))
    from tests.kernels import test_kernel
    print(json.dumps(test_kernel.digests()))
"""


def projected(images, filters, training=False, pool=None, **options):
    """What the layer makes of images, as an array.

    The kernel projects where it predicts, the backend while it trains. `pool`:
    that of an epilogue.
    """
    keras.utils.set_random_seed(4)
    layer = SelfAttention2D(filters, implementation="native", **options)
    epilogue = None
    if pool is not None:
        weights = map(ops.convert_to_tensor, normal((filters,), (filters,)))
        epilogue = Epilogue(*weights, relu=True, pool=pool)
    return ops.convert_to_numpy(
        layer(images, training=training, epilogue=epilogue)
    )


@pytest.mark.parametrize("shape", [(0, 5, 6, 8), (2, 0, 6, 8), (2, 5, 0, 8)])
def test_empty_images(native_calls, shape):
    outputs = projected(
        np.ones(shape, "float32"), 4, kernel_size=3, num_heads=2
    )
    assert outputs.shape == (*shape[:3], 4)
    assert len(native_calls) == 1


# One block of channels and more. 24 filters are not a multiple of every vector.
@pytest.mark.large_on_jax
@pytest.mark.parametrize("channels", [1, 512, 513])
@pytest.mark.parametrize("filters", [16, large(24)])
@pytest.mark.parametrize("strides", [1, (2, 3)])
def test_projected_as_by_the_backend(native_calls, channels, filters, strides):
    (images,) = normal((2, 9, 10, channels))
    options = {"num_heads": 2, "kernel_size": 5, "strides": strides}
    expected = projected(images, filters, training=True, **options)
    actual = projected(images, filters, **options)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    calls = [call["forward"] == targets.PROJECTED for call in native_calls]
    assert calls == [False, True]


@pytest.mark.parametrize("mode", [MODES[0], *map(large, MODES[1:])])
@pytest.mark.parametrize(
    "options",
    [
        {"strides": 2, "use_bias": True},
        {"training": True},
        {"training": True, "position_encoding": None, "use_content": True},
        {"pool": 1},
        {"pool": 2},
        {"pool": 2, "training": True},
    ],
    ids=str,
)
def test_bfloat16_is_float32_rounded_once(
    native_calls, monkeypatch, options, mode
):
    """The same bits as with maps that are cast around the call."""
    call = dict(options)
    steps = {"training": call.pop("training", False)}
    if "pool" in call:
        weights = map(ops.convert_to_tensor, normal((8,), (8,)))
        steps["epilogue"] = Epilogue(*weights, relu=True, pool=call.pop("pool"))
    images, cotangent = normal((2, 6, 5, 4), (2, 6, 5, 8))
    layer = SelfAttention2D(8, 3, num_heads=2, dtype="mixed_bfloat16", **call)
    layer.build(images.shape)
    cotangent = cotangent[tuple(map(slice, layer(images, **steps).shape))]

    def run():
        return value_and_gradients(layer, images, cotangent, mode=mode, **steps)

    actual = run()
    monkeypatch.setattr(native_module, "_map_dtype", lambda tensor: "float32")
    expected = run()
    assert native_calls
    np.testing.assert_array_equal(actual.outputs, expected.outputs)
    assert actual.outputs.dtype == "bfloat16"
    for name, gradient in expected.gradients.items():
        np.testing.assert_array_equal(actual.gradients[name], gradient)


@pytest.mark.parametrize("special", [np.nan, np.inf])
@pytest.mark.parametrize("pool", [None, 1, 2])
def test_nan_in_an_image(native_calls, special, pool):
    (images,) = normal((1, 9, 8, 5))
    images[0, 2, 7, 3] = special
    outputs = projected(images, 8, pool=pool, kernel_size=3, num_heads=2)
    found = ~np.isfinite(outputs).any(-1)
    expected = np.zeros((1, 9, 8), bool)
    expected[0, 1:4, 6:] = True
    if pool == 2:
        expected = np.zeros((1, 5, 4), bool)
        expected[0, :2, 3] = True
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(outputs[~found]).all()
    assert len(native_calls) == 1


def digests():
    arrays = normal(*[(3, 15, 17, 32)] * 3)
    results = attend(arrays, kernel_size=7, num_heads=4)
    for name, pool in {"projected": None, "finished": 1, "averaged": 2}.items():
        results[name] = projected(
            arrays[0], 32, pool=pool, kernel_size=7, num_heads=4
        )
    layer = NeighborhoodAttention2D(4, dilation_rate=2, implementation="native")
    layer.build(arrays[0].shape)
    layer.set_weights(normal(*(weight.shape for weight in layer.weights)))
    result = value_and_gradients(layer, *arrays[:2])
    results["neighborhoods"] = result.outputs
    for name, gradient in result.gradients.items():
        results[f"neighborhoods_{name}"] = gradient
    (images,) = normal((3, 31, 37, 3))
    stem = AttentionStem(16, implementation="native")
    stem.build(images.shape)
    stem.set_weights(normal(*(weight.shape for weight in stem.weights)))
    results["pooled"] = ops.convert_to_numpy(stem(images))
    result = value_and_gradients(
        stem, images, *normal((3, 31, 37, 16)), function=stem.attend
    )
    results["blocks"] = result.outputs
    for name, gradient in result.gradients.items():
        if name not in ("gamma", "beta"):
            results[f"gradient_of_{name}"] = gradient
    return {
        name: hashlib.sha256(array.tobytes()).hexdigest()
        for name, array in results.items()
    }


@pytest.mark.large_on_jax
def test_same_bits_from_run_to_run(native_calls):
    first = digests()
    assert len(native_calls) == 8
    assert len(set(first.values())) == len(first)
    for _ in range(5):
        assert digests() == first


@on_tensorflow
@pytest.mark.parametrize("threads", [2, large(5)])
def test_same_bits_for_any_number_of_threads(native_available, threads):
    one, _ = process.run(THREADS, 1)
    several, _ = process.run(THREADS, threads)
    assert several == one


@on_tensorflow
@pytest.mark.parametrize("compiled", [False, None, True])
def test_two_threads_call_the_same_layer(native_calls, compiled):
    import tensorflow as tf

    layer = SelfAttention2D(16, 5, num_heads=2, implementation="native")
    layer.build((None, None, None, 6))

    def gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images)
        return outputs, tape.gradient(outputs, images)

    if compiled is not False:
        gradient = tf.function(gradient, jit_compile=compiled)
    images = [tf.constant(array) for array in normal(*[(2, 13, 12, 6)] * 8)]
    expected = [gradient(image) for image in images]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        actual = list(pool.map(gradient, images * 5))
    for one, other in zip(actual, expected * 5, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert native_calls


# A corner, an edge and the inside.
PLACES = ((0, 0), (3, 6), (2, 3))


@pytest.mark.large_on_jax
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_nan_and_infinity(native_available, name, place, special):
    arrays = dict(
        zip(("query", "key", "value"), normal(*[(1, 6, 7, 8)] * 3), strict=True)
    )
    arrays[name][0, *place, 1] = special

    def run(implementation):
        return attend(list(arrays.values()), implementation)

    actual, expected = run("native"), run("patches")
    compared = ["output"]
    if name == "value" and np.isnan(special):
        compared = list(expected)
    assert not np.isfinite(expected["output"]).all()
    for result in compared:
        np.testing.assert_allclose(
            actual[result],
            expected[result],
            rtol=1e-4,
            atol=1e-4,
            err_msg=result,
        )


@pytest.mark.large
def test_training_is_that_of_the_definition(native_calls):
    random = np.random.default_rng(0)
    images = random.normal(size=(16, 8, 8, 3)).astype("float32")
    labels = random.integers(0, 4, 16)

    def losses(implementation):
        keras.utils.set_random_seed(3)
        model = open_blocks(
            ResNet(
                (1,),
                stem="small",
                kernel_size=3,
                num_heads=2,
                width_multiplier=0.25,
                input_shape=(8, 8, 3),
                classes=4,
                implementation=implementation,
            )
        )
        model.compile(
            keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy"
        )
        curve = []
        for _ in range(200):
            model.reset_metrics()
            curve.append(model.train_on_batch(images, labels))
        return curve

    expected = losses("patches")
    assert not native_calls
    actual = losses("native")
    assert native_calls
    assert expected[-1] < 0.7 * expected[0]
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


@on_tensorflow
def test_interface_of_tensorflow_cpu(monkeypatch):
    """Its smaller library does not have the C function."""
    expected = tensorflow_call.ffi_api_function()
    load = ctypes.CDLL
    monkeypatch.setattr(
        tensorflow_call.ctypes,
        "CDLL",
        lambda path: object() if "framework" in path else load(path),
    )
    found = tensorflow_call.ffi_api_function()
    assert found is not expected
    for function in (expected, found):
        function.restype = ctypes.c_void_p
    assert found() == expected() is not None
