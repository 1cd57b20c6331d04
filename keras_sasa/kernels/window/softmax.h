// The softmax over a window, and its gradient, for one vector of lanes.

#ifndef KERAS_SASA_KERNELS_WINDOW_SOFTMAX_H_
#define KERAS_SASA_KERNELS_WINDOW_SOFTMAX_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Masks `rows` rows of `taps` logits each; `masks` has one mask a tap.
void MaskLogits(float* logits, int64_t rows, int64_t taps, const Bits* masks);

// Replaces `count` logits in base 2 by exp2(logit - largest), and computes the
// largest logit and the total of these weights. `outside` more keys, in rows
// outside the image, are masked.
void ComputeSoftmax(float* logits, int64_t count, int64_t outside,
                    Vector* largest, Vector* total);

struct SoftmaxGradient {
  int64_t rows;       // Rows of the window that are inside the image,
  int64_t taps;       // and taps of a row.
  const Bits* masks;  // One a tap.
  Vector log_sum_exp;
  float* logits;    // Become the weights.
  float* products;  // With the upstream; become the gradients of the logits.
  // Copies of both.
  float* weights;
  float* gradients;
  int64_t copy_tap_stride;  // Floats from one tap of a copy to the next.
  float* row_sums;          // Of the gradients: a vector a row.
  float* column_sums;       // The gradients are added to a vector a tap.
};

// `masked`: numbers may be infinite or NaN, and must not reach the lanes that
// do not see them.
void ComputeSoftmaxGradient(const SoftmaxGradient& s, bool masked);

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_SOFTMAX_H_
