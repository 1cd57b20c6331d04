// Sums of values, weighted tap by tap.

#ifndef KERAS_SASA_KERNELS_WINDOW_WEIGHTED_SUMS_H_
#define KERAS_SASA_KERNELS_WINDOW_WEIGHTED_SUMS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/tile_sizes.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Steps, which are rows of values, that the same rows of the output see:
// `first` to `first + count`.
struct WeightedSpan {
  int64_t first, count;
  int64_t steps;
  const float* const* weights;  // One pointer a step, to row `first` and tap 0.
  const float* const* values;   // One pointer a step, to channel 0 and tap 0.
};

// output[row][channel] = factor[row] * sum over steps and taps of weight[row] *
// value. Strides are in floats.
struct WeightedSums {
  const WeightedSpan* spans;
  int64_t span_count;
  int64_t weight_row_stride;
  int64_t weight_tap_stride;
  int64_t value_channel_stride;
  int64_t value_tap_stride;
  int64_t taps;
  float* output;  // One vector a row and channel.
  int64_t output_row_stride;
  bool add;  // Whether the sums start with the numbers that are there.
  // One vector a row. If null, they are ones.
  const Vector* factors;
  // Which keys count, one mask a tap. If null, the weights of the others, which
  // are zeros, are multiplied by whatever finite number is there.
  const Bits* masks;
  int64_t mask_tap_stride;  // In masks.
};

// Computes `rows` rows, 1 to kQueryRows, and all `channels`.
void ComputeWeightedSums(const WeightedSums& s, int64_t rows, int64_t channels);

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_WEIGHTED_SUMS_H_
