#include "keras_sasa/kernels/window/forward.h"

#include <cstdint>
#include <memory>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/exponentials.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/scratch.h"
#include "keras_sasa/kernels/base/tasks.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/attention.h"
#include "keras_sasa/kernels/window/bias_tables.h"
#include "keras_sasa/kernels/window/key_rings.h"
#include "keras_sasa/kernels/window/layout.h"
#include "keras_sasa/kernels/window/masks.h"
#include "keras_sasa/kernels/window/output.h"
#include "keras_sasa/kernels/window/packing.h"
#include "keras_sasa/kernels/window/position_tables.h"
#include "keras_sasa/kernels/window/projection.h"
#include "keras_sasa/kernels/window/scalar_maps.h"
#include "keras_sasa/kernels/window/softmax.h"
#include "keras_sasa/kernels/window/strip.h"
#include "keras_sasa/kernels/window/strip_products.h"
#include "keras_sasa/kernels/window/tile_sizes.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {
namespace {

// Floats of a pixel that a task should read together: much, because memory is
// fast where it is read from one end to the other. A task that projects them
// keeps more rows, which should not leave the caches; in segments, rows are
// larger.
constexpr int64_t kContiguousFloats = 128;
constexpr int64_t kProjectedFloats = kLanes < kCacheLineFloats ? 32 : 64;

class ForwardTasks : public Tasks {
 public:
  ForwardTasks(const WindowShape& shape, const WindowInputs& inputs,
               const WindowOutputs& outputs)
      : inputs_(inputs),
        outputs_(outputs),
        layout_(shape,
                inputs.projected() ? kProjectedFloats : kContiguousFloats,
                inputs.projected()),
        masks_(layout_),
        positions_(layout_, inputs),
        biases_(layout_, inputs.position_bias),
        scalar_maps_(layout_),
        projector_(layout_, inputs),
        query_packing_(Packing::OfQueries(layout_, PixelStride(inputs.query),
                                          inputs.projected())),
        key_packing_(Packing::OfKeys(layout_, PixelStride(inputs.key),
                                     inputs.projected())),
        value_packing_(Packing::OfKeys(layout_, PixelStride(inputs.value),
                                       inputs.projected())),
        writer_(layout_, outputs) {}

  int64_t count() const override { return layout_.tasks; }

  void Run(int64_t task) const override {
    const int64_t width = layout_.width;
    const Projector* projector = inputs_.projected() ? &projector_ : nullptr;
    Strip strip(layout_, task);
    KeyRings rings(layout_, inputs_, key_packing_, value_packing_, projector);
    const StripProducts products(layout_, masks_, positions_, strip, rings);
    float *row_logits, *column_logits, *weights, *sums, *pooled;
    AllocateScratch(
        scratch_call_,
        {{&rings.keys.data, rings.keys.size()},
         {&rings.values.data, rings.values.size()},
         {&rings.planes, width * layout_.plane_stride},
         {&rings.queries.data, rings.queries.size()},
         {&row_logits, kQueryRows * layout_.rows.kernel * kLanes},
         {&column_logits, kQueryRows * layout_.taps * kLanes}},
        {{&weights, kQueryRows * layout_.window * kLanes},
         {&sums, kQueryRows * width * kLanes},
         {&pooled, writer_.sums_size()},
         {&rings.projected.data, projector ? projector->size() : 0}});
    const int64_t channels = inputs_.content() ? width : 0;
    const int64_t query_row_stride = rings.queries.row_stride;

    for (int64_t first = 0; first < strip.queries; first += kQueryRows) {
      const int64_t count = Min(kQueryRows, strip.queries - first);
      strip.MoveTo(first, count);
      rings.Fill(strip);
      rings.FillQueries(query_packing_, strip, first);
      const float* first_queries = rings.queries.Row(first);
      float* log_sum_exp[kQueryRows];
      for (int64_t row = 0; row < count; ++row) {
        if (outputs_.log_sum_exp == nullptr) break;
        log_sum_exp[row] = scalar_maps_.Row(outputs_.log_sum_exp,
                                            strip.QueryImageRow(first + row),
                                            strip.first_head);
      }
      for (int64_t vector = 0; vector < layout_.vectors; ++vector) {
        for (int64_t row = 0; row < count; ++row) {
          writer_.Prefetch(strip, first + row, vector);
        }
        const float* queries = first_queries + vector * kLanes;
        products.ComputePositionLogits(queries, query_row_stride, vector,
                                       row_logits, column_logits);
        products.Multiply(rings.keys, channels, queries, query_row_stride,
                          vector, row_logits, column_logits,
                          biases_.Of(strip.group, vector), weights, kLanes);
        Vector largest[kQueryRows], totals[kQueryRows], factors[kQueryRows];
        for (int64_t row = 0; row < count; ++row) {
          ComputeWeights(strip, row, vector, weights, &largest[row],
                         &totals[row]);
          factors[row] = 1.0f / totals[row];
        }
        products.ComputeWeighted(rings.values, weights, kLanes, vector,
                                 /*add=*/false, factors, sums);
        for (int64_t row = 0; row < count; ++row) {
          writer_.Write(sums + row * width * kLanes, strip, first + row, vector,
                        pooled);
          if (outputs_.log_sum_exp != nullptr) {
            scalar_maps_.Scatter(largest[row] + Log2(totals[row]), vector,
                                 log_sum_exp[row]);
          }
        }
      }
      for (int64_t row = first; row < first + count; ++row) {
        writer_.FinishRow(strip, row, pooled);
      }
    }
  }

 private:
  // Floats from one pixel of a map, in memory or projected, to the next.
  int64_t PixelStride(const Map<const void>& map) const {
    return inputs_.projected() ? projector_.columns() : map.pixel_stride;
  }

  // Replaces the logits of a row of queries by weights, see `ComputeSoftmax`.
  KERAS_SASA_NOINLINE void ComputeWeights(const Strip& strip, int64_t row,
                                          int64_t vector, float* weights,
                                          Vector* largest,
                                          Vector* total) const {
    int64_t begin, end;
    strip.WindowRows(row, &begin, &end);
    SoftmaxLogits s{};
    s.rows = end - begin;
    s.taps = layout_.TapsOfVector(vector);
    s.row_stride = layout_.taps * kLanes;
    const int64_t first_tap = layout_.FirstTapOfVector(vector);
    s.logits =
        weights +
        (row * layout_.window + begin * layout_.taps + first_tap) * kLanes;
    s.masks = masks_.OfQueries(vector) + first_tap;
    s.masked_logit = masks_.masked_logit();
    s.outside = (layout_.rows.kernel - s.rows) * s.taps;
    const bool inside = masks_.inside(vector);
    WithKnownTaps(s.taps, [&](auto known_taps) {
      if (inside) {
        ComputeSoftmax<known_taps, true>(s, largest, total);
      } else {
        ComputeSoftmax<known_taps, false>(s, largest, total);
      }
    });
  }

  const WindowInputs inputs_;
  const WindowOutputs outputs_;
  const Layout layout_;
  const Masks masks_;
  const PositionTables positions_;
  const BiasTables biases_;
  const ScalarMaps scalar_maps_;
  const Projector projector_;
  const Packing query_packing_, key_packing_, value_packing_;
  const OutputWriter writer_;
  const int64_t scratch_call_ = NewScratchCall();
};

}  // namespace

std::unique_ptr<Tasks> MakeWindowForward(const WindowShape& shape,
                                         const WindowInputs& inputs,
                                         const WindowOutputs& outputs) {
  return std::unique_ptr<Tasks>(new ForwardTasks(shape, inputs, outputs));
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa
