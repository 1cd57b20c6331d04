// The functions that XLA calls. JAX looks them up by name; TensorFlow knows
// them after `keras_sasa_register`.
//
// Operands after the ones that are listed are ignored, because XLA passes the
// shapes of results there.

#ifndef KERAS_SASA_KERNELS_XLA_HANDLERS_H_
#define KERAS_SASA_KERNELS_XLA_HANDLERS_H_

#include "xla/ffi/api/ffi.h"

// They and `keras_sasa_register` are all that the library exports.
#pragma GCC visibility push(default)

// sources, [row_embedding, column_embedding] -> output, [log_sum_exp]
XLA_FFI_DECLARE_HANDLER_SYMBOL(keras_sasa_forward);

// sources, [row_embedding, column_embedding], output_gradient, log_sum_exp
// -> gradients of the sources, [of row_embedding and column_embedding]
XLA_FFI_DECLARE_HANDLER_SYMBOL(keras_sasa_backward);

// image, query_kernel, [key_kernel], value_kernel, [row_embedding,
// column_embedding], [scale, offset] -> output
//
// It computes queries, keys and values itself, as products with matrices
// (channels, filters), with "same" padding. With scale and offset, it also
// computes the steps of `WindowEpilogue`.
XLA_FFI_DECLARE_HANDLER_SYMBOL(keras_sasa_projected);

// Within blocks, with operands as in block/attention.h.
//
// image, logit_kernels, value_kernels -> output
XLA_FFI_DECLARE_HANDLER_SYMBOL(keras_sasa_block_forward);

// image, logit_kernels, value_kernels, scale, offset
// -> the largest scale * output + offset of every block
XLA_FFI_DECLARE_HANDLER_SYMBOL(keras_sasa_block_pooled);

// image, logit_kernels, value_kernels, output_gradient
// -> gradients of the first three
XLA_FFI_DECLARE_HANDLER_SYMBOL(keras_sasa_block_backward);

// image, scale, offset -> every pixel, normalized as in rows/normalization.h
XLA_FFI_DECLARE_HANDLER_SYMBOL(keras_sasa_normalize);

#pragma GCC visibility pop

#endif  // KERAS_SASA_KERNELS_XLA_HANDLERS_H_
