// Rows of an image, from channels last to the planes of a strip and back.

#ifndef KERAS_SASA_KERNELS_WINDOW_PACKING_H_
#define KERAS_SASA_KERNELS_WINDOW_PACKING_H_

#include <cstdint>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/bfloat16.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/squares.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/attention.h"
#include "keras_sasa/kernels/window/epilogue.h"
#include "keras_sasa/kernels/window/layout.h"
#include "keras_sasa/kernels/window/typed_maps.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

class Packing {
 public:
  // `rows_ahead`: how far below a row that is packed lies the row to prefetch,
  // which is packed some time later; 0 for none.
  // `padded`: kSide numbers behind the last pixel may be read.
  Packing(const Layout& layout, int64_t columns, int64_t phases,
          int64_t pixel_stride, int64_t rows_ahead, bool padded)
      : layout_(layout),
        columns_(columns),
        phases_(phases),
        pixel_stride_(pixel_stride),
        ahead_(rows_ahead * columns * pixel_stride),
        padded_(padded) {
    int64_t* offsets = offsets_.Reserve(phases * layout.lanes);
    for (int64_t phase = 0; phase < phases; ++phase) {
      for (int64_t lane = 0; lane < layout.lanes; ++lane) {
        const int64_t column = layout.lane_column[lane] * phases + phase;
        const int64_t head = layout.lane_head[lane];
        offsets[phase * layout.lanes + lane] =
            head < 0 || column >= columns
                ? -1
                : column * pixel_stride + head * layout.width;
      }
    }
  }

  // `projected`: rows are packed from the caches, where they were just
  // computed, and not from memory.
  static Packing OfQueries(const Layout& layout, int64_t pixel_stride,
                           bool projected = false) {
    return Packing(layout, layout.columns.queries, 1, pixel_stride,
                   projected ? 0 : kQueryRows * layout.rows.dilation,
                   projected);
  }
  static Packing OfKeys(const Layout& layout, int64_t pixel_stride,
                        bool projected = false) {
    const int64_t rows = kQueryRows * layout.rows.stride * layout.rows.dilation;
    return Packing(layout, layout.columns.keys, layout.column_phases,
                   pixel_stride, projected ? 0 : rows, projected);
  }

  // Multiplies a row by `factor` and packs it. `image_row` counts the rows of
  // all images; `strip_row` points to lane 0. Returns whether all numbers are
  // finite.
  bool Pack(const Map<const void>& map, int64_t image_row, int64_t first_head,
            float factor, float* strip_row) const {
    return WithNumbers(map, [&](const auto* numbers) {
      return PackNumbers(numbers, image_row, first_head, factor, strip_row);
    });
  }

  // Prefetches the pixels that `Unpack` will write, so that its stores do not
  // wait.
  void PrefetchUnpack(int64_t vector, int64_t phase, const Map<void>& map,
                      int64_t image_row, int64_t first_head) const {
    const int64_t* offsets =
        offsets_.data() + phase * layout_.lanes + vector * kLanes;
    WithNumbers(map, [&](const auto* numbers) {
      constexpr int64_t kLine = kCacheLineBytes / sizeof(*numbers);
      const auto* row_start = numbers + image_row * columns_ * pixel_stride_ +
                              first_head * layout_.width;
      for (int64_t i = 0; i < kLanes; ++i) {
        if (offsets[i] < 0) continue;
        for (int64_t channel = 0; channel < layout_.width; channel += kLine) {
          __builtin_prefetch(row_start + offsets[i] + channel, 1, 3);
        }
      }
    });
  }

  // Writes one vector of lanes to its pixels; `planes` has a vector a channel.
  void Unpack(const float* planes, int64_t vector, int64_t phase,
              const Map<void>& map, int64_t image_row, int64_t first_head,
              const WindowEpilogue& epilogue = {}) const {
    WithNumbers(map, [&](auto* numbers) {
      if (epilogue.scale == nullptr) {
        UnpackVector<false>(planes, vector, phase, numbers, image_row,
                            first_head, epilogue);
      } else {
        UnpackVector<true>(planes, vector, phase, numbers, image_row,
                           first_head, epilogue);
      }
    });
  }

