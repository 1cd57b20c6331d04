// The softmax over a window, and its gradient, for one vector of lanes.

#ifndef KERAS_SASA_KERNELS_WINDOW_SOFTMAX_H_
#define KERAS_SASA_KERNELS_WINDOW_SOFTMAX_H_

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/exponentials.h"
#include "keras_sasa/kernels/base/masked_logit.h"
#include "keras_sasa/kernels/base/vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// The functions below know the number of taps of a row when they are compiled,
// if `known_taps` is not 0. Masks and sums of columns are then in registers.

// Calls body(known_taps) for windows of `taps` columns.
template <typename Body>
inline void WithKnownTaps(int64_t taps, Body body) {
  if (taps == 7) return body(std::integral_constant<int, 7>());
  if (taps == 3) return body(std::integral_constant<int, 3>());
  body(std::integral_constant<int, 0>());
}

// Calls body(tap, half) for the taps of a row, where halves alternate: sums of
// halves wait less for each other.
template <int known_taps, typename Body>
KERAS_SASA_ALWAYS_INLINE void ForEachTap(int64_t taps, Body body) {
  if constexpr (known_taps > 0) {
    KERAS_SASA_UNROLL
    for (int tap = 0; tap < known_taps; ++tap) body(tap, tap % 2);
  } else {
    for (int64_t tap = 0; tap < taps; tap += 2) {
      body(tap, 0);
      if (tap + 1 < taps) body(tap + 1, 1);
    }
  }
}

// Which keys of a row are not masked, one mask a tap.
template <int known_taps>
class TapMasks {
 public:
  explicit TapMasks(const Bits* masks) {
    KERAS_SASA_UNROLL
    for (int tap = 0; tap < known_taps; ++tap) masks_[tap] = masks[tap];
  }
  Bits operator[](int64_t tap) const { return masks_[tap]; }

 private:
  Bits masks_[known_taps];
};
template <>
class TapMasks<0> {
 public:
  explicit TapMasks(const Bits* masks) : masks_(masks) {}
  Bits operator[](int64_t tap) const { return masks_[tap]; }

 private:
  const Bits* masks_;
};

// The logits of a window, in base 2: `rows` rows of `taps` taps each, a vector
// each.
struct SoftmaxLogits {
  float* logits;
  int64_t rows;
  int64_t taps;
  int64_t row_stride;  // Floats from one row to the next.
  const Bits* masks;   // One a tap.
  float masked_logit;  // Of keys that are masked.
  int64_t outside;     // More keys, in rows outside the image, all masked.
};

// Replaces the logits by exp2(logit - largest), and computes the largest logit
// and the total of these weights. `inside`: no tap is masked.
template <int known_taps, bool inside>
inline void ComputeSoftmax(const SoftmaxLogits& s, Vector* largest,
                           Vector* total) {
  // Copies, because the compiler must assume that stores change the members.
  const int64_t rows = s.rows;
  const int64_t taps = known_taps > 0 ? known_taps : s.taps;
  const TapMasks<known_taps> masks(s.masks);
  const int64_t row_stride = s.row_stride;
  const Vector masked = Broadcast(s.masked_logit);
  // The keys outside matter only where all others are at -infinity.
  Vector maximum = s.outside > 0 ? masked : Broadcast(-INFINITY);
  Vector maxima[2] = {maximum, maximum};
  float* logits = s.logits;
  for (int64_t row = 0; row < rows; ++row) {
    ForEachTap<known_taps>(taps, [&](int64_t tap, int half) {
      Vector logit = Load(logits + tap * kLanes);
      if (!inside) logit = Select(masks[tap], logit, masked);
      maxima[half] = Larger(logit, maxima[half]);
    });
    logits += row_stride;
  }
  maximum = Larger(maxima[1], maxima[0]);
  const Vector lowest = Broadcast(kLowestExponent);
  Vector sums[2] = {static_cast<float>(s.outside) *
                    Exp2(masked - maximum, lowest)};
  logits = s.logits;
  for (int64_t row = 0; row < rows; ++row) {
    ForEachTap<known_taps>(taps, [&](int64_t tap, int half) {
      Vector logit = Load(logits + tap * kLanes);
      if (!inside) logit = Select(masks[tap], logit, masked);
      const Vector weight = Exp2(logit - maximum, lowest);
      Store(logits + tap * kLanes, weight);
      sums[half] += weight;
    });
    logits += row_stride;
  }
  *largest = maximum;
  *total = sums[0] + sums[1];
}

