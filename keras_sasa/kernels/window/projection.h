// Projects a few rows of an image to planes of queries, keys or values.

#ifndef KERAS_SASA_KERNELS_WINDOW_PROJECTION_H_
#define KERAS_SASA_KERNELS_WINDOW_PROJECTION_H_

#include <cstdint>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/exponentials.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/squares.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/attention.h"
#include "keras_sasa/kernels/window/layout.h"
#include "keras_sasa/kernels/window/pixel_products.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Pixels that are projected at a time, at least, in whole rows.
constexpr int64_t kProjectedPixels = 48;
// Channels of the image that are multiplied at a time, so that a panel of
// pixels fits into the first cache.
constexpr int64_t kProjectedChannels = 256;

enum ProjectedMap { kQueryMap, kKeyMap, kValueMap, kProjectedMaps };

class Projector {
 public:
  Projector(const Layout& layout, const WindowInputs& inputs)
      : layout_(layout), projection_(inputs.projection) {
    if (!inputs.projected()) return;
    const int64_t columns = layout.columns.keys;
    rows_ = Min(Max(kQueryRows, CeilDiv(kProjectedPixels, columns)),
                layout.rows.keys);
    lanes_ = PanelCount(rows_) * kPanelVectors * kLanes;
    columns_ = RoundUp(layout.heads * layout.width, kColumnUnit);
    PackMatrices();
  }

  // Rows that are projected at a time.
  int64_t rows() const { return rows_; }

  // Floats of the scratch memory for panels of pixels and for planes.
  int64_t panels_size() const { return projection_.channels * lanes_; }
  int64_t planes_size() const { return columns_ * lanes_ + kLanes; }

  // Packs `count` rows of the image; `image_rows` are their numbers among the
  // rows of all images.
  KERAS_SASA_NOINLINE void PackPixels(const int64_t* image_rows, int64_t count,
                                      float* panels) const {
    const int64_t channels = projection_.channels;
    const int64_t columns = layout_.columns.keys;
    const int64_t pixel_stride = projection_.image.pixel_stride;
    const int64_t pixel_count = count * columns;
    const int64_t ahead =
        count * layout_.rows.dilation * columns * pixel_stride;
    int64_t row = 0, column = 0, panel = 0;
    for (int64_t lane = 0; lane < RoundUp(pixel_count, kLanes); lane += kSide) {
      const float* pixels[kSide];
      for (int64_t i = 0; i < kSide; ++i) {
        pixels[i] = projection_.image.data +
                    (image_rows[row] * columns + column) * pixel_stride;
        // Lanes behind the last pixel repeat it.
        if (lane + i + 1 < pixel_count && ++column == columns) {
          column = 0;
          ++row;
        }
      }
      if (lane == PanelStart(panel + 1, count)) ++panel;
      constexpr int64_t kChannelStride = kPanelVectors * kLanes;
      float* to = panels + panel * kChannelStride * channels + lane -
                  PanelStart(panel, count);
      int64_t channel = 0;
      for (; channel + kSide <= channels; channel += kSide) {
        Side square[kSide];
        KERAS_SASA_UNROLL
        for (int64_t i = 0; i < kSide; ++i) {
          const float* pixel = pixels[i] + channel;
          square[i] = LoadSide(pixel);
          // The rows that come next.
          __builtin_prefetch(pixel + ahead, 0, 2);
        }
        Transpose(square);
        KERAS_SASA_UNROLL
        for (int64_t i = 0; i < kSide; ++i) {
          StoreSide(to, square[i]);
          to += kChannelStride;
        }
      }
      for (; channel < channels; ++channel) {
        for (int64_t i = 0; i < kSide; ++i) to[i] = pixels[i][channel];
        to += kChannelStride;
      }
    }
  }

