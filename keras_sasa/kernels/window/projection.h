// Projects a few rows of an image to queries, keys or values of a strip,
// channels last.

#ifndef KERAS_SASA_KERNELS_WINDOW_PROJECTION_H_
#define KERAS_SASA_KERNELS_WINDOW_PROJECTION_H_

#include <cstdint>
#include <cstring>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/squares.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/attention.h"
#include "keras_sasa/kernels/window/layout.h"
#include "keras_sasa/kernels/window/pixel_products.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Pixels that are projected at a time, at least, in whole rows: every product
// reads the matrix from the second cache, or from a slower one.
constexpr int64_t kProjectedPixels = 96;

enum ProjectedMap { kQueryMap, kKeyMap, kValueMap, kProjectedMaps };

class Projector {
 public:
  Projector(const Layout& layout, const WindowInputs& inputs)
      : layout_(layout), projection_(inputs.projection) {
    if (!inputs.projected()) return;
    const int64_t used = layout.heads * layout.width;
    columns_ = RoundUp(used, kLanes);
    query_rows_ = RoundUp(
        RowsAtATime(layout.rows.queries, layout.columns.queries), kQueryRows);
    key_rows_ = RowsAtATime(layout.rows.keys, layout.columns.keys);
    const float* kernels[kProjectedMaps] = {projection_.query_kernel,
                                            projection_.key_kernel,
                                            projection_.value_kernel};
    if (columns_ == used) {
      matrix_stride_ = layout.all_heads * layout.width;
      group_stride_ = used;
      for (int map = 0; map < kProjectedMaps; ++map)
        matrices_[map] = kernels[map];
    } else {
      PadMatrices(kernels);
    }
  }

  // Rows that are projected at a time; those of queries are a multiple of
  // kQueryRows.
  int64_t query_rows() const { return query_rows_; }
  int64_t key_rows() const { return key_rows_; }

  // Floats of a projected pixel, and of all that are projected at a time, with
  // the padding that packing reads.
  int64_t columns() const { return columns_; }
  int64_t size() const {
    return columns_ * Max(query_rows_ * layout_.columns.queries,
                          key_rows_ * layout_.columns.keys) +
           kSide;
  }

  // Projects the pixels under `rows` rows of queries of a strip. `image_row`,
  // the first row of the image among them, counts the rows of all images.
  void ProjectQueries(int64_t image_row, int64_t rows, int64_t group,
                      float* output) const {
    const WindowAxis& axis = layout_.columns;
    Project(kQueryMap, Pixel(image_row, axis.first_query), rows,
            layout_.rows.stride, axis.queries, axis.stride, group, output);
  }

  // The same for all pixels of `rows` rows, to keys or values.
  void ProjectKeys(ProjectedMap map, int64_t image_row, int64_t rows,
                   int64_t group, float* output) const {
    Project(map, Pixel(image_row, 0), rows, 1, layout_.columns.keys, 1, group,
            output);
  }

 private:
  static int64_t RowsAtATime(int64_t rows, int64_t columns) {
    return Min(Max(kQueryRows, CeilDiv(kProjectedPixels, Max(1, columns))),
               rows);
  }

  const float* Pixel(int64_t image_row, int64_t column) const {
    return projection_.image.data +
           (image_row * layout_.columns.keys + column) *
               projection_.image.pixel_stride;
  }

  // `row_stride`: rows of the strip from one of the rows to the next.
  void Project(ProjectedMap map, const float* pixels, int64_t rows,
               int64_t row_stride, int64_t columns, int64_t column_stride,
               int64_t group, float* output) const {
    const int64_t pixel_stride = projection_.image.pixel_stride;
    const int64_t image_row_stride = row_stride * layout_.rows.dilation *
                                     layout_.columns.keys * pixel_stride;
    PixelProducts p{};
    p.pixels = pixels;
    p.pixel_stride = column_stride * pixel_stride;
    p.count = columns;
    p.channels = projection_.channels;
    p.matrix = matrices_[map] + group * group_stride_;
    p.matrix_stride = matrix_stride_;
    p.columns = columns_;
    p.output = output;
    p.output_stride = columns_;
    // Rows without a gap between them are one row.
    if (image_row_stride == columns * p.pixel_stride) {
      p.count *= rows;
      rows = 1;
    }
    for (int64_t row = 0; row < rows; ++row) {
      ComputePixelProducts(p);
      p.pixels += image_row_stride;
      p.output += columns * columns_;
    }
  }

  // Copies the part of every group, because products read whole vectors of
  // columns.
  void PadMatrices(const float* const (&kernels)[kProjectedMaps]) {
    const int64_t used = layout_.heads * layout_.width;
    matrix_stride_ = columns_;
    group_stride_ = projection_.channels * columns_;
    const int64_t size = layout_.groups * group_stride_;
    float* to = padded_.ReserveZeros(kProjectedMaps * size);
    for (int map = 0; map < kProjectedMaps; ++map) {
      matrices_[map] = to;
      for (int64_t group = 0; group < layout_.groups; ++group) {
        if (kernels[map] == nullptr) continue;
        const float* from = kernels[map] + group * used;
        for (int64_t channel = 0; channel < projection_.channels; ++channel) {
          std::memcpy(to + (group * projection_.channels + channel) * columns_,
                      from + channel * layout_.all_heads * layout_.width,
                      used * sizeof(float));
        }
      }
      to += size;
    }
  }

  const Layout& layout_;
  const Projection projection_;
  int64_t columns_ = 0;
  int64_t query_rows_ = 0, key_rows_ = 0;
  // In floats: from one row of a matrix to the next, and from the columns of a
  // group of heads to those of the next.
  int64_t matrix_stride_ = 0, group_stride_ = 0;
  const float* matrices_[kProjectedMaps] = {};
  AlignedArray<float> padded_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_PROJECTION_H_
