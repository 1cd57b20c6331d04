// Gradients of keys and values: the current queries add to all keys that they
// see.

#ifndef KERAS_SASA_KERNELS_WINDOW_KEY_GRADIENTS_H_
#define KERAS_SASA_KERNELS_WINDOW_KEY_GRADIENTS_H_

#include <cstdint>

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
// remainder of the stride. A band starts with the first queries that see it and
// is finished as soon as all of them are done.
class KeyBands {
 public:
  KeyBands(const Layout& layout, const Strip& strip)
      : layout_(layout), strip_(strip) {}

  int64_t rows() const { return kQueryRows * layout_.rows.stride; }
  int64_t count() const { return CeilDiv(strip_.keys, rows()); }

  // The first and the last row of queries that sees a band.
  int64_t FirstQuery(int64_t band) const {
    return strip_.FirstQuery(band * rows());
  }
  int64_t LastQuery(int64_t band) const {
    return strip_.LastQuery(Min((band + 1) * rows(), strip_.keys) - 1);
  }

  // The most bands that kQueryRows rows of queries see.
  int64_t slots() const {
    const int64_t keys =
        layout_.rows.kernel + (kQueryRows - 1) * layout_.rows.stride;
    return Max(1, Min(count(), CeilDiv(keys - 1, rows()) + 1));
  }

 private:
  const Layout& layout_;
  const Strip& strip_;
};

// Current rows of queries, `begin` to `end`, which the same rows of a band see:
// `low` to `high`.
struct QuerySpan {
  int64_t low, high, begin, end;
};

// What the current queries of a strip add to the gradients of the keys of one
// remainder in a band.
class KeyGradients {
 public:
  KeyGradients(const Layout& layout, const Masks& masks, const Strip& strip)
      : layout_(layout), masks_(masks), strip_(strip) {}

  // Moves to the rows of keys first + i * stride for the `count` values of i
  // from 0 on, and to the current queries of the block that starts with
  // `first_vector`.
  void MoveTo(int64_t first, int64_t count, int64_t first_vector) {
    const int64_t stride = layout_.rows.stride;
    const int64_t kernel = layout_.rows.kernel;
    count_ = count;
    first_vector_ = first_vector;
    step_ = first - strip_.key_first;
    span_count_ = 0;
    for (int64_t query = 0; query < strip_.query_count; ++query) {
      // Number of the first row of keys in the window.
      const int64_t number = step_ - strip_.WindowStep(query);
      const int64_t low = Max(0, CeilDiv(-number, stride));
      const int64_t high =
          Min(count - 1, FloorDiv(kernel - 1 - number, stride));
      if (low > high) continue;
      if (span_count_ > 0 && spans_[span_count_ - 1].low == low &&
          spans_[span_count_ - 1].high == high &&
          spans_[span_count_ - 1].end == query) {
        ++spans_[span_count_ - 1].end;
      } else {
        spans_[span_count_++] = {low, high, query, query + 1};
      }
    }
  }

  // output[row][channel] = factor[row] * sum over queries and taps of weights *
  // values, for one vector of keys of a column phase. `masked`: numbers may be
  // infinite or NaN. The weights are planes of a block. `add` and `factors` are
  // those of `WeightedSums`.
  void Compute(const Ring& weights, const Ring& values, int64_t phase,
               int64_t vector, bool masked, bool add, const Vector* factors,
               float* output) const {
    const int64_t stride = layout_.rows.stride;
    const int64_t taps = layout_.taps;
    const int64_t weight_plane_stride = layout_.block_plane_stride;
    const int64_t lane = vector * kLanes;
    const int64_t block_lane = (vector - first_vector_) * kLanes;
    WeightedSums s{};
    s.weight_row_stride = stride * taps * weight_plane_stride;
    s.value_channel_stride = layout_.plane_stride;
    // From the key back to its queries.
    const TapGroup& group = layout_.KeyTaps(phase, vector);
    const int64_t shift =
        group.count > 0 ? layout_.tap_shift[group.first_tap] : 0;
    s.weight_tap_stride =
        group.tap_stride * weight_plane_stride - group.key_stride;
    s.value_tap_stride = -group.key_stride;
    s.taps = group.count;
    s.mask_tap_stride = 1;
    s.output_row_stride = layout_.width * kLanes;
    s.masks = masked ? masks_.OfKeys(phase, vector) + group.skipped : nullptr;
    s.add = add;
    s.factors = factors;
    s.output = output;
    const float *pointers[2 * kQueryRows], **to = pointers;
    WeightedSpan spans[kQueryRows];
    s.spans = spans;
    s.span_count = span_count_;
    for (int64_t number = 0; number < span_count_; ++number) {
      const QuerySpan& span = spans_[number];
      const int64_t steps = span.end - span.begin;
      spans[number] = {span.low, span.high - span.low + 1, steps, to,
                       to + steps};
      for (int64_t i = 0; i < steps; ++i) {
        const int64_t query = span.begin + i;
        const int64_t entry = strip_.Entry(query, step_ + span.low * stride);
        to[i] = weights.Slot(query) +
                (entry * taps + group.first_tap) * weight_plane_stride +
                block_lane - shift;
        to[steps + i] = values.Slot(query) + lane - shift;
      }
      to += 2 * steps;
    }
    ComputeWeightedSums(s, count_, layout_.width);
  }

 private:
  const Layout& layout_;
  const Masks& masks_;
  const Strip& strip_;
  int64_t count_ = 0;
  int64_t first_vector_ = 0;  // Of the block.
  int64_t step_ = 0;          // At which queries see the first row of keys.
  int64_t span_count_ = 0;
  QuerySpan spans_[kQueryRows];
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_KEY_GRADIENTS_H_
