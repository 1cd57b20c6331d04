// The rows of keys and values that the current queries of a strip see, packed
// or projected once each.

#ifndef KERAS_SASA_KERNELS_WINDOW_KEY_RINGS_H_
#define KERAS_SASA_KERNELS_WINDOW_KEY_RINGS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/exponentials.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/window/attention.h"
#include "keras_sasa/kernels/window/layout.h"
#include "keras_sasa/kernels/window/packing.h"
#include "keras_sasa/kernels/window/projection.h"
#include "keras_sasa/kernels/window/ring.h"
#include "keras_sasa/kernels/window/segments.h"
#include "keras_sasa/kernels/window/strip.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

class KeyRings {
 public:
  // `projector` may be null.
  KeyRings(const Layout& layout, const WindowInputs& inputs,
           const Packing& key_packing, const Packing& value_packing,
           const Projector* projector)
      : layout_(layout),
        inputs_(inputs),
        key_packing_(key_packing),
        value_packing_(value_packing),
        projector_(projector),
        query_factor_(kLog2E * inputs.scale) {
    int64_t slots = layout.rows.kernel + (kQueryRows - 1) * layout.rows.stride;
    // Rows are projected before they are needed.
    if (projector) slots += projector->key_rows() - 1;
    keys = {nullptr, slots, layout.key_row_stride, layout.key_left};
    values = keys;
    queries = {nullptr, projector ? projector->query_rows() : kQueryRows,
               layout.width * layout.plane_stride, layout.left};
  }

  // Packs or projects the rows of queries from `first` on that are current, and
  // perhaps the ones that follow.
  void FillQueries(const Packing& packing, const Strip& strip, int64_t first) {
    if (first % queries.slots != 0) return;
    const int64_t count = Min(queries.slots, strip.queries - first);
    if (projector_) {
      projector_->ProjectQueries(strip.KeyImageRow(strip.key_of_first_query +
                                                   first * layout_.rows.stride),
                                 count, strip.group, &projected);
    }
    for (int64_t i = 0; i < count; ++i) {
      float* to = queries.Row(first + i);
      if (projector_) {
        packing.Pack({projected.data}, i, 0, query_factor_, to);
      } else {
        packing.Pack(inputs_.query, strip.QueryImageRow(first + i),
                     strip.first_head, query_factor_, to);
      }
    }
  }

  // Packs or projects the keys that the current queries of the strip see.
  void Fill(const Strip& strip) {
    filled_ = Max(filled_, strip.key_first);
    const int64_t end = Min(strip.keys, strip.key_first + strip.step_end);
    if (projector_) {
      while (filled_ < end) Project(strip);
    }
    for (; filled_ < end; ++filled_) {
      const int64_t row = strip.KeyImageRow(filled_);
      Pack(value_packing_, inputs_.value, row, strip.first_head,
           values.Row(filled_));
      if (inputs_.key.data != nullptr) {
        Pack(key_packing_, inputs_.key, row, strip.first_head,
             keys.Row(filled_));
      }
    }
    int64_t* offsets = step_offsets_.Reserve(keys.slots);
    for (int64_t step = strip.step_begin; step < strip.step_end; ++step) {
      offsets[step - strip.step_begin] = keys.RowOffset(strip.key_first + step);
    }
  }

  // Floats from `Ring::data` to the row of a step, from `Strip::step_begin` on.
  const int64_t* step_offsets() const { return step_offsets_.data(); }

  Ring keys, values;
  Ring queries;  // Of the forward pass, because they may be projected.
  // Scratch memory: a row of keys before it is copied to segments; and rows
  // that are projected, channels last.
  float* planes = nullptr;
  ProjectionMemory projected;
  bool finite = true;  // Whether all numbers so far were.

 private:
  // The next rows of keys and values.
  void Project(const Strip& strip) {
    const int64_t count = Min(projector_->key_rows(), strip.keys - filled_);
    if (inputs_.content()) {
      Project(strip, kKeyMap, count, key_packing_, keys);
    }
    Project(strip, kValueMap, count, value_packing_, values);
    filled_ += count;
  }

  void Project(const Strip& strip, ProjectedMap map, int64_t count,
               const Packing& packing, const Ring& ring) {
    projector_->ProjectKeys(map, strip.KeyImageRow(filled_), count, strip.group,
                            &projected);
    for (int64_t i = 0; i < count; ++i) {
      Pack(packing, {projected.data}, i, 0, ring.Row(filled_ + i));
    }
  }

  void Pack(const Packing& packing, const Map<const void>& map,
            int64_t image_row, int64_t first_head, float* to) {
    float* first = layout_.segmented ? planes + layout_.left : to;
    finite &= packing.Pack(map, image_row, first_head, 1.0f, first);
    if (layout_.segmented) CopyToSegments(layout_, first, to);
  }

  const Layout& layout_;
  const WindowInputs& inputs_;
  const Packing &key_packing_, &value_packing_;
  const Projector* const projector_;
  const float query_factor_;  // Logits are in base 2.
  int64_t filled_ = 0;  // Rows of keys below this are or were in the rings.
  AlignedArray<int64_t> step_offsets_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_KEY_RINGS_H_
