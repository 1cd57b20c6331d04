// Products of the pixels of a map with a matrix, where the columns of the
// matrix are lanes: both factors and the result are read and written where they
// lie, channels last.

#ifndef KERAS_SASA_KERNELS_WINDOW_PIXEL_PRODUCTS_H_
#define KERAS_SASA_KERNELS_WINDOW_PIXEL_PRODUCTS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// output[pixel][column] = sum over channels of pixels * matrix. Strides are in
// floats.
struct PixelProducts {
  const float* pixels;
  int64_t pixel_stride;
  int64_t count;  // Of pixels.
  int64_t channels;
  const float* matrix;  // [channel][column]
  int64_t matrix_stride;
  int64_t columns;  // A multiple of kLanes.
  float* output;
  int64_t output_stride;
};

void ComputePixelProducts(const PixelProducts& p);

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_PIXEL_PRODUCTS_H_
