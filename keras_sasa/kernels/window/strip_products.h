// The products and sums of the current queries of a strip: for one vector of
// lanes and all rows and column phases of the window.

#ifndef KERAS_SASA_KERNELS_WINDOW_STRIP_PRODUCTS_H_
#define KERAS_SASA_KERNELS_WINDOW_STRIP_PRODUCTS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/key_rings.h"
#include "keras_sasa/kernels/window/layout.h"
#include "keras_sasa/kernels/window/masks.h"
#include "keras_sasa/kernels/window/position_tables.h"
#include "keras_sasa/kernels/window/ring.h"
#include "keras_sasa/kernels/window/strip.h"
#include "keras_sasa/kernels/window/tap_products.h"
#include "keras_sasa/kernels/window/weighted_sums.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

class StripProducts {
 public:
  StripProducts(const Layout& layout, const Masks& masks,
                const PositionTables& positions, const Strip& strip,
                const KeyRings& rings)
      : layout_(layout),
        masks_(masks),
        positions_(positions),
        strip_(strip),
        rings_(rings) {}

  // Row logits [row][entry] and column logits: q . r. Without embeddings it
  // leaves the zeros that are there.
  void ComputePositionLogits(const float* queries, int64_t query_row_stride,
                             int64_t vector, float* row_logits,
                             float* column_logits) const {
    if (!positions_.relative()) return;
    const int64_t half = layout_.width / 2;
    TapProducts p{};
    p.query_row_stride = query_row_stride;
    p.query_channel_stride = layout_.plane_stride;
    p.key_channel_stride = kLanes;
    p.channels = half;
    p.row_bias = p.tap_bias = layout_.zeros.data();
    p.key_tap_stride = half * kLanes;
    p.tap_bias_tap_stride = p.output_tap_stride = kLanes;
    p.steps = 1;
    const float* table = positions_.Rows(strip_.group, vector);
    p.keys = &table;
    p.query = queries;
    p.output = row_logits;
    p.output_row_stride = layout_.rows.kernel * kLanes;
    ComputeTapProducts(p, strip_.query_count, layout_.row_taps);
    p.query = queries + half * layout_.plane_stride;
    table = positions_.Columns(strip_.group, vector);
    p.output = column_logits;
    p.output_row_stride = layout_.columns.kernel * kLanes;
    ComputeTapProducts(p, strip_.query_count, layout_.column_taps);
  }

  // output[row][window] = bias + products of queries with the rows of `ring`.
  // A bias of rows or columns is as above, or `Layout::zeros`; they are zeros
  // if there is a table of biases, see `BiasTables`, which may be null.
  // `tap_stride`: floats from one tap of the output to the next.
  void Multiply(const Ring& ring, int64_t channels, const float* queries,
                int64_t query_row_stride, int64_t vector, const float* row_bias,
                const float* column_bias, const float* bias_table,
                float* output, int64_t tap_stride) const {
    const int64_t stride = layout_.rows.stride;
    const int64_t taps = layout_.taps;
    const float* zeros = layout_.zeros.data();
    TapProducts p{};
    p.query_row_stride = query_row_stride;
    p.query_channel_stride = layout_.plane_stride;
    p.key_channel_stride = layout_.key_channel_stride;
    p.channels = channels;
    p.output_row_stride =
        (layout_.window - layout_.entry_stride * taps) * tap_stride;
    p.row_bias_row_stride =
        row_bias == zeros ? 0 : (layout_.rows.kernel - stride) * kLanes;
    p.tap_bias_row_stride = column_bias == zeros ? 0 : taps * kLanes;
    p.row_bias_step_stride = row_bias == zeros ? 0 : kLanes;
    if (bias_table != nullptr) {
      p.tap_bias_row_stride = -stride * taps * kLanes;
      p.tap_bias_step_stride = taps * kLanes;
    }
    p.output_step_stride = taps * tap_stride;
    const int64_t* offsets = rings_.step_offsets();
    const int64_t key_vector = layout_.KeyVector(vector);
    const float** pointers = pointers_.Reserve(2 * ring.slots);
    for (int64_t phase = 0; phase < layout_.column_phases; ++phase) {
      const TapGroup& group = layout_.QueryTaps(phase, vector);
      p.key_tap_stride = group.key_stride;
      p.centered = group.centered;
      p.tap_bias_tap_stride = group.tap_stride * kLanes;
      p.output_tap_stride = group.tap_stride * tap_stride;
      for (int64_t i = 0; i < strip_.step_end - strip_.step_begin; ++i) {
        pointers[i] = ring.data + offsets[i] + key_vector + group.key_offset;
      }
      for (const KeySpan& span : strip_) {
        const int64_t entry = strip_.Entry(span.first, span.begin);
        p.query = queries + span.first * query_row_stride;
        p.steps = span.end - span.begin;
        p.keys = pointers + span.begin - strip_.step_begin;
        p.tap_bias = column_bias + span.first * p.tap_bias_row_stride +
                     (column_bias == zeros ? 0 : group.first_tap * kLanes);
        if (bias_table != nullptr) {
          p.tap_bias =
              bias_table + (strip_.RowOffset(span.first, span.begin) * taps +
                            group.first_tap) *
                               kLanes;
        }
        p.row_bias =
            row_bias == zeros
                ? zeros
                : row_bias +
                      (span.first * layout_.rows.kernel + entry) * kLanes;
        p.output = output + (span.first * layout_.window + entry * taps +
                             group.first_tap) *
                                tap_stride;
        ComputeTapProducts(p, span.count, group.tiles);
      }
    }
  }

