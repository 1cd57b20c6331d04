#include "keras_sasa/kernels/window/backward.h"

#include <cstdint>
#include <cstring>
#include <memory>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/exponentials.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/masked_logit.h"
#include "keras_sasa/kernels/base/scratch.h"
#include "keras_sasa/kernels/base/tasks.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/attention.h"
#include "keras_sasa/kernels/window/bias_gradients.h"
#include "keras_sasa/kernels/window/bias_tables.h"
#include "keras_sasa/kernels/window/embedding_gradients.h"
#include "keras_sasa/kernels/window/key_gradients.h"
#include "keras_sasa/kernels/window/key_rings.h"
#include "keras_sasa/kernels/window/layout.h"
#include "keras_sasa/kernels/window/masks.h"
#include "keras_sasa/kernels/window/packing.h"
#include "keras_sasa/kernels/window/position_tables.h"
#include "keras_sasa/kernels/window/ring.h"
#include "keras_sasa/kernels/window/scalar_maps.h"
#include "keras_sasa/kernels/window/softmax.h"
#include "keras_sasa/kernels/window/strip.h"
#include "keras_sasa/kernels/window/strip_products.h"
#include "keras_sasa/kernels/window/tile_sizes.h"
#include "keras_sasa/kernels/window/weighted_sums.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {
namespace {

// Floats of a pixel that a task should read together: much, as in the forward
// pass. But a task keeps k * k weights for each lane of a block, which should
// not leave the caches: where more heads make the blocks wider, it is few.
int64_t ContiguousFloats(const WindowShape& shape) {
  constexpr int64_t kMany = 128, kFew = 16;
  const Layout many(shape, kMany), few(shape, kFew);
  return many.block_vectors <= few.vectors ? kMany : kFew;
}

class BackwardTasks : public Tasks {
 public:
  BackwardTasks(const WindowShape& shape, const WindowInputs& inputs,
                const WindowUpstream& upstream,
                const WindowGradients& gradients)
      : inputs_(inputs),
        upstream_(upstream),
        gradients_(gradients),
        layout_(shape, ContiguousFloats(shape)),
        masks_(layout_),
        positions_(layout_, inputs),
        biases_(layout_, inputs.position_bias),
        scalar_maps_(layout_),
        query_packing_(Packing::OfQueries(layout_, inputs.query.pixel_stride)),
        key_packing_(Packing::OfKeys(layout_, inputs.key.pixel_stride)),
        value_packing_(Packing::OfKeys(layout_, inputs.value.pixel_stride)),
        upstream_packing_(
            Packing::OfQueries(layout_, upstream.output_gradient.pixel_stride)),
        query_unpacking_(
            Packing::OfQueries(layout_, gradients.query.pixel_stride)),
        key_unpacking_(Packing::OfKeys(layout_, gradients.key.pixel_stride)),
        value_unpacking_(
            Packing::OfKeys(layout_, gradients.value.pixel_stride)),
        embeddings_(layout_, shape.batch, positions_.relative()),
        bias_parts_(layout_, shape.batch, biases_) {}

  int64_t count() const override { return layout_.tasks; }

  void Run(int64_t task) const override { Task(*this, task).Run(); }

  void Finish() const override {
    if (positions_.relative()) embeddings_.Sum(gradients_);
    if (biases_.given()) bias_parts_.Sum(gradients_.position_bias);
  }

