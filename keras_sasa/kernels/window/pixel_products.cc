#include "keras_sasa/kernels/window/pixel_products.h"

#include "keras_sasa/kernels/base/vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {
namespace {

// Computes the first `columns` of the `panel_columns` columns of a matrix.
template <int vectors, int columns>
KERAS_SASA_NOINLINE void PixelProductTile(int64_t output_column_stride,
                                          int64_t channels, bool add,
                                          const float* pixels,
                                          const float* matrix,
                                          int64_t panel_columns,
                                          float* output) {
  Vector sums[columns][vectors] = {};
  if (add) {
    KERAS_SASA_UNROLL
    for (int i = 0; i < columns; ++i) {
      KERAS_SASA_UNROLL
      for (int v = 0; v < vectors; ++v) {
        sums[i][v] = Load(output + i * output_column_stride + v * kLanes);
      }
    }
  }
  for (; channels > 0; --channels) {
    Vector left[vectors];
    KERAS_SASA_UNROLL
    for (int v = 0; v < vectors; ++v) left[v] = Load(pixels + v * kLanes);
    KERAS_SASA_UNROLL
    for (int i = 0; i < columns; ++i) {
      const Vector right = Broadcast(matrix[i]);
      KERAS_SASA_UNROLL
      for (int v = 0; v < vectors; ++v) sums[i][v] += right * left[v];
    }
    pixels += kPanelVectors * kLanes;
    matrix += panel_columns;
  }
  KERAS_SASA_UNROLL
  for (int i = 0; i < columns; ++i) {
    KERAS_SASA_UNROLL
    for (int v = 0; v < vectors; ++v) {
      Store(output + i * output_column_stride + v * kLanes, sums[i][v]);
    }
  }
}

template <int vectors, int columns>
void ComputeTiles(const PixelProducts& p) {
  for (int64_t first = 0; first < p.columns; first += columns) {
    PixelProductTile<vectors, columns>(
        p.output_column_stride, p.channels, p.add, p.pixels, p.matrix + first,
        p.columns, p.output + first * p.output_column_stride);
  }
}

template <int vectors>
void ComputePanel(const PixelProducts& p) {
  constexpr int kMost = kColumnUnit * kPanelVectors / vectors;
  // The last panel of a matrix may have only one or two units.
  if (p.columns % kMost == 0) return ComputeTiles<vectors, kMost>(p);
  ComputeTiles<vectors, kColumnUnit>(p);
}

}  // namespace

void ComputePixelProducts(const PixelProducts& p, int64_t vectors) {
  static_assert(kPanelVectors == 3);
  if (vectors == 3) ComputePanel<3>(p);
  if (vectors == 2) ComputePanel<2>(p);
  if (vectors == 1) ComputePanel<1>(p);
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa
