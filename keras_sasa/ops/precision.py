"""The floating point type of computations that must not lose precision."""


def compute_dtype(dtype: str) -> str:
    """Returns `"float64"` for float64, else `"float32"`, half types included.

    Softmaxes and sums of a layer are computed in this type, whatever the type
    of its inputs.
    """
    return "float64" if dtype == "float64" else "float32"