 private:
  class Task {
   public:
    Task(const BackwardTasks& call, int64_t task)
        : call_(call),
          layout_(call.layout_),
          strip_(call.layout_, task),
          rings_(call.layout_, call.inputs_, call.key_packing_,
                 call.value_packing_, nullptr),
          strip_products_(call.layout_, call.masks_, call.positions_, strip_,
                          rings_),
          bands_(call.layout_, strip_),
          key_gradients_(call.layout_, call.masks_, strip_),
          embedding_gradients_(call.layout_),
          bias_gradients_(call.layout_, call.biases_, strip_),
          entries_(call.layout_.window_rows + call.layout_.taps) {
      const int64_t left = layout_.left;
      const int64_t plane_stride = layout_.plane_stride;
      queries_ = {nullptr, kQueryRows, layout_.width * plane_stride, left};
      upstream_ = queries_;
      weights_ = {nullptr, kQueryRows,
                  layout_.window * layout_.block_plane_stride, left};
      logit_gradients_ = weights_;
      const bool relative = call_.positions_.relative();
      const int64_t bands_size = bands_.slots() * BandSize();
      AllocateScratch(
          call.scratch_call_,
          {{&rings_.keys.data, rings_.keys.size()},
           {&rings_.values.data, rings_.values.size()},
           {&rings_.planes, layout_.width * plane_stride},
           {&queries_.data, queries_.size()},
           {&upstream_.data, upstream_.size()},
           {&weights_.data, weights_.size()},
           {&logit_gradients_.data, logit_gradients_.size()},
           {&row_logits_, kQueryRows * layout_.rows.kernel * kLanes},
           {&column_logits_, kQueryRows * layout_.taps * kLanes},
           {&embedding_gradients_.head_sums,
            embedding_gradients_.head_sums_size()}},
          {{&embedding_gradients_.sums,
            relative ? embedding_gradients_.sums_size() : 0},
           {&bias_gradients_.sums, bias_gradients_.sums_size()},
           {&value_sums_, bands_size},
           {&key_sums_, bands_size},
           {&sums_, kQueryRows * entries_ * kLanes},
           {&row_sums_, kQueryRows * entries_ * layout_.block_plane_stride},
           {&output_, kQueryRows * layout_.width * kLanes},
           {&embedding_gradients_.finite_queries,
            embedding_gradients_.finite_queries_size()}});
      if (relative) embedding_gradients_.Clear();
      if (call_.biases_.given()) bias_gradients_.Clear();
    }

    void Run() {
      for (int64_t first = 0; first < strip_.queries; first += kQueryRows) {
        const int64_t count = Min(kQueryRows, strip_.queries - first);
        strip_.MoveTo(first, count);
        rings_.Fill(strip_);
        for (int64_t row = 0; row < count; ++row) {
          Pack(first + row);
          log_sum_exp_[row] = call_.scalar_maps_.Row(
              call_.upstream_.log_sum_exp, strip_.QueryImageRow(first + row),
              strip_.first_head);
        }
        StartBands(first + count);
        for (int64_t block = 0; block < layout_.blocks; ++block) {
          RunBlock(first, count, block);
        }
        FinishBands(first + count);
      }
      while (finished_ < bands_.count()) FinishBand();
      if (call_.positions_.relative()) {
        embedding_gradients_.Finish(strip_, call_.embeddings_);
      }
      if (call_.biases_.given()) bias_gradients_.Finish(call_.bias_parts_);
    }

   private:
    void RunBlock(int64_t first, int64_t count, int64_t block) {
      const int64_t begin = block * layout_.block_vectors;
      const int64_t end = begin + layout_.block_vectors;
      for (int64_t vector = begin; vector < end; ++vector) {
        ComputeQueryGradients(first, count, vector, (vector - begin) * kLanes);
      }
      if (call_.positions_.relative()) {
        for (int64_t row = 0; row < count; ++row) {
          embedding_gradients_.Add(
              queries_.Slot(row),
              row_sums_ + row * entries_ * layout_.block_plane_stride, block,
              !rings_.finite);
        }
      }
      for (int64_t band = finished_; band < started_; ++band) {
        for (int64_t remainder = 0; remainder < layout_.rows.stride;
             ++remainder) {
          AddToBand(band, remainder, first, first + count, begin, end);
        }
      }
    }

    void Pack(int64_t row) {
      const int64_t image_row = strip_.QueryImageRow(row);
      rings_.finite &= call_.query_packing_.Pack(
          call_.inputs_.query, image_row, strip_.first_head,
          kLog2E * call_.inputs_.scale, queries_.Row(row));
      rings_.finite &= call_.upstream_packing_.Pack(
          call_.upstream_.output_gradient, image_row, strip_.first_head, 1.0f,
          upstream_.Row(row));
    }

