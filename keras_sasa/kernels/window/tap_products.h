// Dot products of queries with the keys at the taps of their windows.

#ifndef KERAS_SASA_KERNELS_WINDOW_TAP_PRODUCTS_H_
#define KERAS_SASA_KERNELS_WINDOW_TAP_PRODUCTS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/window/tile_sizes.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// output[step][row][tap] = bias + sum over channels of query[row] * key[tap],
// where a step is a row of keys. Strides are in floats.
struct TapProducts {
  const float* query;
  int64_t query_row_stride;
  int64_t query_channel_stride;
  int64_t steps;
  const float* const* keys;  // One pointer a step.
  int64_t key_tap_stride;
  // Whether the keys of the middle tap are aligned, with a vector on either
  // side of them, those of the other taps one float apart, and all of them in
  // one tile.
  bool centered;
  int64_t key_channel_stride;
  int64_t channels;
  const float* row_bias;  // One vector a row and step.
  int64_t row_bias_row_stride;
  int64_t row_bias_step_stride;
  const float* tap_bias;  // One vector a row and tap, perhaps of every step.
  int64_t tap_bias_row_stride;
  int64_t tap_bias_step_stride;
  int64_t tap_bias_tap_stride;
  float* output;  // One vector a row, step and tap.
  int64_t output_row_stride;
  int64_t output_step_stride;
  int64_t output_tap_stride;
};

// Computes `rows` rows of queries, 1 to kQueryRows, and all taps.
void ComputeTapProducts(const TapProducts& p, int64_t rows,
                        const TileSizes& taps);

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_TAP_PRODUCTS_H_
