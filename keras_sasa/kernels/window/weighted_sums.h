// Sums of values, weighted tap by tap.

#ifndef KERAS_SASA_KERNELS_WINDOW_WEIGHTED_SUMS_H_
#define KERAS_SASA_KERNELS_WINDOW_WEIGHTED_SUMS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/tile_sizes.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// output[row][channel] += sum over steps and taps of weight[row] * value, where
// a step is a row of values. Strides are in floats.
struct WeightedSums {
  const float* const* weights;  // One pointer a step, to row 0 and tap 0.
  int64_t weight_row_stride;
  int64_t weight_tap_stride;
  const float* const* values;  // One pointer a step, to channel 0 and tap 0.
  int64_t value_channel_stride;
  int64_t value_tap_stride;
  int64_t steps;
  int64_t taps;
  float* output;  // One vector a row and channel.
  int64_t output_row_stride;
  // Which keys count, one mask a tap. If null, the weights of the others, which
  // are zeros, are multiplied by whatever finite number is there.
  const Bits* masks;
  int64_t mask_tap_stride;  // In masks.
};

// Computes `rows` rows of weights, 1 to kQueryRows, and all channels.
void AddWeightedSums(const WeightedSums& s, int64_t rows,
                     const TileSizes& channels);

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_WEIGHTED_SUMS_H_
