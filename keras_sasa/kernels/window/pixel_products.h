// Products of pixels with the columns of a matrix, where pixels are lanes.
//
// Both factors are packed into panels: a few vectors of pixels, channel by
// channel, and a few columns of the matrix, row by row.

#ifndef KERAS_SASA_KERNELS_WINDOW_PIXEL_PRODUCTS_H_
#define KERAS_SASA_KERNELS_WINDOW_PIXEL_PRODUCTS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// A tile has kColumnUnit * 3 / n columns of n vectors of pixels, as many as
// there are registers for.
#if defined(__AVX512VL__) || defined(__aarch64__)
constexpr int kColumnUnit = 8;
#else
constexpr int kColumnUnit = 4;
#endif
constexpr int kPanelVectors = 3;
constexpr int kPanelColumns = 3 * kColumnUnit;

// output[column][vector] = sum over channels of pixels * matrix, which is added
// to the numbers that are there if `add`.
struct PixelProducts {
  const float* pixels;  // [channel][kPanelVectors]
  const float* matrix;  // [channel][columns]
  int64_t channels;
  int64_t columns;  // A multiple of kColumnUnit, at most kPanelColumns.
  float* output;
  int64_t output_column_stride;  // In floats.
  bool add;
};

// `vectors`: how many vectors of the panel hold pixels, 1 to kPanelVectors.
void ComputePixelProducts(const PixelProducts& p, int64_t vectors);

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_PIXEL_PRODUCTS_H_
