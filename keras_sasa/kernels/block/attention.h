// Attention within the blocks of an image, forward and backward: the interface.
// Nothing here knows who calls it.
//
// For one head and the pixels i, j of a block, of `size` x `size` pixels,
//
//   y_i = sum_j softmax_j(x_i' L x_j) M_j' x_j
//
// with L = W_Q W_K' of the head, a matrix (channels, channels), and M_j the
// matrix of the values at the place of j in its block. Where the border cuts a
// block off, only its pixels inside the image count. All numbers are float32,
// channels last. Tasks may run on any number of threads in any order: the
// result has the same bits.

#ifndef KERAS_SASA_KERNELS_BLOCK_ATTENTION_H_
#define KERAS_SASA_KERNELS_BLOCK_ATTENTION_H_

#include <cstdint>
#include <memory>

#include "keras_sasa/kernels/base/tasks.h"

namespace keras_sasa {

struct BlockShape {
  int64_t batch;
  int64_t height;
  int64_t width;
  int64_t channels;
  int64_t size;
  int64_t heads;
  int64_t head_width;

  int64_t filters() const { return heads * head_width; }
  // Rows of blocks of one image, and of all.
  int64_t block_rows() const { return (height + size - 1) / size; }
  int64_t rows() const { return width > 0 ? batch * block_rows() : 0; }
  int64_t block_columns() const { return (width + size - 1) / size; }
};

struct BlockInputs {
  const float* image;          // (batch, height, width, channels)
  const float* logit_kernels;  // (heads, channels, channels)
  const float* value_kernels;  // (size * size, channels, filters)
};

struct BlockOutputs {
  // (batch, height, width, filters); or, with `scale` and `offset` of two
  // numbers a filter, (batch, block rows, block columns, filters): the largest
  // scale * y + offset of a block.
  float* output;
  const float* scale;
  const float* offset;
};

struct BlockGradients {
  float* image;
  float* logit_kernels;
  float* value_kernels;
};

// The functions as they are compiled for one instruction set.
struct BlockAttention {
  std::unique_ptr<Tasks> (*forward)(const BlockShape&, const BlockInputs&,
                                    const BlockOutputs&);
  // `output_gradient` is the gradient of the output without `scale` and
  // `offset`.
  std::unique_ptr<Tasks> (*backward)(const BlockShape&, const BlockInputs&,
                                     const float* output_gradient,
                                     const BlockGradients&);
};

}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BLOCK_ATTENTION_H_
