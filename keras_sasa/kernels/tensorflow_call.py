"""One call of the compiled kernel by TensorFlow, and its registration.

TensorFlow calls XLA through `XlaCallModule`, which takes a StableHLO module as
text. The module holds nothing but the custom call.
"""

import ctypes
import functools
import pathlib

from keras_sasa.kernels.dimensions import DynamicDimension

# A converter that refuses the call shows its location, the name of a file: the
# place for a remedy.
_LOCATION = (
    '"the compiled kernel of keras_sasa cannot be converted, trace a new '
    'function inside `keras_sasa.local_attention.portable()`":1:1'
)


def register(library: ctypes.CDLL) -> str | None:
    """Registers the custom calls of the library with TensorFlow's XLA.

    Returns:
        `None`, or the reason why XLA rejects them.
    """
    get_api = ffi_api_function()
    get_api.restype = ctypes.c_void_p
    library.keras_sasa_register.argtypes = [ctypes.c_void_p]
    library.keras_sasa_register.restype = ctypes.c_char_p
    message = library.keras_sasa_register(get_api())
    if message is None:
        return None
    return f"XLA rejects it: {message.decode()}"


def ffi_api_function():
    """Returns the C function of TensorFlow that returns XLA's FFI."""
    import tensorflow as tf

    folder = pathlib.Path(tf.sysconfig.get_lib())
    # Opening a library that is loaded already returns the same one.
    framework = ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"))
    try:
        return framework.XLA_FFI_GetApi
    except AttributeError:
        # tensorflow-cpu exports only the C++ function behind it,
        # xla::ffi::GetXlaFfiApi().
        everything = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"))
        return everything["_ZN3xla3ffi12GetXlaFfiApiEv"]


def call(target: str, operands, result_shapes, attributes):
    """Makes one custom call, without a gradient.

    Args:
        target: Name of the custom call.
        operands: List of tensors.
        result_shapes: Shapes of the results, of integers and
            `DynamicDimension`.
        attributes: Tuple of pairs (name, value).

    Returns:
        The list of results.
    """
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    shapes = tuple(tuple(operand.shape) for operand in operands)
    result_shapes = tuple(map(tuple, result_shapes))
    return xla.call_module(
        # Forward mode would look for a gradient of the call itself.
        [tf.stop_gradient(operand) for operand in operands],
        version=9,
        module=_module(target, shapes, result_shapes, attributes),
        Tout=[tf.float32] * len(result_shapes),
        Sout=[tf.TensorShape(_static(shape)) for shape in result_shapes],
        platforms=["CPU"],
        disabled_checks=[f"custom_call:{target}"],
    )


def _static(shape):
    return tuple(
        None if isinstance(axis, DynamicDimension) else axis for axis in shape
    )


@functools.cache
def _module(target, shapes, result_shapes, attributes):
    """Returns the StableHLO of one custom call.

    With unknown sizes, the shape of every result becomes one more operand,
    which the module computes from the shapes of the others.
    """
    lines = []

    def new(line):
        lines.append(f"    %{len(lines)} = {line}")
        return f"%{len(lines) - 1}"

    def constant(number):
        return new(f"stablehlo.constant dense<{number}> : tensor<i32>")

    def scalar(size):
        if not isinstance(size, DynamicDimension):
            return constant(size)
        number = new(
            f"stablehlo.get_dimension_size %arg{size.operand}, "
            f"dim = {size.axis} : ({_type(shapes[size.operand])}) "
            "-> tensor<i32>"
        )
        if size.divisor > 1:
            rest = constant(size.divisor - 1)
            number = new(f"stablehlo.add {number}, {rest} : tensor<i32>")
            divisor = constant(size.divisor)
            number = new(f"stablehlo.divide {number}, {divisor} : tensor<i32>")
        return number

    def shape_operand(shape):
        sizes = [
            new(
                f"stablehlo.reshape {scalar(size)} : "
                "(tensor<i32>) -> tensor<1xi32>"
            )
            for size in shape
        ]
        types = ", ".join(["tensor<1xi32>"] * len(shape))
        return new(
            f"stablehlo.concatenate {', '.join(sizes)}, dim = 0 : "
            f"({types}) -> tensor<{len(shape)}xi32>"
        )

    count = len(result_shapes)
    polymorphic = any(None in _static(shape) for shape in result_shapes)
    types = [_type(shape) for shape in shapes]
    values = [f"%arg{number}" for number in range(len(shapes))]
    indices = ""
    if polymorphic:
        # XLA takes them in the order of the results: every result has one.
        numbers = list(range(len(shapes), len(shapes) + count))
        indices = (
            f", indices_of_shape_operands = dense<{numbers}> : "
            f"tensor<{count}xi64>"
        )
        values += map(shape_operand, result_shapes)
        types += [f"tensor<{len(shape)}xi32>" for shape in result_shapes]
    results = ", ".join(_type(_static(shape)) for shape in result_shapes)
    signature = ", ".join(
        f"%arg{number}: {_type(shape)}" for number, shape in enumerate(shapes)
    )
    config = ", ".join(
        f"{key} = {_attribute(value)}" for key, value in attributes
    )
    returned = ", ".join(f"%result#{number}" for number in range(count))
    flag = "true" if polymorphic else "false"
    return "\n".join(
        [
            "module @keras_sasa attributes "
            f"{{jax.uses_shape_polymorphism = {flag}}} {{",
            f"  func.func public @main({signature}) -> ({results}) {{",
            *lines,
            f"    %result:{count} = stablehlo.custom_call @{target}"
            f"({', '.join(values)}) {{api_version = 4 : i32, "
            f"backend_config = {{{config}}}{indices}}} : "
            f"({', '.join(types)}) -> ({results}) loc({_LOCATION})",
            f"    return {returned} : {results}",
            "  }",
            "}",
        ]
    )


def _type(shape):
    sizes = "".join("?x" if size is None else f"{size}x" for size in shape)
    return f"tensor<{sizes}f32>"


def _attribute(value):
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"array<i64: {', '.join(map(str, value))}>"
    return f"{value} : i64"
