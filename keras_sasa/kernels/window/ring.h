// The last few rows of a strip.

#ifndef KERAS_SASA_KERNELS_WINDOW_RING_H_
#define KERAS_SASA_KERNELS_WINDOW_RING_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Row n takes the place of row n - slots.
struct Ring {
  float* data = nullptr;
  int64_t slots = 0;
  int64_t row_stride = 0;  // In floats.
  int64_t left = 0;        // Floats from the start of a row to lane 0.

  int64_t size() const { return slots * row_stride; }
  int64_t RowOffset(int64_t number) const {
    return number % slots * row_stride + left;
  }
  // Points to lane 0 of the first plane.
  float* Row(int64_t number) const { return data + RowOffset(number); }
  // The same for a number below `slots`, without a division.
  float* Slot(int64_t number) const {
    return data + number * row_stride + left;
  }
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_RING_H_
