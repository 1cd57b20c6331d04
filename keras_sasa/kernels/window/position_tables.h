// The row and column embeddings, repeated for the lanes of every vector.

#ifndef KERAS_SASA_KERNELS_WINDOW_POSITION_TABLES_H_
#define KERAS_SASA_KERNELS_WINDOW_POSITION_TABLES_H_

#include <cstdint>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/attention.h"
#include "keras_sasa/kernels/window/layout.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

class PositionTables {
 public:
  PositionTables(const Layout& layout, const WindowInputs& inputs)
      : layout_(layout), relative_(inputs.row_embedding != nullptr) {
    if (relative_) Fill(inputs);
  }

  // Whether there are embeddings.
  bool relative() const { return relative_; }

  // The embedding for a vector of a strip: [entry][channel][lane].
  const float* Rows(int64_t group, int64_t vector) const {
    return tables_.data() + offsets_[group * layout_.vectors + vector];
  }
  const float* Columns(int64_t group, int64_t vector) const {
    return Rows(group, vector) +
           layout_.rows.kernel * (layout_.width / 2) * kLanes;
  }

 private:
  void Fill(const WindowInputs& inputs) {
    const int64_t half = layout_.width / 2;
    const int64_t all_heads = layout_.all_heads;
    const int64_t row_entries = layout_.rows.kernel;
    const int64_t entries = row_entries + layout_.columns.kernel;
    const int64_t vectors = layout_.vectors;
    const int64_t size = entries * half * kLanes;
    int64_t* offsets = offsets_.Reserve(layout_.groups * vectors);
    float* tables = tables_.Reserve(layout_.groups * vectors * size);
    float* table = tables;
    for (int64_t number = 0; number < layout_.groups * vectors; ++number) {
      const int64_t lane = number % vectors * kLanes;
      const int64_t first = HeadOf(lane), last = HeadOf(lane + kLanes - 1);
      // Vectors that belong to a single head share its table.
      if (number % vectors > 0 && first == last &&
          HeadOf(lane - kLanes) == first) {
        offsets[number] = offsets[number - 1];
        continue;
      }
      offsets[number] = table - tables;
      const int64_t group_head = number / vectors * layout_.heads;
      for (int64_t entry = 0; entry < entries; ++entry) {
        const float* embedding =
            entry < row_entries
                ? inputs.row_embedding + entry * all_heads * half
                : inputs.column_embedding +
                      (entry - row_entries) * all_heads * half;
        const float* from[kLanes];
        for (int64_t l = 0; l < kLanes; ++l) {
          from[l] = embedding + (group_head + HeadOf(lane + l)) * half;
        }
        float* to = table + entry * half * kLanes;
        for (int64_t channel = 0; channel < half; ++channel) {
          Vector numbers;
          KERAS_SASA_UNROLL
          for (int l = 0; l < kLanes; ++l) numbers[l] = from[l][channel];
          Store(to + channel * kLanes, numbers);
        }
      }
      table += size;
    }
  }

  // Lanes behind the last head are not used; any head will do.
  int64_t HeadOf(int64_t lane) const {
    return layout_.lane_head[lane] < 0 ? layout_.heads - 1
                                       : layout_.lane_head[lane];
  }

  const Layout& layout_;
  const bool relative_;
  AlignedArray<int64_t> offsets_;
  AlignedArray<float> tables_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_POSITION_TABLES_H_
