"""Names under which XLA knows the custom calls of the compiled library."""

# Also the beginning of every name; graphs that contain one of these calls run
# only in a process that has loaded the library.
PREFIX = "keras_sasa_"

FORWARD = "keras_sasa_forward"
BACKWARD = "keras_sasa_backward"
PROJECTED = "keras_sasa_projected"
BLOCK_FORWARD = "keras_sasa_block_forward"
BLOCK_POOLED = "keras_sasa_block_pooled"
BLOCK_BACKWARD = "keras_sasa_block_backward"
NORMALIZE = "keras_sasa_normalize"
TARGETS = (
    FORWARD,
    BACKWARD,
    PROJECTED,
    BLOCK_FORWARD,
    BLOCK_POOLED,
    BLOCK_BACKWARD,
    NORMALIZE,
)
