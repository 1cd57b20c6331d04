// The softmax over a window, and its gradient, for one vector of lanes.

#ifndef KERAS_SASA_KERNELS_WINDOW_SOFTMAX_H_
#define KERAS_SASA_KERNELS_WINDOW_SOFTMAX_H_

#include <cmath>
#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/exponentials.h"
#include "keras_sasa/kernels/base/masked_logit.h"
#include "keras_sasa/kernels/base/vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Masks `rows` rows of `taps` logits each; `masks` has one mask a tap.
inline void MaskLogits(float* logits, int64_t rows, int64_t taps,
                       const Bits* masks) {
  const Vector masked = Broadcast(kMaskedLogit);
  for (int64_t i = 0; i < rows * taps; i += taps) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      float* logit = logits + (i + tap) * kLanes;
      Store(logit, Select(masks[tap], Load(logit), masked));
    }
  }
}

// Replaces `count` logits in base 2 by exp2(logit - largest), and computes the
// largest logit and the total of these weights. `outside` more keys, in rows
// outside the image, are masked.
inline void ComputeSoftmax(float* logits, int64_t count, int64_t outside,
                           Vector* largest, Vector* total) {
  // The keys outside matter only where all others are at -infinity.
  Vector maximum = Broadcast(outside > 0 ? kMaskedLogit : -INFINITY);
  Vector odd = maximum;
  int64_t i = 0;
  for (; i + 1 < count; i += 2) {
    maximum = Larger(Load(logits + i * kLanes), maximum);
    odd = Larger(Load(logits + (i + 1) * kLanes), odd);
  }
  if (i < count) maximum = Larger(Load(logits + i * kLanes), maximum);
  maximum = Larger(odd, maximum);
  const Vector lowest = Broadcast(kLowestExponent);
  Vector sum = static_cast<float>(outside) *
               Exp2(Broadcast(kMaskedLogit) - maximum, lowest);
  odd = Vector{};
  for (i = 0; i + 1 < count; i += 2) {
    float* logit = logits + i * kLanes;
    const Vector first = Exp2(Load(logit) - maximum, lowest);
    const Vector second = Exp2(Load(logit + kLanes) - maximum, lowest);
    Store(logit, first);
    Store(logit + kLanes, second);
    sum += first;
    odd += second;
  }
  if (i < count) {
    const Vector last = Exp2(Load(logits + i * kLanes) - maximum, lowest);
    Store(logits + i * kLanes, last);
    sum += last;
  }
  sum += odd;
  *largest = maximum;
  *total = sum;
}

struct SoftmaxGradient {
  int64_t rows;       // Rows of the window that are inside the image,
  int64_t taps;       // and taps of a row.
  const Bits* masks;  // One a tap.
  Vector log_sum_exp;
  float* logits;       // Become the weights.
  float* products;     // With the upstream; become the gradients of the logits.
  int64_t tap_stride;  // Of both: floats from one tap to the next.
  float* row_sums;     // Of the gradients: a vector a row.
  float* column_sums;  // The gradients are added to a vector a tap.
};

// With p a weight and g the product of the value and the gradient of the
// output, the gradient of the logit is p * (g - sum of all p * g).
//
// `inside`: no key is masked. `finite`: no number is infinite or NaN; such
// numbers must not reach the lanes that do not see them.
template <bool inside, bool finite>
inline void ComputeSoftmaxGradient(const SoftmaxGradient& s) {
  // Copies, because the compiler must assume that stores change the members.
  const int64_t rows = s.rows;
  const int64_t taps = s.taps;
  const int64_t tap_stride = s.tap_stride;
  const Bits* masks = s.masks;
  const Vector log_sum_exp = s.log_sum_exp;
  const Vector lowest = Broadcast(kLowestExponent);
  Vector total{};
  float* logit = s.logits;
  float* product = s.products;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      Vector number = Load(logit);
      if (!inside) {
        number = Select(masks[tap], number, Broadcast(kMaskedLogit));
      }
      Vector weight = Exp2(number - log_sum_exp, lowest);
      if (!finite) {
        weight = ZeroUnless(masks[tap], weight);
        Store(product, ZeroUnless(masks[tap], Load(product)));
      }
      Store(logit, weight);
      total += weight * Load(product);
      logit += tap_stride;
      product += tap_stride;
    }
  }
  logit = s.logits;
  product = s.products;
  for (int64_t row = 0; row < rows; ++row) {
    Vector row_sum{};
    for (int64_t tap = 0; tap < taps; ++tap) {
      Vector gradient = Load(logit) * (Load(product) - total);
      if (!finite) gradient = ZeroUnless(masks[tap], gradient);
      Store(product, gradient);
      row_sum += gradient;
      float* column_sum = s.column_sums + tap * kLanes;
      Store(column_sum, Load(column_sum) + gradient);
      logit += tap_stride;
      product += tap_stride;
    }
    Store(s.row_sums + row * kLanes, row_sum);
  }
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_SOFTMAX_H_
