// Products of a vector of channels in every lane.

#ifndef KERAS_SASA_KERNELS_BLOCK_LANE_VECTORS_H_
#define KERAS_SASA_KERNELS_BLOCK_LANE_VECTORS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// A matrix of numbers that all lanes share. Strides are in floats.
struct SharedMatrix {
  const float* data;
  int64_t row_stride, column_stride;

  SharedMatrix Transposed() const { return {data, column_stride, row_stride}; }
};

template <int columns, bool add>
inline void ProjectColumns(const float* input, SharedMatrix matrix,
                           int64_t depth, float* output) {
  Vector sums[columns];
  KERAS_SASA_UNROLL
  for (int j = 0; j < columns; ++j) {
    sums[j] = add ? Load(output + j * kLanes) : Vector{};
  }
  for (int64_t i = 0; i < depth; ++i) {
    const Vector left = Load(input + i * kLanes);
    const float* row = matrix.data + i * matrix.row_stride;
    KERAS_SASA_UNROLL
    for (int j = 0; j < columns; ++j) {
      sums[j] += left * row[j * matrix.column_stride];
    }
  }
  KERAS_SASA_UNROLL
  for (int j = 0; j < columns; ++j) Store(output + j * kLanes, sums[j]);
}

// output[j] = sum over i of input[i] * matrix[i][j]; added if `add`.
template <bool add>
inline void Project(const float* input, SharedMatrix matrix, int64_t depth,
                    int64_t columns, float* output) {
  constexpr int kTogether = 8;
  int64_t j = 0;
  for (; j + kTogether <= columns; j += kTogether) {
    ProjectColumns<kTogether, add>(input, matrix, depth, output + j * kLanes);
    matrix.data += kTogether * matrix.column_stride;
  }
  for (; j < columns; ++j) {
    ProjectColumns<1, add>(input, matrix, depth, output + j * kLanes);
    matrix.data += matrix.column_stride;
  }
}

// sums[i][j] += a[i] * b[j].
inline void AddOuterProduct(const float* a, int64_t rows, const float* b,
                            int64_t columns, float* sums) {
  for (int64_t i = 0; i < rows; ++i) {
    const Vector left = Load(a + i * kLanes);
    for (int64_t j = 0; j < columns; ++j, sums += kLanes) {
      Store(sums, Load(sums) + left * Load(b + j * kLanes));
    }
  }
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BLOCK_LANE_VECTORS_H_
