// Gradients of the position biases: sums of the gradients of the logits.

#ifndef KERAS_SASA_KERNELS_WINDOW_BIAS_GRADIENTS_H_
#define KERAS_SASA_KERNELS_WINDOW_BIAS_GRADIENTS_H_

#include <cstdint>
#include <cstring>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/bias_tables.h"
#include "keras_sasa/kernels/window/layout.h"
#include "keras_sasa/kernels/window/strip.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// The gradients of all strips, one part for each image and subgrid.
class BiasGradientParts {
 public:
  BiasGradientParts(const Layout& layout, int64_t batch,
                    const BiasTables& biases)
      : layout_(layout),
        entries_(biases.entries()),
        parts_(biases.given() ? batch * layout.row_subgrids : 0) {
    memory_.Reserve(parts_ * layout.all_heads * entries_);
  }

  // Where the gradients of the heads of a strip go: (heads, offsets).
  float* At(const Strip& strip) const {
    const int64_t part = strip.image * layout_.row_subgrids + strip.subgrid;
    return memory_.data() +
           (part * layout_.all_heads + strip.first_head) * entries_;
  }

  // Adds the parts up.
  void Sum(float* to) const {
    const int64_t numbers = layout_.all_heads * entries_;
    for (int64_t i = 0; i < numbers; ++i) {
      double sum = 0;
      for (int64_t part = 0; part < parts_; ++part) {
        sum += memory_[part * numbers + i];
      }
      to[i] = static_cast<float>(sum);
    }
  }

 private:
  const Layout& layout_;
  const int64_t entries_, parts_;
  AlignedArray<float> memory_;  // [part][head][offset]
};

// The gradients of one strip, in tables like those of the biases; lanes are
// added up at the end.
class BiasGradients {
 public:
  BiasGradients(const Layout& layout, const BiasTables& biases,
                const Strip& strip)
      : layout_(layout), biases_(biases), strip_(strip) {}

  // Floats of the scratch memory `sums`, none without biases.
  int64_t sums_size() const {
    return biases_.given() ? biases_.count() * biases_.entries() * kLanes : 0;
  }
  float* sums;

  void Clear() { std::memset(sums, 0, sums_size() * sizeof(float)); }

  // Adds the gradients of the logits of the current query row `row`, from the
  // first row and tap of the window on. Strides are in floats.
  KERAS_SASA_NOINLINE void Add(const float* logit_gradients, int64_t row_stride,
                               int64_t tap_stride, int64_t row,
                               int64_t vector) {
    const int64_t taps = layout_.TapsOfVector(vector);
    int64_t begin, end;
    strip_.WindowRows(row, &begin, &end);
    // Of the first row of the window; the others follow.
    const int64_t offset =
        strip_.RowOffset(row, begin + row * layout_.entry_stride);
    float* to =
        sums + (biases_.Number(vector) * biases_.entries() +
                offset * layout_.taps + layout_.FirstTapOfVector(vector)) *
                   kLanes;
    for (int64_t entry = begin; entry < end; ++entry) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        float* sum = to + tap * kLanes;
        Store(sum, Load(sum) + Load(logit_gradients + tap * tap_stride));
      }
      logit_gradients += row_stride;
      to += layout_.taps * kLanes;
    }
  }

  void Finish(const BiasGradientParts& parts) const {
    const int64_t entries = biases_.entries();
    float* const to = parts.At(strip_);
    std::memset(to, 0, layout_.heads * entries * sizeof(float));
    for (int64_t vector = 0; vector < layout_.vectors; ++vector) {
      if (!biases_.IsFirst(vector)) continue;
      const float* from = sums + biases_.Number(vector) * entries * kLanes;
      for (int64_t i = 0; i < kLanes; ++i) {
        const int64_t head = layout_.lane_head[vector * kLanes + i];
        if (head < 0) continue;
        for (int64_t entry = 0; entry < entries; ++entry) {
          to[head * entries + entry] += from[entry * kLanes + i];
        }
      }
    }
  }

 private:
  const Layout& layout_;
  const BiasTables& biases_;
  const Strip& strip_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_BIAS_GRADIENTS_H_
