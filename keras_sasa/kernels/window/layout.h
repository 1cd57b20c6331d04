// Where numbers lie in the rows that a task works on.
//
// A lane is one query of one head. The maps of a few heads stand side by side
// in a strip, so that the lanes of a row fill vectors even where the image is
// narrow. A row of a strip is divided into planes, one a channel:
//
//   row[channel][column phase][left pad | head 0 columns | head 1 ... | pad]
//
// The keys at one offset of the window are then a single load for all lanes of
// a vector, shifted by that offset. With a stride, columns are sorted by their
// remainder, the column phase, which preserves this. Loads that cross the
// border of the image meet zeros or another head; logits there are masked.
//
// Such an offset is a tap. Where windows shift at the border, there are taps
// for all offsets of all windows. A vector computes those that one of its lanes
// sees, mostly no more than a window has, and masks them in the other lanes.
//
// A dilation divides the rows of the image into subgrids that do not see each
// other. A task is one image, one strip and one subgrid.

#ifndef KERAS_SASA_KERNELS_WINDOW_LAYOUT_H_
#define KERAS_SASA_KERNELS_WINDOW_LAYOUT_H_

#include <cstdint>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/attention.h"
#include "keras_sasa/kernels/window/tile_sizes.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Taps of a row of the window whose keys are at equal distances: all of them,
// with a stride those of one column phase, or with windows that shift those of
// one vector.
struct TapGroup {
  int64_t count = 0;
  int64_t skipped = 0;     // Taps before them, which the vector does not see.
  int64_t first_tap = 0;   // Number of the first of them in the row,
  int64_t tap_stride = 0;  // and from one to the next.
  int64_t key_offset = 0;  // Floats from a query to the first of its keys,
  int64_t key_stride = 0;  // and from one to the next.
  bool centered = false;   // See `TapProducts`.
  TileSizes tiles;
};

// The same for all tasks of a call.
struct Layout {
  // `contiguous_floats`: floats of a pixel that a task should read together.
  // `projected`: tasks project an image.
  Layout(const WindowShape& shape, int64_t contiguous_floats,
         bool projected = false)
      : rows(shape.rows),
        columns(shape.columns),
        all_heads(shape.heads),
        width(shape.head_width),
        taps(shape.columns.offsets()),
        window_rows(shape.rows.shifts ? shape.rows.kernel + kQueryRows - 1
                                      : shape.rows.kernel),
        entry_stride(shape.rows.shifts ? 0 : shape.rows.stride),
        window(window_rows * taps),
        row_taps(shape.rows.kernel, kTileTaps),
        column_taps(shape.columns.kernel, kTileTaps),
        half_taps(shape.head_width / 2, kTileTaps),
        row_subgrids(shape.rows.dilation),
        column_phases(shape.columns.stride),
        head_stride(Max(shape.columns.queries,
                        CeilDiv(shape.columns.keys, shape.columns.stride))) {
    ChooseHeads(shape.batch, contiguous_floats, projected);
    vectors = CeilDiv(heads * head_stride, kLanes);
    lanes = vectors * kLanes;
    DivideIntoBlocks();
    groups = all_heads / heads;
    tasks = shape.batch * groups * row_subgrids;
    PlaceTaps();
    PlaceLanes();
    GroupTaps();
    key_channel_stride = column_phases * key_plane_stride;
    key_segment_stride = width * key_channel_stride;
    key_row_stride = CeilDiv(vectors, segment_vectors) * key_segment_stride;
    zeros.ReserveZeros(Max(rows.kernel, taps) * kLanes);
  }

  // Columns of keys in a column phase.
  int64_t PhaseColumns(int64_t phase) const {
    return Max(0, CeilDiv(columns.keys - phase, column_phases));
  }

  // Whether the query of a lane sees the key at a tap.
  bool Sees(int64_t lane, int64_t tap) const {
    if (lane_head[lane] < 0 || lane_column[lane] >= columns.queries) {
      return false;
    }
    const int64_t first = first_tap[lane];
    const int64_t key = lane_column[lane] + tap_shift[tap];
    return tap >= first && tap < first + columns.kernel && key >= 0 &&
           key < PhaseColumns(tap_phase[tap]);
  }

  // Taps of a vector of queries whose keys are in a column phase.
  const TapGroup& QueryTaps(int64_t phase, int64_t vector) const {
    return query_taps_[TapsNumber(phase, vector)];
  }
  // The same of a vector of keys in that phase.
  const TapGroup& KeyTaps(int64_t phase, int64_t vector) const {
    return key_taps_[TapsNumber(phase, vector)];
  }
  // Taps of a vector of queries in all column phases, the first one and how
  // many there are.
  int64_t FirstTapOfVector(int64_t vector) const {
    return QueryTaps(0, vector).skipped;
  }
  int64_t TapsOfVector(int64_t vector) const {
    return columns.shifts ? QueryTaps(0, vector).count : taps;
  }

