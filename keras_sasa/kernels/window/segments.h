// Rows of keys, from planes to the segments of a layout that is `segmented`.

#ifndef KERAS_SASA_KERNELS_WINDOW_SEGMENTS_H_
#define KERAS_SASA_KERNELS_WINDOW_SEGMENTS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/layout.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Both pointers point to lane 0 of the first channel.
KERAS_SASA_NOINLINE inline void CopyToSegments(const Layout& layout,
                                               const float* planes,
                                               float* row) {
  for (int64_t vector = 0; vector < layout.vectors;
       vector += layout.segment_vectors) {
    const float* from = planes + vector * kLanes - layout.key_left;
    float* to = row + layout.KeyVector(vector) - layout.key_left;
    for (int64_t channel = 0; channel < layout.width; ++channel) {
      KERAS_SASA_UNROLL
      for (int64_t i = 0; i < kCacheLineFloats; i += kLanes) {
        Store(to + i, Load(from + i));
      }
      from += layout.plane_stride;
      to += kCacheLineFloats;
    }
  }
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_SEGMENTS_H_
