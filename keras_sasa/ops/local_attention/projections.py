"""The pointwise projections of an image to queries, keys and values."""

from typing import Any, NamedTuple

from keras import ops

from keras_sasa.ops.local_attention.problem import Problem
from keras_sasa.ops.slices import subsample


class Projections(NamedTuple):
    """Kernels `(channels, filters)` and biases `(filters,)`.

    Without a key kernel, the logits have no term q.k. Either every projection
    has a bias or none has.
    """

    query_kernel: Any
    key_kernel: Any | None
    value_kernel: Any
    query_bias: Any | None = None
    key_bias: Any | None = None
    value_bias: Any | None = None

    @property
    def use_bias(self) -> bool:
        return self.value_bias is not None

    @property
    def kernels(self) -> list:
        """The kernels that there are."""
        kernels = self.query_kernel, self.key_kernel, self.value_kernel
        return [kernel for kernel in kernels if kernel is not None]

    @property
    def filters(self) -> int:
        return self.value_kernel.shape[-1]

    def scale_keys(self, scale: float) -> "Projections":
        """Returns them with keys that are multiplied by `scale`."""
        kernel, bias = (
            None if weight is None else weight * scale
            for weight in (self.key_kernel, self.key_bias)
        )
        return self._replace(key_kernel=kernel, key_bias=bias)


def project(
    problem: Problem, inputs: Any, projections: Projections
) -> list[tuple[Any, int] | None]:
    """Projects an image with as few matrix products as possible.

    Args:
        problem: Says which pixels are queries.
        inputs: `(batch, height, width, channels)`.
        projections: The kernels and biases.

    Returns:
        For queries, keys and values a tensor and the first of its channels
        that belongs to them, or `None` for keys that are not used. Products
        that are computed together share one tensor.
    """
    names = ["query", "key", "value"]
    if projections.key_kernel is None:
        names.remove("key")
    parts = dict.fromkeys(("query", "key", "value"))
    if not problem.query_everywhere:
        names.remove("query")
        rows, columns = (axis.queries() for axis in problem.axes)
        queries = subsample(inputs, rows, columns)
        parts["query"] = _product(queries, projections, ["query"]), 0
    product = _product(inputs, projections, names)
    for number, name in enumerate(names):
        parts[name] = product, number * projections.filters
    return list(parts.values())


def _product(inputs, projections, names):
    """Multiplies every pixel by several kernels, side by side."""
    kernels, biases = (
        [getattr(projections, f"{name}_{kind}") for name in names]
        for kind in ("kernel", "bias")
    )
    # As one matrix: TensorFlow makes many small products of more axes.
    *shape, channels = ops.shape(inputs)
    product = ops.matmul(
        ops.reshape(inputs, (-1, channels)), ops.concatenate(kernels, axis=-1)
    )
    product = ops.reshape(product, (*shape, len(kernels) * projections.filters))
    if projections.use_bias:
        product = product + ops.concatenate(biases, axis=-1)
    return product
