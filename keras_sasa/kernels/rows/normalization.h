// Layer normalization of the rows of a matrix: the interface. Nothing here
// knows who calls it.
//
//   y_c = (x_c - mean(x)) / sqrt(variance(x) + epsilon) * scale_c + offset_c
//
// All numbers are float32. Tasks may run on any number of threads in any order:
// the result has the same bits.

#ifndef KERAS_SASA_KERNELS_ROWS_NORMALIZATION_H_
#define KERAS_SASA_KERNELS_ROWS_NORMALIZATION_H_

#include <cstdint>
#include <memory>

#include "keras_sasa/kernels/base/tasks.h"

namespace keras_sasa {

struct RowNormalization {
  int64_t rows;
  int64_t channels;
  const float* inputs;  // (rows, channels)
  const float* scale;   // (channels,)
  const float* offset;  // (channels,)
  float epsilon;
  float* output;  // (rows, channels)
};

// The function as it is compiled for one instruction set.
struct RowFunctions {
  std::unique_ptr<Tasks> (*normalize)(const RowNormalization&);
};

}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_ROWS_NORMALIZATION_H_
