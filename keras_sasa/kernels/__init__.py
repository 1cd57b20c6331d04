"""The compiled kernel and its callers.

`loader` finds the library and registers it with the XLA of Keras' backend,
`custom_call` makes differentiable calls of it, and `tensorflow_call` and
`jax_call` know how each backend makes a single call.
"""
