// The rows of a task: which rows of the image they are, and which of them see
// each other. A task walks down its strip, kQueryRows rows of queries at a
// time.

#ifndef KERAS_SASA_KERNELS_WINDOW_STRIP_H_
#define KERAS_SASA_KERNELS_WINDOW_STRIP_H_

#include <cstdint>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/window/layout.h"
#include "keras_sasa/kernels/window/tile_sizes.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Steps `begin` to `end`, which are rows of keys that the same rows of queries
// see: `first` to `first + count`.
struct KeySpan {
  int64_t first, count, begin, end;
};

class Strip {
 public:
  Strip(const Layout& layout, int64_t task)
      : subgrid(task % layout.row_subgrids),
        group(task / layout.row_subgrids % layout.groups),
        image(task / layout.row_subgrids / layout.groups),
        first_head(group * layout.heads),
        queries(Max(
            0, CeilDiv(layout.rows.queries - subgrid, layout.rows.dilation))),
        keys(Max(0, CeilDiv(layout.rows.keys - FirstKeyRow(layout),
                            layout.rows.dilation))),
        key_of_first_query((layout.rows.first_query + subgrid) /
                           layout.rows.dilation),
        layout_(layout) {}

  // Row in all images of row `number` of the queries or keys of this strip.
  int64_t QueryImageRow(int64_t number) const {
    return image * layout_.rows.queries + subgrid +
           number * layout_.rows.dilation;
  }
  int64_t KeyImageRow(int64_t number) const {
    return image * layout_.rows.keys + FirstKeyRow(layout_) +
           number * layout_.rows.dilation;
  }

  // Moves to the rows of queries `first` to `first + count`.
  void MoveTo(int64_t first, int64_t count) {
    const int64_t stride = layout_.rows.stride;
    const int64_t kernel = layout_.rows.kernel;
    query_count = count;
    key_first = key_of_first_query + first * stride - kernel / 2;
    step_begin = Max(0, -key_first);
    step_end = Min(kernel + (count - 1) * stride, keys - key_first);
    FindSpans();
  }

  // Rows of the window, of the current query row `row`, that are inside the
  // image.
  void WindowRows(int64_t row, int64_t* begin, int64_t* end) const {
    const int64_t start = key_first + row * layout_.rows.stride;
    *begin = Max(0, -start);
    *end = Max(*begin, Min(layout_.rows.kernel, keys - start));
  }

  const KeySpan* begin() const { return spans_.data(); }
  const KeySpan* end() const { return spans_.data() + span_count_; }

  const int64_t subgrid, group, image, first_head;
  const int64_t queries, keys;       // Numbers of rows.
  const int64_t key_of_first_query;  // Row of keys under query row 0.
  // The current rows of queries, and the rows of keys that they see: row
  // `key_first` plus the steps from `step_begin` to `step_end`.
  int64_t query_count = 0, key_first = 0;
  int64_t step_begin = 0, step_end = 0;

 private:
  int64_t FirstKeyRow(const Layout& layout) const {
    return (layout.rows.first_query + subgrid) % layout.rows.dilation;
  }

  void FindSpans() {
    const int64_t stride = layout_.rows.stride;
    const int64_t kernel = layout_.rows.kernel;
    KeySpan* spans = spans_.Reserve(kernel + (kQueryRows - 1) * stride);
    span_count_ = 0;
    for (int64_t step = step_begin; step < step_end; ++step) {
      const int64_t first = Max(0, CeilDiv(step - kernel + 1, stride));
      const int64_t count = Min(query_count - 1, step / stride) - first + 1;
      if (count < 1) continue;  // Between the windows of a large stride.
      if (span_count_ > 0 && spans[span_count_ - 1].first == first &&
          spans[span_count_ - 1].count == count &&
          spans[span_count_ - 1].end == step) {
        ++spans[span_count_ - 1].end;
      } else {
        spans[span_count_++] = {first, count, step, step + 1};
      }
    }
  }

  const Layout& layout_;
  int64_t span_count_ = 0;
  AlignedArray<KeySpan> spans_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_STRIP_H_