struct SoftmaxGradient {
  int64_t rows;       // Rows of the window that are inside the image,
  int64_t taps;       // and taps of a row.
  const Bits* masks;  // One a tap.
  float masked_logit;
  Vector log_sum_exp;
  float* logits;       // Become the weights.
  float* products;     // With the upstream; become the gradients of the logits.
  int64_t tap_stride;  // Of both: floats from one tap to the next,
  int64_t row_gap;     // and more from the end of a row to the next one.
  float* row_sums;     // Of the gradients: a vector a row.
  float* column_sums;  // The same of a tap; zeros before.
};

// With p a weight and g the product of the value and the gradient of the
// output, the gradient of the logit is p * (g - sum of all p * g).
//
// `inside`: no key is masked. `finite`: no number is infinite or NaN; such
// numbers must not reach the lanes that do not see them.
template <int known_taps, bool inside, bool finite>
inline void ComputeSoftmaxGradient(const SoftmaxGradient& s) {
  // Copies, because the compiler must assume that stores change the members.
  const int64_t rows = s.rows;
  const int64_t taps = known_taps > 0 ? known_taps : s.taps;
  const int64_t tap_stride = s.tap_stride;
  const TapMasks<known_taps> masks(s.masks);
  const Vector log_sum_exp = s.log_sum_exp;
  const Vector lowest = Broadcast(kLowestExponent);
  const int64_t row_gap = s.row_gap;
  const Vector masked = Broadcast(s.masked_logit);
  Vector totals[2] = {};
  float* logits = s.logits;
  float* products = s.products;
  for (int64_t row = 0; row < rows; ++row) {
    ForEachTap<known_taps>(taps, [&](int64_t tap, int half) {
      Vector logit = Load(logits);
      if (!inside) logit = Select(masks[tap], logit, masked);
      Vector weight = Exp2(logit - log_sum_exp, lowest);
      Vector product = Load(products);
      if (!finite) {
        weight = ZeroUnless(masks[tap], weight);
        product = ZeroUnless(masks[tap], product);
        Store(products, product);
      }
      Store(logits, weight);
      totals[half] += weight * product;
      logits += tap_stride;
      products += tap_stride;
    });
    logits += row_gap;
    products += row_gap;
  }
  const Vector total = totals[0] + totals[1];
  Vector columns[known_taps > 0 ? known_taps : 1] = {};
  logits = s.logits;
  products = s.products;
  for (int64_t row = 0; row < rows; ++row) {
    Vector row_sums[2] = {};
    ForEachTap<known_taps>(taps, [&](int64_t tap, int half) {
      Vector gradient = Load(logits) * (Load(products) - total);
      if (!finite) gradient = ZeroUnless(masks[tap], gradient);
      Store(products, gradient);
      row_sums[half] += gradient;
      if constexpr (known_taps > 0) {
        columns[tap] += gradient;
      } else {
        float* column_sum = s.column_sums + tap * kLanes;
        Store(column_sum, Load(column_sum) + gradient);
      }
      logits += tap_stride;
      products += tap_stride;
    });
    logits += row_gap;
    products += row_gap;
    Store(s.row_sums + row * kLanes, row_sums[0] + row_sums[1]);
  }
  KERAS_SASA_UNROLL
  for (int tap = 0; tap < known_taps; ++tap) {
    Store(s.column_sums + tap * kLanes, columns[tap]);
  }
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_SOFTMAX_H_