  // Floats from the first vector of keys in a row to another one.
  int64_t KeyVector(int64_t vector) const {
    return vector / segment_vectors * key_segment_stride +
           vector % segment_vectors * kLanes;
  }

  const WindowAxis rows, columns;
  const int64_t all_heads, width;
  const int64_t taps;  // Of a row of the window.
  // Logits are kept row by row, `taps` each. Row n of the window is row n
  // there, and the next query has it `entry_stride` rows earlier. Windows that
  // shift are some of the rows that the current queries see.
  const int64_t window_rows, entry_stride, window;
  // Tiles of products and sums over these.
  const TileSizes row_taps, column_taps, half_taps;
  const int64_t row_subgrids, column_phases;
  const int64_t head_stride;  // Lanes from one head to the next.
  int64_t heads;              // Heads of a strip.
  int64_t vectors, lanes;     // Of a strip.
  // Blocks of vectors that hold whole heads: no query sees a key of another
  // block.
  int64_t blocks, block_heads, block_vectors;
  int64_t groups;  // Of heads, a strip each.
  int64_t tasks;
  // Floats from the start of a plane to lane 0, and from one plane to the next;
  // the latter also for planes of a block.
  int64_t left, plane_stride, block_plane_stride;
  // Keys and values are kept in segments of a few vectors, if these fit into a
  // cache line a channel with all their windows: no load crosses a line, and a
  // vector reads its keys from adjacent lines. Otherwise the segment is the
  // row.
  bool segmented;
  int64_t segment_vectors, key_plane_stride, key_left;
  // In floats.
  int64_t key_channel_stride, key_segment_stride, key_row_stride;
  AlignedArray<int64_t> tap_shift;  // Lanes from query to key,
  AlignedArray<int64_t> tap_phase;  // and the column phase of that key.
  AlignedArray<float> zeros;  // A vector for each entry of a row or column.
  AlignedArray<int64_t> lane_head;    // Head in the strip, or -1 for none.
  AlignedArray<int64_t> lane_column;  // Column in the row of that head.
  AlignedArray<int64_t> first_tap;    // First tap of the window of a lane.

 private:
  // The part of the lanes that is used by `count` numbers.
  static double UsedLanes(int64_t count) {
    return static_cast<double>(count) / RoundUp(count, kLanes);
  }

  void ChooseHeads(int64_t batch, int64_t contiguous_floats, bool projected) {
    // Few heads leave lanes of the last vector empty and share cache lines with
    // the next task, many leave threads without a task, and their keys do not
    // stay in the second cache. The choice, and with it the result, must not
    // depend on the number of threads.
    constexpr double kTasks = 8, kCache = 528 << 10;
    double best = -1, best_used = 0;
    for (int64_t count = 1; count <= all_heads; ++count) {
      if (all_heads % count != 0) continue;
      double used = UsedLanes(count * head_stride);
      // Columns of the matrices that project are lanes, too.
      if (projected) used *= UsedLanes(count * width);
      const double parallel =
          batch * (all_heads / count) * row_subgrids / kTasks;
      const double read =
          static_cast<double>(count * width) / contiguous_floats;
      // Keys and values of the rows in a window, for three rows of queries.
      const double cached =
          kCache / (2.0 * (rows.kernel + kQueryRows - 1) * columns.keys *
                    count * width * sizeof(float));
      const double score = used * (parallel < 1 ? parallel : 1) *
                           (read < 1 ? read : 1) *
                           (cached < 1 ? cached * cached : 1);
      // Of equal choices the one with less work.
      if (score > best || (score == best && used > best_used)) {
        best = score;
        best_used = used;
        heads = count;
      }
    }
  }

  void DivideIntoBlocks() {
    block_heads = 1;
    while (block_heads < heads && (heads % block_heads != 0 ||
                                   block_heads * head_stride % kLanes != 0)) {
      ++block_heads;
    }
    blocks = heads / block_heads;
    block_vectors = CeilDiv(block_heads * head_stride, kLanes);
  }

  int64_t PlaneStride(int64_t plane_lanes) const {
    // Packing writes whole squares, which may end behind the last lane, and
    // `CopyToSegments` reads whole lines.
    const int64_t stride = RoundUp(
        left + plane_lanes + Max(left, kCacheLineFloats), kCacheLineFloats);
    // Planes that are a power of two apart would compete for few cache sets.
    return stride / kCacheLineFloats % 2 == 0 ? stride + kCacheLineFloats
                                              : stride;
  }

