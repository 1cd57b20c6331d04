"""A call of the compiled kernel that XLA compiles once, whatever the sizes.

XLA compiles a call for every shape of its operands, which takes longer than the
attention of an image. Here, a table with the addresses and shapes of all
tensors comes before the operands, and only its length is fixed. Two operations
of TensorFlow, which the library registers, do the rest: `KerasSasaAllocate`
allocates the results, makes the table and replaces operands of unknown sizes by
small ones, for XLA to look at. `KerasSasaFinish` returns the results
when the call is done.

A graph may later become a part of a function with `jit_compile=True`. While XLA
compiles that, the operations pass on operands and results as they are.
"""

import ctypes
import functools
import pathlib

from keras_sasa.kernels.dimensions import DynamicDimension, spec_of

_FIND = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)
# In the errors of converters, which do not know the operations.
_NAME = "compiled_kernel_of_keras_sasa_trace_in_local_attention.portable"

# Whether TensorFlow has the operations.
_registered = False


def register(library: ctypes.CDLL) -> None:
    """Registers the operations of the library with TensorFlow.

    Where TensorFlow lacks the C interface, calls are compiled for every shape.
    """
    global _registered
    import tensorflow as tf

    path = pathlib.Path(tf.sysconfig.get_lib(), "libtensorflow_framework.so.2")
    # Opening a library that is loaded already returns the same one.
    framework = ctypes.CDLL(str(path))

    @_FIND
    def find(name):
        try:
            function = getattr(framework, name.decode())
        except AttributeError:
            return None
        return ctypes.cast(function, ctypes.c_void_p).value

    library.keras_sasa_register_operations.argtypes = [_FIND]
    library.keras_sasa_register_operations.restype = ctypes.c_char_p
    _registered = library.keras_sasa_register_operations(find) is None


def is_better(results) -> bool:
    """Returns whether sizes may change from call to call.

    A function with `jit_compile=True` is compiled for every shape anyway.
    """
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph()
    return (
        _registered
        and (tf.executing_eagerly() or _any_dynamic(results))
        and not control_flow_util.GraphOrParentsInXlaContext(graph)
    )


def _any_dynamic(results):
    return any(
        isinstance(axis, DynamicDimension)
        for shape, _ in results
        for axis in shape
    )


def call(call_with_table, operands, results, static_shapes):
    """Makes a call, which no tape records.

    Args:
        call_with_table: Function that makes the custom call and returns its
            results, of a table, the number of its integers, operands and the
            `Spec`s of results, none if the table is enough.
        operands: List of tensors.
        results: Tuple of the `Spec`s of the results.
        static_shapes: As far as they are known, as `tf.TensorShape`.

    Returns:
        The list of results.
    """
    import tensorflow as tf

    shapes = [tuple(operand.shape) for operand in operands]
    size = 2 + sum(
        3 + len(spec.shape) for spec in (*map(spec_of, operands), *results)
    )
    replaced = [number for number, shape in enumerate(shapes) if None in shape]
    table, *outputs = _apply(
        "KerasSasaAllocate",
        {"empty_table": _zeros(size), "operands": operands},
        {
            "stand_in_types": [operands[number].dtype for number in replaced],
            "result_types": [tf.as_dtype(result.dtype) for result in results],
            "result_shapes": _dimensions(results),
            "stand_in_shapes": _stand_in_shapes(shapes),
        },
        output_count=1 + len(replaced) + len(results),
    )
    if tf.executing_eagerly():
        # Nothing compiles this with the rest of a function.
        done = call_with_table(table, size, (), ())
    else:
        stand_ins = list(operands)
        for number, output in zip(replaced, outputs, strict=False):
            output.set_shape(shapes[number])
            stand_ins[number] = output
        done = call_with_table(table, size, stand_ins, results)
    returned = _apply(
        "KerasSasaFinish",
        {
            "call": done,
            "operands": [operands[number] for number in replaced],
            "results": outputs[len(replaced) :],
        },
        {},
        output_count=len(results),
    )
    for result, shape in zip(returned, static_shapes, strict=True):
        result.set_shape(shape)
    return returned


def _stand_in_shapes(shapes):
    """Returns the attribute of that name, see operations.cc."""
    integers = []
    for shape in shapes:
        if None in shape:
            # XLA removes a call whose results have no elements.
            integers += len(shape), *(size or 1 for size in shape)
        else:
            integers.append(-1)
    return integers


def _zeros(size):
    import tensorflow as tf

    if tf.executing_eagerly():
        return _eager_zeros(size)
    return tf.zeros((size,), tf.int64)


@functools.cache
def _eager_zeros(size):
    import tensorflow as tf

    return tf.zeros((size,), tf.int64)


@functools.cache
def _dimensions(results):
    """Returns the attribute of that name, see operations.cc."""
    integers = []
    for shape, _ in results:
        integers.append(len(shape))
        for axis in shape:
            integers += (
                axis if isinstance(axis, DynamicDimension) else (-1, axis, 1)
            )
    return integers


def _apply(name, inputs, attributes, output_count):
    """Runs one of the operations, or adds it to the graph.

    Args:
        name: Type of the operation.
        inputs: Dict of its inputs, which are tensors or lists of tensors.
        attributes: Dict of the attributes that do not follow from the inputs.
        output_count: Number of outputs.

    Returns:
        The list of outputs.
    """
    import tensorflow as tf
    from tensorflow.python.eager import context, execute
    from tensorflow.python.framework import op_def_library

    if not tf.executing_eagerly():
        return tf.nest.flatten(
            op_def_library.apply_op(name, name=_NAME, **inputs, **attributes)
        )
    attributes = {
        key: [dtype.as_datatype_enum for dtype in value]
        if key.endswith("_types")
        else value
        for key, value in attributes.items()
    }
    flat = []
    for key, tensors in inputs.items():
        if not isinstance(tensors, list):
            flat.append(tensors)
            continue
        flat += tensors
        # In a graph, this attribute follows from the inputs.
        attributes[f"{key.removesuffix('s')}_types"] = [
            tensor.dtype.as_datatype_enum for tensor in tensors
        ]
    return execute.execute(
        name.encode(),
        output_count,
        inputs=flat,
        attrs=tuple(part for pair in attributes.items() for part in pair),
        ctx=context.context(),
    )
