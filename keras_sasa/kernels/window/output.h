// Writes the output of a strip to its map, perhaps after the steps that follow
// attention in a network: averages of 2 x 2 pixels, scale, offset and ReLU.

#ifndef KERAS_SASA_KERNELS_WINDOW_OUTPUT_H_
#define KERAS_SASA_KERNELS_WINDOW_OUTPUT_H_

#include <cstdint>

#include "keras_sasa/kernels/base/bfloat16.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/squares.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/attention.h"
#include "keras_sasa/kernels/window/layout.h"
#include "keras_sasa/kernels/window/packing.h"
#include "keras_sasa/kernels/window/strip.h"
#include "keras_sasa/kernels/window/typed_maps.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

class OutputWriter {
 public:
  OutputWriter(const Layout& layout, const WindowOutputs& outputs)
      : layout_(layout),
        map_(outputs.output),
        epilogue_(outputs.epilogue),
        packing_(Packing::OfQueries(layout, outputs.output.pixel_stride)) {}

  // Floats of the scratch memory `sums`: two rows of averages, because three
  // rows of queries are computed at a time. None without averages.
  int64_t sums_size() const { return epilogue_.average ? 2 * row_size() : 0; }

  // Prefetches what `Write` will write.
  void Prefetch(const Strip& strip, int64_t row, int64_t vector) const {
    if (epilogue_.average) return;
    packing_.PrefetchUnpack(vector, 0, map_, strip.QueryImageRow(row),
                            strip.first_head);
  }

  // Writes one vector of queries of row `row` of the strip; `planes` has a
  // vector a channel.
  void Write(const float* planes, const Strip& strip, int64_t row,
             int64_t vector, float* sums) const {
    if (epilogue_.average) return Add(planes, row, vector, sums);
    packing_.Unpack(planes, vector, 0, map_, strip.QueryImageRow(row),
                    strip.first_head, epilogue_);
  }

  // Called after all vectors of a row have been written.
  void FinishRow(const Strip& strip, int64_t row, const float* sums) const {
    const bool last = row + 1 == strip.queries;
    if (!epilogue_.average || (row % 2 == 0 && !last)) return;
    WithNumbers(
        map_, [&](auto* numbers) { WriteAverages(numbers, strip, row, sums); });
  }

 private:
  // `WriteAverages` reads whole squares, which may end behind the last lane.
  int64_t plane_stride() const { return layout_.lanes + kSide; }

  int64_t row_size() const { return layout_.width * plane_stride(); }

  // Where two rows are added up.
  int64_t SumsOfRow(int64_t row) const { return row / 2 % 2 * row_size(); }

  void Add(const float* planes, int64_t row, int64_t vector,
           float* sums) const {
    sums += SumsOfRow(row) + vector * kLanes;
    for (int64_t channel = 0; channel < layout_.width; ++channel) {
      Vector numbers = Load(planes + channel * kLanes);
      if (row % 2 == 1) numbers += Load(sums);
      Store(sums, numbers);
      sums += plane_stride();
    }
  }

  template <typename Number>
  KERAS_SASA_NOINLINE void WriteAverages(Number* map, const Strip& strip,
                                         int64_t row, const float* sums) const {
    const int64_t width = layout_.width;
    const int64_t queries = layout_.columns.queries;
    const int64_t columns = CeilDiv(queries, 2);
    const int64_t rows = CeilDiv(layout_.rows.queries, 2);
    Number* const row_start =
        map + (strip.image * rows + row / 2) * columns * map_.pixel_stride;
    sums += SumsOfRow(row);
    // One of two rows or the only one.
    const float of_one = row % 2 == 1 ? 0.5f : 1.0f;
    for (int64_t head = 0; head < layout_.heads; ++head) {
      const int64_t first = (strip.first_head + head) * width;
      for (int64_t column = 0; column < queries; column += kSide) {
        const float* from = sums + head * layout_.head_stride + column;
        Number* to = row_start + column / 2 * map_.pixel_stride + first;
        int64_t channel = 0;
        for (; channel + kSide <= width; channel += kSide) {
          Side square[kSide];
          KERAS_SASA_UNROLL
          for (int64_t i = 0; i < kSide; ++i) {
            square[i] = LoadSide(from + (channel + i) * plane_stride());
          }
          Transpose(square);
          const EpilogueSteps<Side> steps(epilogue_, first + channel);
          KERAS_SASA_UNROLL
          for (int64_t i = 0; i < kSide; i += 2) {
            if (column + i >= queries) break;
            const bool alone = column + i + 1 == queries;
            const Side average =
                alone ? square[i] * of_one
                      : (square[i] + square[i + 1]) * (0.5f * of_one);
            StoreSide(to + i / 2 * map_.pixel_stride + channel,
                      steps.Apply(average));
          }
        }
        for (; channel < width; ++channel) {
          const float* plane = from + channel * plane_stride();
          const EpilogueSteps<float> steps(epilogue_, first + channel);
          for (int64_t i = 0; i < kSide && column + i < queries; i += 2) {
            const bool alone = column + i + 1 == queries;
            const float average =
                alone ? plane[i] * of_one
                      : (plane[i] + plane[i + 1]) * (0.5f * of_one);
            StoreNumber(to + i / 2 * map_.pixel_stride + channel,
                        steps.Apply(average));
          }
        }
      }
    }
  }

  const Layout& layout_;
  const Map<void> map_;
  const WindowEpilogue epilogue_;
  const Packing packing_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_OUTPUT_H_
