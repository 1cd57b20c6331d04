// Gradients of keys and values: every key collects from the queries that see
// it.

#ifndef KERAS_SASA_KERNELS_WINDOW_KEY_GRADIENTS_H_
#define KERAS_SASA_KERNELS_WINDOW_KEY_GRADIENTS_H_

#include <cstdint>
#include <cstring>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/layout.h"
#include "keras_sasa/kernels/window/masks.h"
#include "keras_sasa/kernels/window/ring.h"
#include "keras_sasa/kernels/window/strip.h"
#include "keras_sasa/kernels/window/tile_sizes.h"
#include "keras_sasa/kernels/window/weighted_sums.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// The rows of keys of a strip, divided into bands of kQueryRows rows for each
// remainder of the stride. A band is finished as soon as all queries that see
// it are done.
class KeyBands {
 public:
  KeyBands(const Layout& layout, const Strip& strip)
      : layout_(layout), strip_(strip) {}

  int64_t rows() const { return kQueryRows * layout_.rows.stride; }
  int64_t count() const { return CeilDiv(strip_.keys, rows()); }

  // The first and the last row of queries that sees a band.
  int64_t FirstQuery(int64_t band) const {
    return Max(0, CeilDiv(band * rows() - strip_.key_of_first_query -
                              layout_.rows.kernel / 2,
                          layout_.rows.stride));
  }
  int64_t LastQuery(int64_t band) const {
    const int64_t key = Min((band + 1) * rows(), strip_.keys) - 1;
    return Min(strip_.queries - 1, FloorDiv(key - strip_.key_of_first_query +
                                                layout_.rows.kernel / 2,
                                            layout_.rows.stride));
  }

  // Rows of queries to keep: those that see unfinished bands and kQueryRows new
  // ones.
  int64_t QuerySlots() const {
    int64_t slots = kQueryRows;
    int64_t band = 0;
    for (int64_t row = 0; row < strip_.queries; row += kQueryRows) {
      while (band < count() && LastQuery(band) < row) ++band;
      if (band == count()) break;
      slots = Max(slots, row + kQueryRows - Min(row, FirstQuery(band)));
    }
    // So that kQueryRows rows of queries always lie one after the other.
    return RoundUp(slots, kQueryRows);
  }

 private:
  const Layout& layout_;
  const Strip& strip_;
};

// Rows of queries `begin` to `end`, which the same rows of a band see: `low` to
// `high`.
struct QuerySpan {
  int64_t low, high, begin, end;
};

// Computes gradients of the keys of one remainder in a band.
class KeyGradients {
 public:
  KeyGradients(const Layout& layout, const Masks& masks)
      : layout_(layout), masks_(masks) {}

  // Moves to the rows of keys first + i * stride for the `count` values of i
  // from 0 on, which are seen by queries from `first_query` to `last_query`.
  void MoveTo(const Strip& strip, int64_t first, int64_t count,
              int64_t first_query, int64_t last_query) {
    const int64_t stride = layout_.rows.stride;
    const int64_t kernel = layout_.rows.kernel;
    count_ = count;
    entry_ = first - strip.key_of_first_query + kernel / 2;
    QuerySpan* spans = spans_.Reserve(Max(1, last_query - first_query + 1));
    span_count_ = 0;
    for (int64_t query = first_query; query <= last_query; ++query) {
      const int64_t entry = entry_ - query * stride;
      const int64_t low = Max(0, CeilDiv(-entry, stride));
      const int64_t high = Min(count - 1, FloorDiv(kernel - 1 - entry, stride));
      if (low > high) continue;
      if (span_count_ > 0 && spans[span_count_ - 1].low == low &&
          spans[span_count_ - 1].high == high &&
          spans[span_count_ - 1].end == query) {
        ++spans[span_count_ - 1].end;
      } else {
        spans[span_count_++] = {low, high, query, query + 1};
      }
    }
  }

  // output[row][channel] = sum over queries and taps of weights * values, for
  // one vector of keys of a column phase. `masked`: numbers may be infinite or
  // NaN.
  void Compute(const Ring& weights, const Ring& values, int64_t phase,
               int64_t vector, bool masked, float* output) {
    const int64_t stride = layout_.rows.stride;
    const int64_t taps = layout_.columns.kernel;
    const int64_t plane_stride = layout_.plane_stride;
    const int64_t lane = vector * kLanes;
    std::memset(output, 0, count_ * layout_.width * kLanes * sizeof(float));
    WeightedSums s{};
    s.weight_row_stride = stride * taps * plane_stride;
    s.value_channel_stride = plane_stride;
    // From the key back to its queries.
    const TapGroup& group = layout_.phase_taps[phase];
    const int64_t shift =
        group.count > 0 ? layout_.tap_shift[group.first_tap] : 0;
    s.weight_tap_stride = group.tap_stride * plane_stride - group.key_stride;
    s.value_tap_stride = -group.key_stride;
    s.taps = group.count;
    s.mask_tap_stride = 1;
    s.output_row_stride = layout_.width * kLanes;
    s.masks = masked ? masks_.OfKeys(phase, vector) : nullptr;
    for (int64_t number = 0; number < span_count_; ++number) {
      const QuerySpan& span = spans_[number];
      const int64_t steps = span.end - span.begin;
      const float** pointers = pointers_.Reserve(2 * steps);
      for (int64_t i = 0; i < steps; ++i) {
        const int64_t query = span.begin + i;
        const int64_t entry = entry_ + (span.low - query) * stride;
        pointers[i] = weights.Row(query) +
                      (entry * taps + group.first_tap) * plane_stride + lane -
                      shift;
        pointers[steps + i] = values.Row(query) + lane - shift;
      }
      s.weights = pointers;
      s.values = pointers + steps;
      s.steps = steps;
      s.output = output + span.low * s.output_row_stride;
      AddWeightedSums(s, span.high - span.low + 1, layout_.channels);
    }
  }

 private:
  const Layout& layout_;
  const Masks& masks_;
  int64_t count_ = 0;
  int64_t entry_ = 0;  // Of the window in which query row 0 sees the first row.
  int64_t span_count_ = 0;
  AlignedArray<QuerySpan> spans_;
  AlignedArray<const float*> pointers_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_KEY_GRADIENTS_H_
