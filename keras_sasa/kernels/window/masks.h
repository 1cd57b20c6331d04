// Which keys of a row of the window are inside the image, lane by lane.

#ifndef KERAS_SASA_KERNELS_WINDOW_MASKS_H_
#define KERAS_SASA_KERNELS_WINDOW_MASKS_H_

#include <cmath>
#include <cstdint>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/masked_logit.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/layout.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

class Masks {
 public:
  explicit Masks(const Layout& layout)
      : taps_(layout.taps),
        vectors_(layout.vectors),
        masked_logit_(layout.columns.shifts ? -INFINITY : kMaskedLogit) {
    Bits* masks = masks_.ReserveZeros(vectors_ * taps_);
    Bits* key_masks =
        key_masks_.ReserveZeros(layout.column_phases * vectors_ * taps_);
    bool* inside = inside_.Reserve(vectors_);
    for (int64_t vector = 0; vector < vectors_; ++vector) inside[vector] = true;
    AlignedArray<int64_t> counters;
    for (int64_t lane = 0; lane < layout.lanes; ++lane) {
      const int64_t vector = lane / kLanes;
      int64_t* counts = counters.ReserveZeros(layout.column_phases);
      for (int64_t tap = 0; tap < taps_; ++tap) {
        const int64_t phase = layout.tap_phase[tap];
        const int64_t shift = layout.tap_shift[tap];
        const int64_t number = counts[phase]++;
        if (!layout.Sees(lane, tap)) {
          // No vector computes the taps that none of its lanes sees.
          const int64_t number = tap - layout.FirstTapOfVector(vector);
          if (number >= 0 && number < layout.TapsOfVector(vector)) {
            inside[vector] = false;
          }
          continue;
        }
        masks[vector * taps_ + tap][lane % kLanes] = -1;
        const int64_t key_lane = lane + shift;
        key_masks[(phase * vectors_ + key_lane / kLanes) * taps_ + number]
                 [key_lane % kLanes] = -1;
      }
    }
  }

  // Whether the queries of a vector see the keys at all of its taps, so that no
  // mask is needed.
  bool inside(int64_t vector) const { return inside_[vector]; }

  // Finite where keys are outside the image, as in the other implementations:
  // where all keys are at -infinity, the masked ones count. Windows that shift
  // have no such keys.
  float masked_logit() const { return masked_logit_; }

  // One mask a tap.
  const Bits* OfQueries(int64_t vector) const {
    return masks_.data() + vector * taps_;
  }
  // The same in the lanes of the keys, one mask a tap of their column phase.
  const Bits* OfKeys(int64_t phase, int64_t vector) const {
    return key_masks_.data() + (phase * vectors_ + vector) * taps_;
  }

 private:
  const int64_t taps_, vectors_;
  const float masked_logit_;
  AlignedArray<Bits> masks_, key_masks_;
  AlignedArray<bool> inside_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_MASKS_H_