    // Weights, their gradients and the gradient of the queries. `block_lane` is
    // where the vector lies in the planes of its block.
    void ComputeQueryGradients(int64_t first, int64_t count, int64_t vector,
                               int64_t block_lane) {
      const int64_t lane = vector * kLanes;
      const int64_t width = layout_.width;
      const bool content = call_.inputs_.content();
      const float* zeros = layout_.zeros.data();
      for (int64_t row = 0; row < count; ++row) {
        call_.query_unpacking_.PrefetchUnpack(vector, 0, call_.gradients_.query,
                                              strip_.QueryImageRow(first + row),
                                              strip_.first_head);
      }
      const float* queries = queries_.Slot(0) + lane;
      strip_products_.ComputePositionLogits(
          queries, queries_.row_stride, vector, row_logits_, column_logits_);
      strip_products_.Multiply(
          rings_.keys, content ? width : 0, queries, queries_.row_stride,
          vector, row_logits_, column_logits_,
          call_.biases_.Of(strip_.group, vector), weights_.Slot(0) + block_lane,
          layout_.block_plane_stride);
      strip_products_.Multiply(rings_.values, width, upstream_.Slot(0) + lane,
                               upstream_.row_stride, vector, zeros, zeros,
                               /*bias_table=*/nullptr,
                               logit_gradients_.Slot(0) + block_lane,
                               layout_.block_plane_stride);
      for (int64_t row = 0; row < count; ++row) {
        ComputeLogitGradients(row, vector, block_lane);
      }
      const bool relative = call_.positions_.relative();
      if (relative) ComputePositionGradients(count, vector);
      if (!relative && !content) {
        std::memset(output_, 0, count * width * kLanes * sizeof(float));
      }
      if (content) {
        Vector factors[kQueryRows];
        for (Vector& factor : factors) factor = Broadcast(call_.inputs_.scale);
        strip_products_.ComputeWeighted(rings_.keys,
                                        logit_gradients_.Slot(0) + block_lane,
                                        layout_.block_plane_stride, vector,
                                        /*add=*/relative, factors, output_);
      }
      for (int64_t row = 0; row < count; ++row) {
        call_.query_unpacking_.Unpack(
            output_ + row * width * kLanes, vector, 0, call_.gradients_.query,
            strip_.QueryImageRow(first + row), strip_.first_head);
      }
    }

    // Of one row of queries. The logits become weights, and their products with
    // the upstream these gradients.
    KERAS_SASA_NOINLINE void ComputeLogitGradients(int64_t row, int64_t vector,
                                                   int64_t block_lane) {
      const int64_t taps = layout_.TapsOfVector(vector);
      const int64_t first_tap = layout_.FirstTapOfVector(vector);
      const int64_t plane_stride = layout_.block_plane_stride;
      int64_t begin, end;
      strip_.WindowRows(row, &begin, &end);
      const int64_t start =
          (begin * layout_.taps + first_tap) * plane_stride + block_lane;
      const Vector log_sum_exp =
          call_.scalar_maps_.Gather(log_sum_exp_[row], vector, -kMaskedLogit);
      // 0 * x is 0 for finite numbers and NaN for the others.
      const Vector finite = log_sum_exp * 0.0f;
      for (int i = 0; i < kLanes; ++i) rings_.finite &= finite[i] == 0.0f;
      float* row_sums = sums_ + row * entries_ * kLanes;
      std::memset(row_sums, 0, entries_ * kLanes * sizeof(float));
      SoftmaxGradient s{};
      s.rows = end - begin;
      s.taps = taps;
      s.masks = call_.masks_.OfQueries(vector) + first_tap;
      s.masked_logit = call_.masks_.masked_logit();
      s.log_sum_exp = log_sum_exp;
      s.logits = weights_.Slot(row) + start;
      s.products = logit_gradients_.Slot(row) + start;
      s.tap_stride = plane_stride;
      s.row_gap = (layout_.taps - taps) * plane_stride;
      s.row_sums = row_sums + begin * kLanes;
      s.column_sums = row_sums + layout_.window_rows * kLanes;
      const bool inside = call_.masks_.inside(vector);
      WithKnownTaps(taps, [&](auto known_taps) {
        if (!rings_.finite) {
          ComputeSoftmaxGradient<known_taps, false, false>(s);
        } else if (!inside) {
          ComputeSoftmaxGradient<known_taps, false, true>(s);
        } else {
          ComputeSoftmaxGradient<known_taps, true, true>(s);
        }
      });
      if (call_.biases_.given()) {
        bias_gradients_.Add(s.products, layout_.taps * plane_stride,
                            plane_stride, row, vector);
      }
      if (!call_.positions_.relative()) return;
      for (int64_t entry = 0; entry < entries_; ++entry) {
        Store(row_sums_ + (row * entries_ + entry) * plane_stride + block_lane,
              Load(row_sums + entry * kLanes));
      }
    }

