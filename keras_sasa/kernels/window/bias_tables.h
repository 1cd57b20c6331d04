// The position biases, repeated for the lanes of every vector.

#ifndef KERAS_SASA_KERNELS_WINDOW_BIAS_TABLES_H_
#define KERAS_SASA_KERNELS_WINDOW_BIAS_TABLES_H_

#include <cstdint>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/exponentials.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/layout.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

class BiasTables {
 public:
  // `bias` may be null.
  BiasTables(const Layout& layout, const float* bias)
      : layout_(layout),
        given_(bias != nullptr),
        entries_(layout.rows.offsets() * layout.taps) {
    if (!given_) return;
    NumberVectors();
    float* table = tables_.Reserve(layout.groups * count_ * entries_ * kLanes);
    for (int64_t group = 0; group < layout.groups; ++group) {
      for (int64_t vector = 0; vector < layout.vectors; ++vector) {
        if (!IsFirst(vector)) continue;
        Fill(bias + group * layout.heads * entries_, vector, table);
        table += entries_ * kLanes;
      }
    }
  }

  bool given() const { return given_; }

  // Numbers of a head: one for each offset.
  int64_t entries() const { return entries_; }

  // The biases of the lanes of a vector of a strip, in base 2 like the logits:
  // [row offset][tap][lane]. Null without biases.
  const float* Of(int64_t group, int64_t vector) const {
    if (!given_) return nullptr;
    return tables_.data() +
           (group * count_ + numbers_[vector]) * entries_ * kLanes;
  }

  // Tables of a strip, and which of them is that of a vector.
  int64_t count() const { return count_; }
  int64_t Number(int64_t vector) const { return numbers_[vector]; }
  // Whether a vector is the first one with its table.
  bool IsFirst(int64_t vector) const {
    return vector == 0 || numbers_[vector] != numbers_[vector - 1];
  }

 private:
  // Vectors that belong to a single head share its table.
  void NumberVectors() {
    int64_t* numbers = numbers_.Reserve(layout_.vectors);
    for (int64_t vector = 0; vector < layout_.vectors; ++vector) {
      const int64_t lane = vector * kLanes;
      const int64_t head = layout_.lane_head[lane];
      const bool shared = vector > 0 && head >= 0 &&
                          layout_.lane_head[lane - kLanes] == head &&
                          layout_.lane_head[lane + kLanes - 1] == head;
      if (!shared) ++count_;
      numbers[vector] = count_ - 1;
    }
  }

  void Fill(const float* bias, int64_t vector, float* table) const {
    const float* biases[kLanes];
    Bits lanes[kLanes];  // The lanes of a head.
    int64_t count = 0;
    for (int64_t i = 0; i < kLanes; ++i) {
      const int64_t head = layout_.lane_head[vector * kLanes + i];
      if (head < 0) break;  // Lanes behind the last head are not used.
      const float* of_head = bias + head * entries_;
      if (count == 0 || biases[count - 1] != of_head) {
        biases[count] = of_head;
        lanes[count++] = Bits{};
      }
      lanes[count - 1][i] = -1;
    }
    for (int64_t entry = 0; entry < entries_; ++entry) {
      Vector numbers{};
      for (int64_t i = 0; i < count; ++i) {
        numbers = Select(lanes[i], Broadcast(biases[i][entry]), numbers);
      }
      Store(table + entry * kLanes, numbers * kLog2E);
    }
  }

  const Layout& layout_;
  const bool given_;
  const int64_t entries_;
  int64_t count_ = 0;
  AlignedArray<int64_t> numbers_;
  AlignedArray<float> tables_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_BIAS_TABLES_H_