  // output[row][channel] = factor[row] * sum over the window of weights * rows
  // of `ring`. `tap_stride`: floats from one tap of the weights to the next.
  // `add` and `factors` are those of `WeightedSums`.
  void ComputeWeighted(const Ring& ring, const float* weights,
                       int64_t tap_stride, int64_t vector, bool add,
                       const Vector* factors, float* output) const {
    const int64_t taps = layout_.taps;
    WeightedSums s{};
    s.weight_row_stride =
        (layout_.window - layout_.entry_stride * taps) * tap_stride;
    s.value_channel_stride = layout_.key_channel_stride;
    s.output = output;
    s.output_row_stride = layout_.width * kLanes;
    const int64_t* offsets = rings_.step_offsets();
    const int64_t key_vector = layout_.KeyVector(vector);
    const int64_t last_phase = layout_.column_phases - 1;
    for (int64_t phase = 0; phase <= last_phase; ++phase) {
      const TapGroup& group = layout_.QueryTaps(phase, vector);
      s.taps = group.count;
      s.weight_tap_stride = group.tap_stride * tap_stride;
      s.value_tap_stride = group.key_stride;
      s.masks =
          rings_.finite ? nullptr : masks_.OfQueries(vector) + group.first_tap;
      s.mask_tap_stride = group.tap_stride;
      s.add = add || phase > 0;
      s.factors = phase == last_phase ? factors : nullptr;
      const float** pointers = pointers_.Reserve(2 * ring.slots);
      WeightedSpan* spans = spans_.Reserve(ring.slots);
      s.spans = spans;
      s.span_count = 0;
      for (const KeySpan& span : strip_) {
        const int64_t steps = span.end - span.begin;
        spans[s.span_count++] = {span.first, span.count, steps, pointers,
                                 pointers + steps};
        for (int64_t i = 0; i < steps; ++i) {
          const int64_t entry = strip_.Entry(span.first, span.begin + i);
          pointers[i] = weights + (span.first * layout_.window + entry * taps +
                                   group.first_tap) *
                                      tap_stride;
          pointers[steps + i] = ring.data +
                                offsets[span.begin + i - strip_.step_begin] +
                                key_vector + group.key_offset;
        }
        pointers += 2 * steps;
      }
      ComputeWeightedSums(s, strip_.query_count, layout_.width);
    }
  }

 private:
  const Layout& layout_;
  const Masks& masks_;
  const PositionTables& positions_;
  const Strip& strip_;
  const KeyRings& rings_;
  mutable AlignedArray<const float*> pointers_;
  mutable AlignedArray<WeightedSpan> spans_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_STRIP_PRODUCTS_H_
