"""One call of the compiled kernel by TensorFlow, and its registration.

TensorFlow calls XLA through `XlaCallModule`, which takes a StableHLO module as
text. The module holds nothing but the custom call. XLA compiles it for every
shape of its operands; where sizes change from call to call, the call therefore
takes a table of the tensors instead of the tensors (`table_call`).
"""

import ctypes
import functools
import pathlib

from keras_sasa.kernels import table_call
from keras_sasa.kernels.dimensions import DynamicDimension, Spec, spec_of

# The types of operands and results in StableHLO.
_TYPES = {"float32": "f32", "bfloat16": "bf16"}

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
    if message is not None:
        return f"XLA rejects it: {message.decode()}"
    table_call.register(library)
    return None


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


def call(target: str, operands, results, attributes):
    """Makes one custom call, without a gradient.

    Args:
        target: Name of the custom call.
        operands: List of tensors.
        results: List of the `Spec`s of the results.
        attributes: Tuple of pairs (name, value).

    Returns:
        The list of results.
    """
    import tensorflow as tf

    results = tuple(results)
    static_shapes = [tf.TensorShape(_static(shape)) for shape, _ in results]
    if table_call.is_better(results):
        return table_call.call(
            functools.partial(_call_with_table, target, attributes),
            list(operands),
            results,
            static_shapes,
        )
    return _call_module(
        target,
        _module(target, tuple(map(spec_of, operands)), results, attributes),
        list(operands),
        [result.dtype for result in results],
        static_shapes,
    )


def _call_with_table(target, attributes, table, size, operands, results):
    """Makes the custom call with a table of `size` integers before operands.

    Without results the call has no operands but the table, and returns a
    number that means nothing.
    """
    import tensorflow as tf

    if not results:
        module = _table_module(target, size, attributes)
        return _call_module(target, module, [table], [tf.int64], [(1,)])
    specs = tuple(map(spec_of, operands))
    return _call_module(
        target,
        _module(target, specs, results, attributes, table_size=size),
        [table, *operands],
        [result.dtype for result in results],
        [tf.TensorShape(_static(shape)) for shape, _ in results],
    )


def _call_module(target, module, operands, result_types, result_shapes):
    from tensorflow.compiler.tf2xla.python import xla

    return xla.call_module(
        operands,
        version=9,
        module=module,
        Tout=result_types,
        Sout=result_shapes,
        platforms=["CPU"],
        disabled_checks=[f"custom_call:{target}"],
    )


def _static(shape):
    return tuple(
        None if isinstance(axis, DynamicDimension) else axis for axis in shape
    )


@functools.cache
def _module(target, operands, results, attributes, table_size=None):
    """Returns the StableHLO of one custom call.

    With unknown sizes, the shape of every result becomes one more operand,
    which the module computes from the shapes of the others. A table, if there
    is one, comes before all operands.
    """
    lines = []
    types = [_type(operand) for operand in operands]
    if table_size is not None:
        types.insert(0, f"tensor<{table_size}xi64>")
    first = len(types) - len(operands)
    arguments = tuple(types)

    def new(line):
        lines.append(f"    %{len(lines)} = {line}")
        return f"%{len(lines) - 1}"

    def constant(number):
        return new(f"stablehlo.constant dense<{number}> : tensor<i32>")

    def scalar(size):
        if not isinstance(size, DynamicDimension):
            return constant(size)
        number = new(
            f"stablehlo.get_dimension_size %arg{first + size.operand}, "
            f"dim = {size.axis} : ({_type(operands[size.operand])}) "
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

    count = len(results)
    polymorphic = any(None in _static(shape) for shape, _ in results)
    values = [f"%arg{number}" for number in range(len(types))]
    indices = ""
    if polymorphic:
        # XLA takes them in the order of the results: every result has one.
        numbers = list(range(len(types), len(types) + count))
        indices = (
            f", indices_of_shape_operands = dense<{numbers}> : "
            f"tensor<{count}xi64>"
        )
        values += (shape_operand(shape) for shape, _ in results)
        types += [f"tensor<{len(shape)}xi32>" for shape, _ in results]
    return _module_text(
        target,
        attributes,
        arguments=arguments,
        lines=lines,
        operands=[*zip(values, types, strict=True)],
        results=[
            _type(Spec(_static(shape), dtype)) for shape, dtype in results
        ],
        indices=indices,
    )


@functools.cache
def _table_module(target, size, attributes):
    """Returns the StableHLO of a custom call that takes a table."""
    table = f"tensor<{size}xi64>"
    return _module_text(
        target,
        attributes,
        arguments=[table],
        lines=[],
        operands=[("%arg0", table)],
        results=["tensor<1xi64>"],
        indices="",
    )


def _module_text(
    target, attributes, arguments, lines, operands, results, indices
):
    signature = ", ".join(
        f"%arg{number}: {argument}" for number, argument in enumerate(arguments)
    )
    values, types = (", ".join(words) for words in zip(*operands, strict=True))
    config = ", ".join(
        f"{key} = {_attribute(value)}" for key, value in attributes
    )
    count = len(results)
    returned = ", ".join(f"%result#{number}" for number in range(count))
    results = ", ".join(results)
    flag = "true" if indices else "false"
    return "\n".join(
        [
            "module @keras_sasa attributes "
            f"{{jax.uses_shape_polymorphism = {flag}}} {{",
            f"  func.func public @main({signature}) -> ({results}) {{",
            *lines,
            f"    %result:{count} = stablehlo.custom_call @{target}"
            f"({values}) {{api_version = 4 : i32, "
            f"backend_config = {{{config}}}{indices}}} : "
            f"({types}) -> ({results}) loc({_LOCATION})",
            f"    return {returned} : {results}",
            "  }",
            "}",
        ]
    )


def _type(spec):
    sizes = "".join("?x" if size is None else f"{size}x" for size in spec.shape)
    return f"tensor<{sizes}{_TYPES[spec.dtype]}>"


def _attribute(value):
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"array<i64: {', '.join(map(str, value))}>"
    if isinstance(value, float):
        return f"{value:.9e} : f32"
    return f"{value} : i64"