    // The gradients of the row and column logits, as parts of those of the
    // queries.
    void ComputePositionGradients(int64_t count, int64_t vector) {
      const int64_t half = layout_.width / 2;
      const float* weights = sums_;
      const float* values = call_.positions_.Rows(strip_.group, vector);
      const WeightedSpan span{0, count, 1, &weights, &values};
      WeightedSums s{};
      s.spans = &span;
      s.span_count = 1;
      s.weight_row_stride = entries_ * kLanes;
      s.weight_tap_stride = kLanes;
      s.value_channel_stride = kLanes;
      s.value_tap_stride = half * kLanes;
      s.output_row_stride = layout_.width * kLanes;
      s.taps = layout_.rows.kernel;
      s.output = output_;
      ComputeWeightedSums(s, count, half);
      weights = sums_ + layout_.rows.kernel * kLanes;
      values = call_.positions_.Columns(strip_.group, vector);
      s.taps = layout_.columns.kernel;
      s.output = output_ + half * kLanes;
      ComputeWeightedSums(s, count, half);
    }

    // Floats of the sums of a band: a vector each channel of
    // [remainder][phase][vector][row].
    int64_t BandSize() const {
      return bands_.rows() * layout_.column_phases * layout_.lanes *
             layout_.width;
    }
    // Floats from the start of `value_sums_` and `key_sums_` to a band.
    int64_t BandOffset(int64_t band, int64_t remainder) const {
      return band % bands_.slots() * BandSize() +
             remainder * layout_.column_phases * layout_.vectors * VectorSize();
    }
    // Floats from one vector of a band to the next.
    int64_t VectorSize() const { return kQueryRows * layout_.width * kLanes; }

    // Starts the bands that queries before `end_query` see.
    void StartBands(int64_t end_query) {
      while (started_ < bands_.count() &&
             bands_.FirstQuery(started_) < end_query) {
        ++started_;
      }
    }

    // Finishes the bands that only queries before `end_query` see.
    void FinishBands(int64_t end_query) {
      while (finished_ < bands_.count() &&
             bands_.LastQuery(finished_) < end_query) {
        FinishBand();
      }
    }

    // The number of rows of one remainder in a band, of which `first` becomes
    // the first.
    int64_t BandRows(int64_t band, int64_t remainder, int64_t* first) const {
      *first = band * bands_.rows() + remainder;
      return Max(0, Min(kQueryRows,
                        CeilDiv(strip_.keys - *first, layout_.rows.stride)));
    }

    // Adds the queries from `first_query` to `end_query` to the gradients of
    // the keys that they see, for the vectors from `begin` to `end`.
    void AddToBand(int64_t band, int64_t remainder, int64_t first_query,
                   int64_t end_query, int64_t begin, int64_t end) {
      int64_t first;
      const int64_t count = BandRows(band, remainder, &first);
      if (count == 0) return;
      key_gradients_.MoveTo(first, count, begin);
      const bool masked = !rings_.finite;
      const bool add = bands_.FirstQuery(band) < first_query;
      const bool last = bands_.LastQuery(band) < end_query;
      // The queries were multiplied by log2(e) and the scale.
      Vector factors[kQueryRows];
      for (Vector& factor : factors) factor = Broadcast(kLn2);
      const bool content = call_.inputs_.content();
      const int64_t band_offset = BandOffset(band, remainder);
      for (int64_t phase = 0; phase < layout_.column_phases; ++phase) {
        int64_t offset =
            band_offset + (phase * layout_.vectors + begin) * VectorSize();
        for (int64_t vector = begin; vector < end; ++vector) {
          if (last) PrefetchKeys(first, count, phase, vector);
          key_gradients_.Compute(weights_, upstream_, phase, vector, masked,
                                 add, nullptr, value_sums_ + offset);
          if (content) {
            key_gradients_.Compute(logit_gradients_, queries_, phase, vector,
                                   masked, add, last ? factors : nullptr,
                                   key_sums_ + offset);
          }
          offset += VectorSize();
        }
      }
    }