 private:
  template <typename Number>
  KERAS_SASA_NOINLINE bool PackNumbers(const Number* map, int64_t image_row,
                                       int64_t first_head, float factor,
                                       float* strip_row) const {
    // Copies, because the compiler must assume that stores change the members.
    const int64_t width = layout_.width;
    const int64_t channel_stride = phases_ * layout_.plane_stride;
    const int64_t column_stride = phases_ * pixel_stride_;
    const int64_t ahead = ahead_;
    const int64_t heads = layout_.heads;
    const int64_t head_stride = layout_.head_stride;
    // 0 * x is 0 for finite numbers and NaN for the others.
    Side finite[2] = {};
    for (int64_t phase = 0; phase < phases_; ++phase) {
      const int64_t columns = CeilDiv(columns_ - phase, phases_);
      const Number* from = map +
                           (image_row * columns_ + phase) * pixel_stride_ +
                           first_head * width;
      // From the last column and the first head on: the last square of a head
      // may overwrite the first columns of the next head, which are written
      // later. What it writes behind the last head is finite and never used.
      for (int64_t column = FloorDiv(columns - 1, kSide) * kSide; column >= 0;
           column -= kSide) {
        const Number* pixels[kSide];
        const int64_t last = Min(kSide, columns - column) - 1;
        KERAS_SASA_UNROLL
        for (int64_t i = 0; i < kSide; ++i) {
          pixels[i] = from + (column + Min(i, last)) * column_stride;
        }
        float* head_planes = strip_row + phase * layout_.plane_stride + column;
        for (int64_t head = 0; head < heads; ++head) {
          float* planes = head_planes;
          int64_t channel = 0;
          for (; channel + kSide <= width; channel += kSide) {
            Side square[kSide];
            KERAS_SASA_UNROLL
            for (int64_t i = 0; i < kSide; ++i) {
              square[i] = LoadSide(pixels[i] + channel);
              finite[i % 2] += square[i] * 0.0f;
              square[i] *= factor;
            }
            if (ahead != 0) {
              for (int64_t i = 0; i < kSide; ++i) {
                __builtin_prefetch(pixels[i] + channel + ahead, 0, 2);
              }
            }
            Transpose(square);
            KERAS_SASA_UNROLL
            for (int64_t i = 0; i < kSide; ++i) {
              StoreSide(planes, square[i]);
              planes += channel_stride;
            }
          }
          if (channel < width && padded_) {
            Side square[kSide];
            KERAS_SASA_UNROLL
            for (int64_t i = 0; i < kSide; ++i) {
              square[i] = LoadSide(pixels[i] + channel);
            }
            Transpose(square);
            for (int64_t i = 0; channel < width; ++i, ++channel) {
              finite[i % 2] += square[i] * 0.0f;
              StoreSide(planes, square[i] * factor);
              planes += channel_stride;
            }
          }
          for (; channel < width; ++channel) {
            for (int64_t i = 0; i < kSide; ++i) {
              const float number = LoadNumber(pixels[i] + channel);
              finite[0][i] += number * 0.0f;
              planes[i] = number * factor;
            }
            planes += channel_stride;
          }
          KERAS_SASA_UNROLL
          for (int64_t i = 0; i < kSide; ++i) pixels[i] += width;
          head_planes += head_stride;
        }
      }
    }
    float sum = 0;
    for (int i = 0; i < kSide; ++i) sum += finite[0][i] + finite[1][i];
    return sum == 0;
  }

  template <bool finish, typename Number>
  KERAS_SASA_NOINLINE void UnpackVector(const float* planes, int64_t vector,
                                        int64_t phase, Number* map,
                                        int64_t image_row, int64_t first_head,
                                        const WindowEpilogue& epilogue) const {
    const int64_t width = layout_.width;
    const int64_t column_stride = phases_ * pixel_stride_;
    Number* row_start =
        map + image_row * columns_ * pixel_stride_ + first_head * width;
    for (int64_t first = 0; first < kLanes; first += kSide) {
      const int64_t lane = vector * kLanes + first;
      const int64_t* offsets = offsets_.data() + phase * layout_.lanes + lane;
      const int64_t* heads = layout_.lane_head.data() + lane;
      // Whether the lanes are adjacent pixels of a head. There is no need to
      // test each of them then.
      const bool whole =
          offsets[0] >= 0 &&
          offsets[kSide - 1] == offsets[0] + (kSide - 1) * column_stride;
      int64_t channel = 0;
      for (; channel + kSide <= width; channel += kSide) {
        Side square[kSide];
        KERAS_SASA_UNROLL
        for (int64_t i = 0; i < kSide; ++i) {
          square[i] = LoadSide(planes + (channel + i) * kLanes + first);
        }
        Transpose(square);
        if (whole) {
          if constexpr (finish) {
            const EpilogueSteps<Side> steps(
                epilogue, (first_head + heads[0]) * width + channel);
            KERAS_SASA_UNROLL
            for (int64_t i = 0; i < kSide; ++i) {
              square[i] = steps.Apply(square[i]);
            }
          }
          Number* to = row_start + offsets[0] + channel;
          KERAS_SASA_UNROLL
          for (int64_t i = 0; i < kSide; ++i) {
            StoreSide(to, square[i]);
            to += column_stride;
          }
          continue;
        }
        KERAS_SASA_UNROLL
        for (int64_t i = 0; i < kSide; ++i) {
          if (offsets[i] < 0) continue;
          if constexpr (finish) {
            const EpilogueSteps<Side> steps(
                epilogue, (first_head + heads[i]) * width + channel);
            square[i] = steps.Apply(square[i]);
          }
          StoreSide(row_start + offsets[i] + channel, square[i]);
        }
      }
      for (; channel < width; ++channel) {
        for (int64_t i = 0; i < kSide; ++i) {
          if (offsets[i] < 0) continue;
          float number = planes[channel * kLanes + first + i];
          if constexpr (finish) {
            const EpilogueSteps<float> steps(
                epilogue, (first_head + heads[i]) * width + channel);
            number = steps.Apply(number);
          }
          StoreNumber(row_start + offsets[i] + channel, number);
        }
      }
    }
  }

  const Layout& layout_;
  const int64_t columns_, phases_, pixel_stride_, ahead_;
  const bool padded_;
  // Numbers from the row to the pixel of a lane, [phase][lane]; -1 for none.
  AlignedArray<int64_t> offsets_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_PACKING_H_
