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
    query_first = first;
    query_count = count;
    key_first = FirstKey(first);
    for (int64_t row = 0; row < count; ++row) {
      window_steps_[row] = FirstKey(first + row) - key_first;
    }
    step_begin = Max(0, -key_first);
    step_end =
        Min(WindowStep(count - 1) + layout_.rows.kernel, keys - key_first);
    FindSpans();
  }

  // The step at which the window of the current query row `row` starts.
  int64_t WindowStep(int64_t row) const { return window_steps_[row]; }

  // The row of logits, see `Layout::window_rows`, of the current query row
  // `row` and the keys of a step.
  int64_t Entry(int64_t row, int64_t step) const {
    return step - row * layout_.entry_stride;
  }

  // Rows of logits, of the current query row `row`, whose keys are inside the
  // image.
  void WindowRows(int64_t row, int64_t* begin, int64_t* end) const {
    const int64_t step = WindowStep(row);
    const int64_t start = key_first + step;
    const int64_t entry = Entry(row, step);
    const int64_t outside = Max(0, -start);
    *begin = entry + outside;
    *end = entry + Max(outside, Min(layout_.rows.kernel, keys - start));
  }

  // The number of the offset, in rows, from the current query row `row` to the
  // keys of a step; see `WindowAxis::offsets`.
  int64_t RowOffset(int64_t row, int64_t step) const {
    return key_first + step - KeyOfQuery(query_first + row) +
           layout_.rows.reach();
  }

  // The first and the last row of queries that see a row of keys, perhaps
  // beyond the image.
  int64_t FirstQuery(int64_t key) const {
    const int64_t kernel = layout_.rows.kernel;
    if (layout_.rows.shifts && key < kernel) return 0;
    return Max(
        0, CeilDiv(key - key_of_first_query - kernel / 2, layout_.rows.stride));
  }
  int64_t LastQuery(int64_t key) const {
    const int64_t kernel = layout_.rows.kernel;
    if (layout_.rows.shifts && key >= keys - kernel) return queries - 1;
    return Min(queries - 1, FloorDiv(key - key_of_first_query + kernel / 2,
                                     layout_.rows.stride));
  }

  const KeySpan* begin() const { return spans_.data(); }
  const KeySpan* end() const { return spans_.data() + span_count_; }

  const int64_t subgrid, group, image, first_head;
  const int64_t queries, keys;       // Numbers of rows.
  const int64_t key_of_first_query;  // Row of keys under query row 0.
  // The current rows of queries, from `query_first` on, and the rows of keys
  // that they see: row `key_first` plus the steps from `step_begin` to
  // `step_end`.
  int64_t query_first = 0, query_count = 0, key_first = 0;
  int64_t step_begin = 0, step_end = 0;

 private:
  int64_t FirstKeyRow(const Layout& layout) const {
    return (layout.rows.first_query + subgrid) % layout.rows.dilation;
  }

  // The row of keys under a row of queries.
  int64_t KeyOfQuery(int64_t query) const {
    return key_of_first_query + query * layout_.rows.stride;
  }

  // The first row of keys of a window, perhaps outside the image.
  int64_t FirstKey(int64_t query) const {
    const int64_t kernel = layout_.rows.kernel;
    const int64_t first = KeyOfQuery(query) - kernel / 2;
    return layout_.rows.shifts ? Max(0, Min(first, keys - kernel)) : first;
  }

  void FindSpans() {
    const int64_t kernel = layout_.rows.kernel;
    KeySpan* spans =
        spans_.Reserve(kernel + (kQueryRows - 1) * layout_.rows.stride);
    span_count_ = 0;
    for (int64_t step = step_begin; step < step_end; ++step) {
      int64_t first = 0, end = query_count;
      while (first < end && WindowStep(first) + kernel <= step) ++first;
      while (end > first && WindowStep(end - 1) > step) --end;
      const int64_t count = end - first;
      if (count == 0) continue;  // Between the windows of a large stride.
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
  int64_t window_steps_[kQueryRows] = {};
  int64_t span_count_ = 0;
  AlignedArray<KeySpan> spans_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_STRIP_H_