  // The first tap of the window of a query; its key may be outside the image.
  int64_t FirstTap(int64_t column) const {
    if (!columns.shifts) return 0;
    // Windows move among the columns that a dilation leaves.
    const int64_t rate = columns.dilation;
    const int64_t place = column / rate;
    const int64_t last =
        CeilDiv(columns.keys - column % rate, rate) - columns.kernel;
    const int64_t first = Max(0, Min(place - columns.kernel / 2, last));
    return first - place + columns.reach();
  }

  int64_t TapsNumber(int64_t phase, int64_t vector) const {
    return columns.shifts ? vector : phase;
  }

  void PlaceTaps() {
    int64_t* shifts = tap_shift.Reserve(taps);
    int64_t* phases = tap_phase.Reserve(taps);
    int64_t before = 0, behind = 0;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t offset =
          columns.first_query + (tap - columns.reach()) * columns.dilation;
      shifts[tap] = FloorDiv(offset, column_phases);
      phases[tap] = offset - shifts[tap] * column_phases;
      before = Max(before, -shifts[tap]);
      behind = Max(behind, shifts[tap]);
    }
    left = RoundUp(Max(before, behind), kCacheLineFloats);
    plane_stride = PlaneStride(lanes);
    block_plane_stride = PlaneStride(block_vectors * kLanes);
    segmented =
        column_phases == 1 && before + kLanes + behind <= kCacheLineFloats;
    segment_vectors =
        segmented ? (kCacheLineFloats - before - behind) / kLanes : vectors;
    key_plane_stride = segmented ? kCacheLineFloats : plane_stride;
    key_left = segmented ? before : left;
  }

  void GroupTaps() {
    if (!columns.shifts) {
      TapGroup* groups_of_phases = query_taps_.Reserve(column_phases);
      TapGroup* same = key_taps_.Reserve(column_phases);
      for (int64_t phase = 0; phase < column_phases; ++phase) {
        groups_of_phases[phase] = same[phase] = GroupOf(phase, 0, taps);
      }
      return;
    }
    // The taps that a vector of queries sees, and that see a vector of keys.
    struct Range {
      int64_t begin, end;
    };
    AlignedArray<Range> ranges;
    Range* of_queries = ranges.Reserve(2 * vectors);
    Range* of_keys = of_queries + vectors;
    for (int64_t i = 0; i < 2 * vectors; ++i) of_queries[i] = {taps, 0};
    for (int64_t lane = 0; lane < lanes; ++lane) {
      if (lane_head[lane] < 0) continue;
      const int64_t end = first_tap[lane] + columns.kernel;
      for (int64_t tap = first_tap[lane]; tap < end; ++tap) {
        const int64_t key_lane = lane + tap_shift[tap];
        Range* const seen[] = {of_queries + lane / kLanes,
                               of_keys + key_lane / kLanes};
        for (Range* range : seen) {
          *range = {Min(range->begin, tap), Max(range->end, tap + 1)};
        }
      }
    }
    TapGroup* query_taps = query_taps_.Reserve(vectors);
    TapGroup* key_taps = key_taps_.Reserve(vectors);
    for (int64_t vector = 0; vector < vectors; ++vector) {
      const Range query = of_queries[vector], key = of_keys[vector];
      query_taps[vector] = GroupOf(0, query.begin, query.end);
      key_taps[vector] = GroupOf(0, key.begin, key.end);
    }
  }

  // The taps from `begin` to `end` whose keys are in a column phase.
  TapGroup GroupOf(int64_t phase, int64_t begin, int64_t end) const {
    TapGroup group;
    group.skipped = group.first_tap = Min(begin, end);
    for (int64_t tap = begin; tap < end; ++tap) {
      if (tap_phase[tap] != phase) continue;
      if (group.count++ == 0) {
        group.first_tap = tap;
        group.tap_stride = column_phases;
        group.key_offset = phase * key_plane_stride + tap_shift[tap];
        group.key_stride = column_phases > 1 ? 1 : columns.dilation;
      }
    }
    group.tiles = TileSizes(group.count, kTileTaps);
    group.centered =
        !segmented && kLanes == kCacheLineFloats && group.key_stride == 1 &&
        group.count % 2 == 1 &&
        group.key_offset == phase * key_plane_stride - group.count / 2 &&
        group.tiles.size[1] == group.count &&
        group.tiles.size[2] == group.count;
    return group;
  }

  void PlaceLanes() {
    int64_t* lane_heads = lane_head.Reserve(lanes);
    int64_t* lane_columns = lane_column.Reserve(lanes);
    int64_t* first_taps = first_tap.Reserve(lanes);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const int64_t head = lane / head_stride;
      lane_heads[lane] = head < heads ? head : -1;
      lane_columns[lane] = lane - head * head_stride;
      first_taps[lane] = FirstTap(lane_columns[lane]);
    }
  }

  // Of every column phase, or of every vector if windows shift, which takes one
  // phase.
  AlignedArray<TapGroup> query_taps_, key_taps_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_LAYOUT_H_