  // Multiplies the panels of `count` rows by one of the matrices.
  void Multiply(const float* panels, int64_t count, int map, int64_t group,
                float* planes) const {
    const float* matrix =
        matrices_.data() + (map * layout_.groups + group) * matrix_size();
    for (int64_t panel = 0; panel < PanelCount(count); ++panel) {
      const int64_t start = PanelStart(panel, count);
      const int64_t vectors = (PanelStart(panel + 1, count) - start) / kLanes;
      for (int64_t first = 0; first < projection_.channels;
           first += kProjectedChannels) {
        PixelProducts p{};
        p.pixels = panels + first * kPanelVectors * kLanes;
        p.channels = Min(kProjectedChannels, projection_.channels - first);
        p.output_column_stride = lanes_;
        p.add = first > 0;
        for (int64_t column = 0; column < columns_; column += kPanelColumns) {
          p.columns = Min(kPanelColumns, columns_ - column);
          p.matrix = matrix + column * projection_.channels + first * p.columns;
          p.output = planes + start + column * lanes_;
          ComputePixelProducts(p, vectors);
        }
      }
      panels += kPanelVectors * kLanes * projection_.channels;
    }
  }

  // Copies row `row` of the planes to where `Packing::Pack` would write it.
  // Returns whether all numbers are finite.
  KERAS_SASA_NOINLINE bool CopyRow(const float* planes, int64_t row,
                                   float* strip_row) const {
    const int64_t columns = layout_.columns.keys;
    Vector finite{};
    for (int64_t channel = 0; channel < layout_.width; ++channel) {
      // The next head overwrites what a head writes behind its columns.
      for (int64_t head = 0; head < layout_.heads; ++head) {
        const float* from =
            planes + (head * layout_.width + channel) * lanes_ + row * columns;
        float* to = strip_row + head * layout_.head_stride;
        for (int64_t column = 0; column < columns; column += kLanes) {
          const Vector numbers = Load(from + column);
          finite += numbers * 0.0f;
          Store(to + column, numbers);
        }
      }
      strip_row += layout_.plane_stride;
    }
    float sum = 0;
    for (int i = 0; i < kLanes; ++i) sum += finite[i];
    return sum == 0;
  }

 private:
  void PackMatrices() {
    const int64_t channels = projection_.channels;
    const int64_t filters = layout_.all_heads * layout_.width;
    const int64_t count = layout_.heads * layout_.width;
    const float* kernels[kProjectedMaps] = {projection_.query_kernel,
                                            projection_.key_kernel,
                                            projection_.value_kernel};
    float* to =
        matrices_.ReserveZeros(kProjectedMaps * layout_.groups * matrix_size());
    for (int map = 0; map < kProjectedMaps; ++map) {
      const float factor = map == kQueryMap ? kLog2E : 1.0f;
      for (int64_t group = 0; group < layout_.groups; ++group) {
        for (int64_t first = 0; first < count; first += kPanelColumns) {
          const int64_t used = Min(kPanelColumns, count - first);
          const int64_t width = Min(kPanelColumns, columns_ - first);
          if (kernels[map] == nullptr) continue;
          const float* from = kernels[map] + group * count + first;
          float* panel = to + first * channels;
          for (int64_t channel = 0; channel < channels; ++channel) {
            for (int64_t i = 0; i < used; ++i) panel[i] = from[i] * factor;
            from += filters;
            panel += width;
          }
        }
        to += matrix_size();
      }
    }
  }

  int64_t matrix_size() const { return columns_ * projection_.channels; }

  // Panels are of about the same size, as small ones are slow.
  int64_t PanelCount(int64_t rows) const {
    return CeilDiv(rows * layout_.columns.keys, kPanelVectors * kLanes);
  }
  // First lane of a panel.
  int64_t PanelStart(int64_t panel, int64_t rows) const {
    const int64_t vectors = CeilDiv(rows * layout_.columns.keys, kLanes);
    return panel * vectors / PanelCount(rows) * kLanes;
  }

  const Layout& layout_;
  const Projection projection_;
  int64_t rows_ = 0;
  int64_t lanes_ = 0;    // Of a plane.
  int64_t columns_ = 0;  // Of a matrix, with padding.
  // [map][group][panel][channel][column in the panel]
  AlignedArray<float> matrices_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_PROJECTION_H_
