// Maps (batch, head, query row, query column), which have one number a lane.

#ifndef KERAS_SASA_KERNELS_WINDOW_SCALAR_MAPS_H_
#define KERAS_SASA_KERNELS_WINDOW_SCALAR_MAPS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/layout.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

class ScalarMaps {
 public:
  explicit ScalarMaps(const Layout& layout) : layout_(layout) {
    int64_t* offsets = offsets_.Reserve(layout.lanes);
    for (int64_t lane = 0; lane < layout.lanes; ++lane) {
      const int64_t head = layout.lane_head[lane];
      const int64_t column = layout.lane_column[lane];
      offsets[lane] =
          head >= 0 && column < layout.columns.queries
              ? head * layout.rows.queries * layout.columns.queries + column
              : -1;
    }
  }

  // The row of a strip in a map. `image_row` counts the rows of all images.
  template <typename Float>
  Float* Row(Float* map, int64_t image_row, int64_t first_head) const {
    const int64_t rows = layout_.rows.queries;
    return map + ((image_row / rows * layout_.all_heads + first_head) * rows +
                  image_row % rows) *
                     layout_.columns.queries;
  }

  // Writes a vector of numbers to a row.
  void Scatter(Vector numbers, int64_t vector, float* row) const {
    const int64_t* offsets = offsets_.data() + vector * kLanes;
    if (Adjacent(offsets)) {
      Store(row + offsets[0], numbers);
      return;
    }
    for (int64_t i = 0; i < kLanes; ++i) {
      if (offsets[i] >= 0) row[offsets[i]] = numbers[i];
    }
  }

  // The inverse; `missing` where there is no query.
  Vector Gather(const float* row, int64_t vector, float missing) const {
    const int64_t* offsets = offsets_.data() + vector * kLanes;
    if (Adjacent(offsets)) return Load(row + offsets[0]);
    Vector numbers = Broadcast(missing);
    for (int64_t i = 0; i < kLanes; ++i) {
      if (offsets[i] >= 0) numbers[i] = row[offsets[i]];
    }
    return numbers;
  }

 private:
  static bool Adjacent(const int64_t* offsets) {
    return offsets[0] >= 0 && offsets[kLanes - 1] == offsets[0] + kLanes - 1;
  }

  const Layout& layout_;
  AlignedArray<int64_t> offsets_;  // From a row; -1 where there is no query.
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_SCALAR_MAPS_H_
