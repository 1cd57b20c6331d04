// Projects a few rows of an image to queries, keys or values of a strip,
// channels last.

#ifndef KERAS_SASA_KERNELS_WINDOW_PROJECTION_H_
#define KERAS_SASA_KERNELS_WINDOW_PROJECTION_H_

#include <cstdint>
#include <cstring>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/bfloat16.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/squares.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/attention.h"
#include "keras_sasa/kernels/window/layout.h"
#include "keras_sasa/kernels/window/pixel_products.h"
#include "keras_sasa/kernels/window/typed_maps.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Pixels that are projected at a time, at least, in whole rows: every product
// reads the matrix from the second cache, or from a slower one.
constexpr int64_t kProjectedPixels = 96;

// Pixels of the image that are projected at a time. In numbers: from the start
// of the image to the first one, and from one row or column to the next.
struct ImagePixels {
  int64_t first, rows, row_stride, columns, column_stride;

  bool operator==(const ImagePixels& other) const {
    return first == other.first && rows == other.rows &&
           row_stride == other.row_stride && columns == other.columns &&
           column_stride == other.column_stride;
  }
};

// The memory of a task.
struct ProjectionMemory {
  float* data = nullptr;  // What is projected; then perhaps a copy of pixels.
  ImagePixels copied{};   // The pixels of which there is a copy.
};

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

  // Floats of a projected pixel, and of the memory of a task: all pixels that
  // are projected at a time, with the padding that packing reads, and a copy of
  // those of an image that is not in float.
  int64_t columns() const { return columns_; }
  int64_t size() const {
    return copy_offset() + (copies() ? pixels() * projection_.channels : 0);
  }

  // Projects the pixels under `rows` rows of queries of a strip. `image_row`,
  // the first row of the image among them, counts the rows of all images.
  void ProjectQueries(int64_t image_row, int64_t rows, int64_t group,
                      ProjectionMemory* memory) const {
    const WindowAxis& axis = layout_.columns;
    Project(kQueryMap,
            {Pixel(image_row, axis.first_query), rows,
             layout_.rows.stride * row_stride(), axis.queries,
             axis.stride * projection_.image.pixel_stride},
            group, memory);
    if (projection_.query_bias == nullptr) return;
    const int64_t used = layout_.heads * layout_.width;
    const float* bias = projection_.query_bias + group * used;
    float* output = memory->data;
    for (int64_t pixel = 0; pixel < rows * axis.queries; ++pixel) {
      for (int64_t i = 0; i < used; ++i) output[i] += bias[i];
      output += columns_;
    }
  }

  // The same for all pixels of `rows` rows, to keys or values.
  void ProjectKeys(ProjectedMap map, int64_t image_row, int64_t rows,
                   int64_t group, ProjectionMemory* memory) const {
    Project(map,
            {Pixel(image_row, 0), rows, row_stride(), layout_.columns.keys,
             projection_.image.pixel_stride},
            group, memory);
  }

 private:
  static int64_t RowsAtATime(int64_t rows, int64_t columns) {
    return Min(Max(kQueryRows, CeilDiv(kProjectedPixels, Max(1, columns))),
               rows);
  }

  // The most pixels that are projected at a time.
  int64_t pixels() const {
    return Max(query_rows_ * layout_.columns.queries,
               key_rows_ * layout_.columns.keys);
  }

  // Whether products read a copy of the pixels.
  bool copies() const {
    return projection_.image.type != ElementType::kFloat32;
  }
  int64_t copy_offset() const {
    return RoundUp(columns_ * pixels() + kSide, kCacheLineFloats);
  }

  // In numbers: from one row of a strip to the next,
  int64_t row_stride() const {
    return layout_.rows.dilation * layout_.columns.keys *
           projection_.image.pixel_stride;
  }
  // and from the start of the image to a pixel.
  int64_t Pixel(int64_t image_row, int64_t column) const {
    return (image_row * layout_.columns.keys + column) *
           projection_.image.pixel_stride;
  }

  void Project(ProjectedMap map, const ImagePixels& pixels, int64_t group,
               ProjectionMemory* memory) const {
    PixelProducts p{};
    int64_t row_stride = pixels.row_stride;
    if (copies()) {
      float* const copy = memory->data + copy_offset();
      // Keys and values have the same ones.
      if (!(memory->copied == pixels)) CopyPixels(pixels, copy);
      memory->copied = pixels;
      p.pixels = copy;
      p.pixel_stride = projection_.channels;
      row_stride = pixels.columns * projection_.channels;
    } else {
      p.pixels =
          static_cast<const float*>(projection_.image.data) + pixels.first;
      p.pixel_stride = pixels.column_stride;
    }
    p.count = pixels.columns;
    p.channels = projection_.channels;
    p.matrix = matrices_[map] + group * group_stride_;
    p.matrix_stride = matrix_stride_;
    p.columns = columns_;
    p.output = memory->data;
    p.output_stride = columns_;
    int64_t rows = pixels.rows;
    // Rows without a gap between them are one row.
    if (row_stride == pixels.columns * p.pixel_stride) {
      p.count *= rows;
      rows = 1;
    }
    for (int64_t row = 0; row < rows; ++row) {
      ComputePixelProducts(p);
      p.pixels += row_stride;
      p.output += pixels.columns * columns_;
    }
  }

  // Copies pixels as floats: the conversion is cheaper than in every product.
  void CopyPixels(const ImagePixels& pixels, float* copy) const {
    const int64_t channels = projection_.channels;
    WithNumbers(projection_.image, [&](const auto* image) {
      for (int64_t row = 0; row < pixels.rows; ++row) {
        const auto* pixel = image + pixels.first + row * pixels.row_stride;
        for (int64_t column = 0; column < pixels.columns; ++column) {
          int64_t channel = 0;
          for (; channel + kLanes <= channels; channel += kLanes) {
            Store(copy + channel, Load(pixel + channel));
          }
          for (; channel < channels; ++channel) {
            copy[channel] = LoadNumber(pixel + channel);
          }
          pixel += pixels.column_stride;
          copy += channels;
        }
      }
    });
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