    // For `FinishBand`.
    void PrefetchKeys(int64_t first, int64_t count, int64_t phase,
                      int64_t vector) const {
      for (int64_t row = 0; row < count; ++row) {
        const int64_t image_row =
            strip_.KeyImageRow(first + row * layout_.rows.stride);
        call_.value_unpacking_.PrefetchUnpack(vector, phase,
                                              call_.gradients_.value, image_row,
                                              strip_.first_head);
        if (!call_.inputs_.content()) continue;
        call_.key_unpacking_.PrefetchUnpack(vector, phase, call_.gradients_.key,
                                            image_row, strip_.first_head);
      }
    }

    void FinishBand() {
      const int64_t band = finished_++;
      if (band == started_) {  // No query sees it.
        const int64_t offset = BandOffset(band, 0);
        const int64_t bytes = BandSize() * sizeof(float);
        std::memset(value_sums_ + offset, 0, bytes);
        std::memset(key_sums_ + offset, 0, bytes);
        ++started_;
      }
      for (int64_t remainder = 0; remainder < layout_.rows.stride;
           ++remainder) {
        int64_t first;
        const int64_t count = BandRows(band, remainder, &first);
        int64_t offset = BandOffset(band, remainder);
        for (int64_t phase = 0; phase < layout_.column_phases; ++phase) {
          for (int64_t vector = 0; vector < layout_.vectors; ++vector) {
            UnpackKeys(call_.value_unpacking_, call_.gradients_.value,
                       value_sums_ + offset, first, count, phase, vector);
            if (call_.inputs_.content()) {
              UnpackKeys(call_.key_unpacking_, call_.gradients_.key,
                         key_sums_ + offset, first, count, phase, vector);
            }
            offset += VectorSize();
          }
        }
      }
    }

    void UnpackKeys(const Packing& unpacking, const Map<void>& map,
                    const float* sums, int64_t first, int64_t count,
                    int64_t phase, int64_t vector) {
      for (int64_t row = 0; row < count; ++row) {
        unpacking.Unpack(sums + row * layout_.width * kLanes, vector, phase,
                         map,
                         strip_.KeyImageRow(first + row * layout_.rows.stride),
                         strip_.first_head);
      }
    }

    const BackwardTasks& call_;
    const Layout& layout_;
    Strip strip_;
    KeyRings rings_;
    const StripProducts strip_products_;
    const KeyBands bands_;
    KeyGradients key_gradients_;
    EmbeddingGradients embedding_gradients_;
    BiasGradients bias_gradients_;
    const int64_t entries_;
    // The current rows of queries, [channel], and of the weights of their
    // windows and the gradients of their logits, [tap].
    Ring queries_, upstream_, weights_, logit_gradients_;
    const float* log_sum_exp_[kQueryRows];
    // Of the current rows of queries, for one vector.
    float *row_logits_, *column_logits_, *output_;
    // Gradients of the keys and values of the bands that are not finished.
    float *value_sums_, *key_sums_;
    int64_t started_ = 0, finished_ = 0;  // Bands.
    // Gradients of logits, summed along the other axis, [row][entry]: a vector
    // each, and a plane each.
    float *sums_, *row_sums_;
  };

  const WindowInputs inputs_;
  const WindowUpstream upstream_;
  const WindowGradients gradients_;
  const Layout layout_;
  const Masks masks_;
  const PositionTables positions_;
  const BiasTables biases_;
  const ScalarMaps scalar_maps_;
  const Packing query_packing_, key_packing_, value_packing_;
  const Packing upstream_packing_;
  const Packing query_unpacking_, key_unpacking_, value_unpacking_;
  const EmbeddingGradientParts embeddings_;
  const BiasGradientParts bias_parts_;
  const int64_t scratch_call_ = NewScratchCall();
};

}  // namespace

std::unique_ptr<Tasks> MakeWindowBackward(const WindowShape& shape,
                                          const WindowInputs& inputs,
                                          const WindowUpstream& upstream,
                                          const WindowGradients& gradients) {
  return std::unique_ptr<Tasks>(
      new BackwardTasks(shape, inputs, upstream, gradients));
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa
