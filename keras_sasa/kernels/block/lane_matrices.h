// Products of matrices whose elements are vectors, lane by lane.

#ifndef KERAS_SASA_KERNELS_BLOCK_LANE_MATRICES_H_
#define KERAS_SASA_KERNELS_BLOCK_LANE_MATRICES_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Rows and columns of a tile, whose accumulators and operands fill the
// registers.
constexpr int kTileRows = 4;
#if defined(__AVX512VL__) || defined(__aarch64__)
constexpr int kTileColumns = 4;
#else
constexpr int kTileColumns = 2;
#endif

// Strides are in floats.
template <typename Float>
struct LaneMatrix {
  Float* data;
  int64_t row_stride, column_stride;

  Float* At(int64_t i, int64_t j) const {
    return data + i * row_stride + j * column_stride;
  }
  LaneMatrix Transposed() const { return {data, column_stride, row_stride}; }
  operator LaneMatrix<const float>() const {
    return {data, row_stride, column_stride};
  }
};

template <int rows, int columns>
KERAS_SASA_NOINLINE void LaneProductTile(const float* a, int64_t a_row_stride,
                                         int64_t a_column_stride,
                                         const float* b, int64_t b_row_stride,
                                         int64_t b_column_stride, int64_t depth,
                                         float* c, int64_t c_row_stride,
                                         int64_t c_column_stride, bool add) {
  Vector sums[rows][columns];
  KERAS_SASA_UNROLL
  for (int i = 0; i < rows; ++i) {
    KERAS_SASA_UNROLL
    for (int j = 0; j < columns; ++j) {
      sums[i][j] =
          add ? Load(c + i * c_row_stride + j * c_column_stride) : Vector{};
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vector left[rows];
    KERAS_SASA_UNROLL
    for (int i = 0; i < rows; ++i) left[i] = Load(a + i * a_row_stride);
    KERAS_SASA_UNROLL
    for (int j = 0; j < columns; ++j) {
      const Vector right = Load(b + j * b_column_stride);
      KERAS_SASA_UNROLL
      for (int i = 0; i < rows; ++i) sums[i][j] += left[i] * right;
    }
    a += a_column_stride;
    b += b_row_stride;
  }
  KERAS_SASA_UNROLL
  for (int i = 0; i < rows; ++i) {
    KERAS_SASA_UNROLL
    for (int j = 0; j < columns; ++j) {
      Store(c + i * c_row_stride + j * c_column_stride, sums[i][j]);
    }
  }
}

template <int rows>
void MultiplyLaneRows(LaneMatrix<const float> a, LaneMatrix<const float> b,
                      int64_t i, int64_t columns, int64_t depth,
                      LaneMatrix<float> c, bool add) {
  int64_t j = 0;
  for (; j + kTileColumns <= columns; j += kTileColumns) {
    LaneProductTile<rows, kTileColumns>(
        a.At(i, 0), a.row_stride, a.column_stride, b.At(0, j), b.row_stride,
        b.column_stride, depth, c.At(i, j), c.row_stride, c.column_stride, add);
  }
  for (; j < columns; ++j) {
    LaneProductTile<rows, 1>(a.At(i, 0), a.row_stride, a.column_stride,
                             b.At(0, j), b.row_stride, b.column_stride, depth,
                             c.At(i, j), c.row_stride, c.column_stride, add);
  }
}

// c = a b, or c += a b if `add`: `c` is (rows, columns), `a` (rows, depth).
inline void MultiplyLanes(LaneMatrix<const float> a, LaneMatrix<const float> b,
                          int64_t rows, int64_t columns, int64_t depth,
                          LaneMatrix<float> c, bool add = false) {
  int64_t i = 0;
  for (; i + kTileRows <= rows; i += kTileRows) {
    MultiplyLaneRows<kTileRows>(a, b, i, columns, depth, c, add);
  }
  for (; i < rows; ++i) MultiplyLaneRows<1>(a, b, i, columns, depth, c, add);
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BLOCK_LANE_MATRICES_H_
