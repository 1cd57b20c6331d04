// The mathematics of local self-attention, written for vectors of lanes.
//
// Layout. A lane is one query of one head. The maps of a few heads stand side
// by side in a strip, so that the lanes of a row fill vectors even where the
// image is narrow; a row of a strip is cut into planes, one a channel:
//
//   row[channel][column phase][left pad | head 0 columns | head 1 ... | pad]
//
// The key at one offset of the window of every lane then is one load, shifted
// by that offset. With a stride, columns are sorted by their remainder (the
// column phase), which keeps that true. Loads that cross the border of the
// image meet zeros or another head: there logits are masked. Rows outside the
// image are left out of the loops.
//
// Rows. A dilation cuts the rows into phases that do not see each other; a task
// is one image, a few heads and one such phase. It walks down the image with
// rings of rows, kRows rows of queries at a time: these share every load of
// keys and values. The gradient keeps the weights of the rows in the ring.

#include "local_attention.h"

#include <cmath>
#include <cstring>

#include "vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {
namespace {

// Sizes of blocks whose accumulators and operands fill the registers: for one,
// two and three rows of queries, the number of taps (logits) and of channels
// (weighted sums) that are computed together.
constexpr int kRows = 3;
#if defined(__AVX512VL__) || defined(__aarch64__)
constexpr int kTaps[] = {0, 8, 8, 7};
constexpr int kChannels[] = {0, 8, 8, 8};
#else
constexpr int kTaps[] = {0, 8, 4, 4};
constexpr int kChannels[] = {0, 8, 6, 4};
#endif

// A projection computes kUnit times 3 / n channels of n vectors of pixels
// together, as many as there are registers for.
#if defined(__AVX512VL__) || defined(__aarch64__)
constexpr int kUnit = 8;
#else
constexpr int kUnit = 4;
#endif
constexpr int kTile = 3;
constexpr int kPanel = 3 * kUnit;  // Columns of a matrix that lie together.
// Pixels that are projected at a time, at least, in whole rows; and channels of
// the image, so that a tile fits into the first cache.
constexpr int64_t kProjectedPixels = 48;
constexpr int64_t kProjectedChannels = 256;

// Floats of a cache line.
constexpr int64_t kLine = 16;

// Floats of a pixel that a task should read together. Much is good for the
// caches; but the backward pass keeps k * k weights a lane in its rings, and
// one that projects keeps more rows, which should not leave them.
constexpr int64_t kForwardLine = 64;
constexpr int64_t kProjectedLine = 32;
constexpr int64_t kBackwardLine = 16;

// How many taps or channels are computed together, for every number of rows:
// blocks of about the same size, as small ones are slow.
struct Blocks {
  int64_t total = 0;
  int64_t size[kRows + 1] = {};

  Blocks() = default;
  Blocks(int64_t total, const int (&limits)[kRows + 1]) : total(total) {
    for (int rows = 1; rows <= kRows; ++rows) {
      size[rows] =
          total == 0 ? 1 : ceil_div(total, ceil_div(total, limits[rows]));
    }
  }
};

// Taps that lie at equal distances: those of a row of the window, or with a
// stride those of one column phase.
struct Taps {
  int64_t count = 0;
  int64_t first = 0;   // Number of the first of them in the row of the window,
  int64_t step = 0;    // and from one to the next.
  int64_t offset = 0;  // Floats from a query to the first of its keys,
  int64_t shift = 0;   // and from one to the next.
  Blocks blocks;
};

// output[step][row][tap] = bias + sum over channels of query[row] * key[tap].
struct Correlation {
  const float* query;
  int64_t query_row;      // Floats from one row to the next,
  int64_t query_channel;  // and from one channel to the next.
  int64_t steps;
  const float* const* keys;  // One pointer a step.
  int64_t key_tap;
  int64_t key_channel;
  int64_t channels;
  const float* row_bias;  // One vector a row and step.
  int64_t row_bias_row;
  int64_t row_bias_step;
  const float* tap_bias;  // One vector a row and tap.
  int64_t tap_bias_row;
  float* output;  // One vector a row, step and tap.
  int64_t output_row;
  int64_t output_step;
  int64_t tap;  // Floats from one tap to the next in tap_bias and output.
};

template <int rows, int taps, bool adjacent>
KERAS_SASA_NOINLINE void correlate_block(const Correlation& c, int64_t first) {
  // Copies: the compiler must believe that the stores change members.
  const int64_t channels = c.channels;
  const int64_t query_row = c.query_row;
  const int64_t query_channel = c.query_channel;
  const int64_t key_channel = c.key_channel;
  const int64_t key_tap = adjacent ? 1 : c.key_tap;
  const int64_t output_tap = c.tap;
  const float* row_bias = c.row_bias;
  float* output = c.output + first * output_tap;
  for (int64_t step = 0; step < c.steps; ++step) {
    Vector sums[rows][taps];
    KERAS_SASA_UNROLL
    for (int row = 0; row < rows; ++row) {
      const Vector bias = load(row_bias + row * c.row_bias_row);
      const float* tap_bias =
          c.tap_bias + row * c.tap_bias_row + first * output_tap;
      KERAS_SASA_UNROLL
      for (int tap = 0; tap < taps; ++tap) {
        sums[row][tap] = bias + load(tap_bias + tap * output_tap);
      }
    }
    const float* query = c.query;
    const float* key = c.keys[step] + first * key_tap;
    for (int64_t channel = 0; channel < channels; ++channel) {
      Vector queries[rows];
      KERAS_SASA_UNROLL
      for (int row = 0; row < rows; ++row) {
        queries[row] = load(query + row * query_row);
      }
      KERAS_SASA_UNROLL
      for (int tap = 0; tap < taps; ++tap) {
        const Vector keys = load(key + tap * key_tap);
        KERAS_SASA_UNROLL
        for (int row = 0; row < rows; ++row) {
          sums[row][tap] += queries[row] * keys;
        }
      }
      query += query_channel;
      key += key_channel;
    }
    KERAS_SASA_UNROLL
    for (int row = 0; row < rows; ++row) {
      KERAS_SASA_UNROLL
      for (int tap = 0; tap < taps; ++tap) {
        store(output + row * c.output_row + tap * output_tap, sums[row][tap]);
      }
    }
    row_bias += c.row_bias_step;
    output += c.output_step;
  }
}

template <int rows, int taps>
inline void correlate_taps(const Correlation& c, int64_t first, int64_t count) {
  if constexpr (taps > 1) {
    if (count < taps) return correlate_taps<rows, taps - 1>(c, first, count);
  }
  if (c.key_tap == 1) return correlate_block<rows, taps, true>(c, first);
  correlate_block<rows, taps, false>(c, first);
}

template <int rows = kRows>
void correlate(const Correlation& c, int64_t row_count, const Blocks& taps) {
  if constexpr (rows > 1) {
    if (row_count < rows) return correlate<rows - 1>(c, row_count, taps);
  }
  const int64_t size = taps.size[rows];
  for (int64_t first = 0; first < taps.total; first += size) {
    correlate_taps<rows, kTaps[rows]>(c, first, min(size, taps.total - first));
  }
}

// output[row][channel] += sum over steps and taps of weight[row] * value.
struct WeightedSum {
  const float* const* weights;  // One pointer a step, to row 0 and tap 0.
  int64_t weight_row;
  int64_t weight_tap;
  const float* const* values;  // One pointer a step, to channel 0 and tap 0.
  int64_t value_channel;
  int64_t value_tap;
  int64_t steps;
  int64_t taps;
  float* output;  // One vector a row and channel.
  int64_t output_row;
  // Where a key takes part, one a tap. Without it weights of keys that take no
  // part are multiplied, as zeros, by whatever number is there.
  const Bits* masks;
  int64_t mask_tap;
};

template <int rows, int channels, bool masked>
KERAS_SASA_NOINLINE void add_block(const WeightedSum& s, int64_t first) {
  Vector sums[rows][channels];
  KERAS_SASA_UNROLL
  for (int row = 0; row < rows; ++row) {
    const float* output = s.output + row * s.output_row + first * kLanes;
    KERAS_SASA_UNROLL
    for (int channel = 0; channel < channels; ++channel) {
      sums[row][channel] = load(output + channel * kLanes);
    }
  }
  for (int64_t step = 0; step < s.steps; ++step) {
    const float* weight = s.weights[step];
    const float* value = s.values[step] + first * s.value_channel;
    for (int64_t tap = 0; tap < s.taps; ++tap) {
      Vector weights[rows];
      KERAS_SASA_UNROLL
      for (int row = 0; row < rows; ++row) {
        weights[row] = load(weight + row * s.weight_row);
        if (masked) {
          weights[row] = zero_unless(s.masks[tap * s.mask_tap], weights[row]);
        }
      }
      KERAS_SASA_UNROLL
      for (int channel = 0; channel < channels; ++channel) {
        Vector values = load(value + channel * s.value_channel);
        if (masked) values = zero_unless(s.masks[tap * s.mask_tap], values);
        KERAS_SASA_UNROLL
        for (int row = 0; row < rows; ++row) {
          sums[row][channel] += weights[row] * values;
        }
      }
      weight += s.weight_tap;
      value += s.value_tap;
    }
  }
  KERAS_SASA_UNROLL
  for (int row = 0; row < rows; ++row) {
    float* output = s.output + row * s.output_row + first * kLanes;
    KERAS_SASA_UNROLL
    for (int channel = 0; channel < channels; ++channel) {
      store(output + channel * kLanes, sums[row][channel]);
    }
  }
}

template <int rows, int channels>
inline void add_channels(const WeightedSum& s, int64_t first, int64_t count) {
  if constexpr (channels > 1) {
    if (count < channels) {
      return add_channels<rows, channels - 1>(s, first, count);
    }
  }
  if (s.masks != nullptr) return add_block<rows, channels, true>(s, first);
  add_block<rows, channels, false>(s, first);
}

template <int rows = kRows>
void add_weighted(const WeightedSum& s, int64_t row_count,
                  const Blocks& channels) {
  if constexpr (rows > 1) {
    if (row_count < rows) {
      return add_weighted<rows - 1>(s, row_count, channels);
    }
  }
  const int64_t size = channels.size[rows];
  for (int64_t first = 0; first < channels.total; first += size) {
    add_channels<rows, kChannels[rows]>(s, first,
                                        min(size, channels.total - first));
  }
}

// Where things are in the rows of a strip; the same for all tasks of a call.
class Layout {
 public:
  // `line`: floats of a pixel that a task should read together.
  Layout(const Shape& shape, const Inputs& inputs, int64_t line)
      : rows(shape.rows),
        columns(shape.columns),
        all_heads(shape.heads),
        width(shape.head_width),
        window(shape.rows.kernel * shape.columns.kernel),
        row_taps(shape.rows.kernel, kTaps),
        column_taps(shape.columns.kernel, kTaps),
        channels(shape.head_width, kChannels),
        half_channels(shape.head_width / 2, kChannels),
        half_taps(shape.head_width / 2, kTaps),
        row_phases(shape.rows.dilation),
        column_phases(shape.columns.stride),
        head_stride(max(shape.columns.queries,
                        ceil_div(shape.columns.keys, shape.columns.stride))) {
    choose_heads(shape.batch, line);
    vectors = ceil_div(heads * head_stride, kLanes);
    lanes = vectors * kLanes;
    groups = all_heads / heads;
    tasks = shape.batch * groups * row_phases;
    place_taps();
    key_channel = column_phases * key_pitch;
    key_block = width * key_channel;
    key_row = ceil_div(vectors, block_vectors) * key_block;
    const int64_t entries = max(rows.kernel, columns.kernel);
    zeros.zeros(entries * kLanes);
    place_lanes();
    make_masks();
    relative = inputs.row_embedding != nullptr;
    if (relative) make_tables(inputs);
  }

  // Queries and keys of a row phase, counted in rows of that phase.
  struct RowPhase {
    int64_t query_first, queries;  // Rows query_first + n * dilation.
    int64_t key_first, keys;
    int64_t first_query;  // Row of keys under query 0.
  };

  RowPhase row_phase(int64_t phase) const {
    const int64_t dilation = rows.dilation;
    RowPhase result;
    result.query_first = phase;
    result.queries = max(0, ceil_div(rows.queries - phase, dilation));
    result.key_first = (rows.first_query + phase) % dilation;
    result.keys = max(0, ceil_div(rows.keys - result.key_first, dilation));
    result.first_query = (rows.first_query + phase) / dilation;
    return result;
  }

  // Columns of keys in a column phase.
  int64_t phase_columns(int64_t phase) const {
    return max(0, ceil_div(columns.keys - phase, column_phases));
  }

  // Row (column) embedding of the lanes of a vector: [entry][channel][lane].
  const float* row_table(int64_t group, int64_t vector) const {
    return tables_.data() + table_places_[group * vectors + vector];
  }
  const float* column_table(int64_t group, int64_t vector) const {
    return row_table(group, vector) + rows.kernel * (width / 2) * kLanes;
  }

  // Floats from the first vector of keys in a row to another one.
  int64_t key_vector(int64_t vector) const {
    return vector / block_vectors * key_block + vector % block_vectors * kLanes;
  }

  // Copies a row of planes to the blocks of a row of keys.
  KERAS_SASA_NOINLINE void spread(const float* planes, float* row) const {
    for (int64_t vector = 0; vector < vectors; vector += block_vectors) {
      const float* from = planes + vector * kLanes - key_left;
      float* to = row + key_vector(vector) - key_left;
      for (int64_t channel = 0; channel < width; ++channel) {
        KERAS_SASA_UNROLL
        for (int64_t i = 0; i < kLine; i += kLanes) {
          store(to + i, load(from + i));
        }
        from += pitch;
        to += kLine;
      }
    }
  }

  const Bits* masks(int64_t vector) const {
    return masks_.data() + vector * columns.kernel;
  }
  // The same seen from the lane of the key, for the taps of its column phase.
  // Here taps are counted among those of the phase.
  const Bits* key_masks(int64_t phase, int64_t vector) const {
    return key_masks_.data() + (phase * vectors + vector) * columns.kernel;
  }
  // Whether no mask is needed.
  bool inside(int64_t vector) const { return inside_[vector]; }

  // Row `place` of all images in a map (batch, head, query row, query column).
  template <typename Float>
  Float* scalar_row(Float* map, int64_t place, int64_t first_head) const {
    return map +
           ((place / rows.queries * all_heads + first_head) * rows.queries +
            place % rows.queries) *
               columns.queries;
  }
  // Writes a number a lane; `row` is a `scalar_row`.
  void scatter(Vector numbers, int64_t vector, float* row) const {
    const int64_t* places = scalar_places_.data() + vector * kLanes;
    if (places[0] >= 0 && places[kLanes - 1] == places[0] + kLanes - 1) {
      store(row + places[0], numbers);
      return;
    }
    for (int64_t i = 0; i < kLanes; ++i) {
      if (places[i] >= 0) row[places[i]] = numbers[i];
    }
  }
  // The inverse; `missing` where there is no query.
  Vector gather(const float* row, int64_t vector, float missing) const {
    const int64_t* places = scalar_places_.data() + vector * kLanes;
    if (places[0] >= 0 && places[kLanes - 1] == places[0] + kLanes - 1) {
      return load(row + places[0]);
    }
    Vector numbers = all(missing);
    for (int64_t i = 0; i < kLanes; ++i) {
      if (places[i] >= 0) numbers[i] = row[places[i]];
    }
    return numbers;
  }

  const Axis rows, columns;
  const int64_t all_heads, width, window;
  const Blocks row_taps, column_taps, channels, half_channels, half_taps;
  const int64_t row_phases, column_phases, head_stride;
  int64_t heads;  // Heads of a strip.
  int64_t vectors, lanes, groups, tasks;
  int64_t left, pitch;
  bool relative;
  // Keys and values are kept in blocks of a few vectors, where these fit into a
  // cache line a channel with all their windows, so that no load crosses a line
  // and a vector reads what it needs in one go. Otherwise the block is the row.
  bool blocked;
  int64_t block_vectors, key_pitch, key_left;
  int64_t key_channel, key_block, key_row;  // Floats from one to the next.
  Array<int64_t> tap_shift;                 // Lanes from query to key,
  Array<int64_t> tap_phase;   // and the column phase that holds this key.
  Array<Taps> phase_taps;     // Taps whose keys are in each column phase.
  Array<float> zeros;         // A vector for each entry of a row or column.
  Array<int64_t> lane_head;   // Head in the strip; -1 where there is none.
  Array<int64_t> lane_place;  // Place in the row of that head.

 private:
  void choose_heads(int64_t batch, int64_t line) {
    // Few heads leave lanes of the last vector empty and share cache lines with
    // the next task, many leave threads without a task. The number of threads
    // must not matter for the result.
    constexpr double kTasks = 8;
    double best = -1;
    for (int64_t count = 1; count <= all_heads; ++count) {
      if (all_heads % count != 0) continue;
      const double used = static_cast<double>(count * head_stride) /
                          round_up(count * head_stride, kLanes);
      const double parallel = batch * (all_heads / count) * row_phases / kTasks;
      const double read = static_cast<double>(count * width) / line;
      const double score =
          used * (parallel < 1 ? parallel : 1) * (read < 1 ? read : 1);
      if (score > best) {
        best = score;
        heads = count;
      }
    }
  }

  void place_taps() {
    const int64_t taps = columns.kernel;
    int64_t* shifts = tap_shift.reserve(taps);
    int64_t* phases = tap_phase.reserve(taps);
    int64_t before = 0, behind = 0;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t offset =
          columns.first_query + (tap - taps / 2) * columns.dilation;
      shifts[tap] = floor_div(offset, column_phases);
      phases[tap] = offset - shifts[tap] * column_phases;
      before = max(before, -shifts[tap]);
      behind = max(behind, shifts[tap]);
    }
    left = round_up(max(before, behind), 16);
    // Packing writes whole blocks, which may end behind the last lane, and
    // `spread` reads whole lines.
    pitch = round_up(left + lanes + max(left, kLine), 16);
    // Planes that are a power of two apart would meet in few cache sets.
    if (pitch / 16 % 2 == 0) pitch += 16;
    blocked = column_phases == 1 && before + kLanes + behind <= kLine;
    block_vectors = blocked ? (kLine - before - behind) / kLanes : vectors;
    key_pitch = blocked ? kLine : pitch;
    key_left = blocked ? before : left;
    Taps* groups = phase_taps.reserve(column_phases);
    for (int64_t phase = 0; phase < column_phases; ++phase) groups[phase] = {};
    for (int64_t tap = 0; tap < taps; ++tap) {
      Taps& group = groups[phases[tap]];
      if (group.count++ == 0) {
        group.first = tap;
        group.step = column_phases;
        group.offset = phases[tap] * key_pitch + shifts[tap];
        group.shift = column_phases > 1 ? 1 : columns.dilation;
      }
    }
    for (int64_t phase = 0; phase < column_phases; ++phase) {
      groups[phase].blocks = Blocks(groups[phase].count, kTaps);
    }
  }

  void place_lanes() {
    int64_t* head = lane_head.reserve(lanes);
    int64_t* place = lane_place.reserve(lanes);
    int64_t* scalar_places = scalar_places_.reserve(lanes);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const int64_t number = lane / head_stride;
      head[lane] = number < heads ? number : -1;
      place[lane] = lane - number * head_stride;
      scalar_places[lane] =
          number < heads && place[lane] < columns.queries
              ? number * rows.queries * columns.queries + place[lane]
              : -1;
    }
  }

  void make_masks() {
    const int64_t taps = columns.kernel;
    Bits* masks = masks_.zeros(vectors * taps);
    Bits* key_masks = key_masks_.zeros(column_phases * vectors * taps);
    bool* inside = inside_.reserve(vectors);
    for (int64_t vector = 0; vector < vectors; ++vector) inside[vector] = true;
    Array<int64_t> counters;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const int64_t vector = lane / kLanes;
      int64_t* counts = counters.zeros(column_phases);
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t number = counts[tap_phase[tap]]++;
        const int64_t key = lane_place[lane] + tap_shift[tap];
        const bool takes_part = lane_head[lane] >= 0 &&
                                lane_place[lane] < columns.queries &&
                                key >= 0 && key < phase_columns(tap_phase[tap]);
        if (!takes_part) {
          inside[vector] = false;
          continue;
        }
        masks[vector * taps + tap][lane % kLanes] = -1;
        const int64_t key_lane = lane + tap_shift[tap];
        key_masks[(tap_phase[tap] * vectors + key_lane / kLanes) * taps +
                  number][key_lane % kLanes] = -1;
      }
    }
  }

  void make_tables(const Inputs& inputs) {
    const int64_t half = width / 2;
    const int64_t entries = rows.kernel + columns.kernel;
    const int64_t size = entries * half * kLanes;
    int64_t* places = table_places_.reserve(groups * vectors);
    float* tables = tables_.reserve(groups * vectors * size);
    float* table = tables;
    for (int64_t number = 0; number < groups * vectors; ++number) {
      const int64_t lane = number % vectors * kLanes;
      const int64_t first = head_of(lane), last = head_of(lane + kLanes - 1);
      // Vectors of one and the same head share a table.
      if (number % vectors > 0 && first == last &&
          head_of(lane - kLanes) == first) {
        places[number] = places[number - 1];
        continue;
      }
      places[number] = table - tables;
      const int64_t group_head = number / vectors * heads;
      for (int64_t entry = 0; entry < entries; ++entry) {
        const float* embedding =
            entry < rows.kernel
                ? inputs.row_embedding + entry * all_heads * half
                : inputs.column_embedding +
                      (entry - rows.kernel) * all_heads * half;
        const float* from[kLanes];
        for (int64_t l = 0; l < kLanes; ++l) {
          from[l] = embedding + (group_head + head_of(lane + l)) * half;
        }
        float* to = table + entry * half * kLanes;
        for (int64_t channel = 0; channel < half; ++channel) {
          Vector numbers;
          KERAS_SASA_UNROLL
          for (int l = 0; l < kLanes; ++l) numbers[l] = from[l][channel];
          store(to + channel * kLanes, numbers);
        }
      }
      table += size;
    }
  }

  // Lanes behind the last head take part in nothing; any head will do.
  int64_t head_of(int64_t lane) const {
    return lane_head[lane] < 0 ? heads - 1 : lane_head[lane];
  }

  Array<Bits> masks_, key_masks_;
  Array<bool> inside_;
  Array<int64_t> table_places_, scalar_places_;
  Array<float> tables_;
};

// One row of an image, from channels last to planes and back.
class Packing {
 public:
  // `rows_ahead`: how far below the row that is packed is the one that will be
  // packed some time later, to be fetched from memory meanwhile.
  Packing(const Layout& layout, int64_t columns, int64_t phases,
          int64_t pixel_stride, int64_t rows_ahead)
      : layout_(layout),
        columns_(columns),
        phases_(phases),
        pixel_stride_(pixel_stride),
        ahead_(rows_ahead * columns * pixel_stride) {
    int64_t* places = places_.reserve(phases * layout.lanes);
    for (int64_t phase = 0; phase < phases; ++phase) {
      for (int64_t lane = 0; lane < layout.lanes; ++lane) {
        const int64_t column = layout.lane_place[lane] * phases + phase;
        const int64_t head = layout.lane_head[lane];
        places[phase * layout.lanes + lane] =
            head < 0 || column >= columns
                ? -1
                : column * pixel_stride + head * layout.width;
      }
    }
  }

  // `row` counts all rows of all images; `strip_row` points to lane 0. Returns
  // whether all numbers are finite.
  KERAS_SASA_NOINLINE bool pack(const float* map, int64_t row,
                                int64_t first_head, float factor,
                                float* strip_row) const {
    // Copies: the compiler must believe that the stores change members.
    const int64_t width = layout_.width;
    const int64_t plane = phases_ * layout_.pitch;
    const int64_t step = phases_ * pixel_stride_;
    const int64_t ahead = ahead_;
    const int64_t heads = layout_.heads;
    const int64_t head_stride = layout_.head_stride;
    // 0 * x is 0 for finite numbers and NaN for the others.
    Side finite[2] = {};
    for (int64_t phase = 0; phase < phases_; ++phase) {
      const int64_t columns = ceil_div(columns_ - phase, phases_);
      const float* from =
          map + (row * columns_ + phase) * pixel_stride_ + first_head * width;
      // From the last column and the first head on: the last block of a head
      // may write over the first columns of the next one, which come later.
      // What it writes behind the last head is finite and never used.
      for (int64_t column = floor_div(columns - 1, kSide) * kSide; column >= 0;
           column -= kSide) {
        const float* pixels[kSide];
        const int64_t last = min(kSide, columns - column) - 1;
        KERAS_SASA_UNROLL
        for (int64_t i = 0; i < kSide; ++i) {
          pixels[i] = from + (column + min(i, last)) * step;
        }
        float* head_planes = strip_row + phase * layout_.pitch + column;
        for (int64_t head = 0; head < heads; ++head) {
          float* planes = head_planes;
          int64_t channel = 0;
          for (; channel + kSide <= width; channel += kSide) {
            Side square[kSide];
            KERAS_SASA_UNROLL
            for (int64_t i = 0; i < kSide; ++i) {
              const float* pixel = pixels[i] + channel;
              square[i] = load_side(pixel);
              finite[i % 2] += square[i] * 0.0f;
              square[i] *= factor;
              __builtin_prefetch(pixel + ahead, 0, 2);
            }
            transpose(square);
            KERAS_SASA_UNROLL
            for (int64_t i = 0; i < kSide; ++i) {
              store_side(planes, square[i]);
              planes += plane;
            }
          }
          for (; channel < width; ++channel) {
            for (int64_t i = 0; i < kSide; ++i) {
              const float number = pixels[i][channel];
              finite[0][i] += number * 0.0f;
              planes[i] = number * factor;
            }
            planes += plane;
          }
          KERAS_SASA_UNROLL
          for (int64_t i = 0; i < kSide; ++i) pixels[i] += width;
          head_planes += head_stride;
        }
      }
    }
    float sum = 0;
    for (int i = 0; i < kSide; ++i) sum += finite[0][i] + finite[1][i];
    return sum == 0;
  }

  // Fetches what `unpack` will write, so that its stores do not wait.
  void expect(int64_t vector, int64_t phase, const float* map, int64_t row,
              int64_t first_head) const {
    const int64_t* places =
        places_.data() + phase * layout_.lanes + vector * kLanes;
    const float* row_start =
        map + row * columns_ * pixel_stride_ + first_head * layout_.width;
    for (int64_t i = 0; i < kLanes; ++i) {
      if (places[i] < 0) continue;
      for (int64_t channel = 0; channel < layout_.width; channel += 16) {
        __builtin_prefetch(row_start + places[i] + channel, 1, 3);
      }
    }
  }

  // The inverse for one vector of lanes: `planes` has a vector a channel.
  KERAS_SASA_NOINLINE void unpack(const float* planes, int64_t vector,
                                  int64_t phase, float* map, int64_t row,
                                  int64_t first_head) const {
    const int64_t width = layout_.width;
    const int64_t* places =
        places_.data() + phase * layout_.lanes + vector * kLanes;
    float* row_start =
        map + row * columns_ * pixel_stride_ + first_head * width;
    int64_t channel = 0;
    for (; channel + kSide <= width; channel += kSide) {
      for (int64_t first = 0; first < kLanes; first += kSide) {
        Side square[kSide];
        KERAS_SASA_UNROLL
        for (int64_t i = 0; i < kSide; ++i) {
          square[i] = load_side(planes + (channel + i) * kLanes + first);
        }
        transpose(square);
        KERAS_SASA_UNROLL
        for (int64_t i = 0; i < kSide; ++i) {
          const int64_t place = places[first + i];
          if (place >= 0) store_side(row_start + place + channel, square[i]);
        }
      }
    }
    for (; channel < width; ++channel) {
      for (int64_t i = 0; i < kLanes; ++i) {
        if (places[i] >= 0) {
          row_start[places[i] + channel] = planes[channel * kLanes + i];
        }
      }
    }
  }

 private:
  const Layout& layout_;
  const int64_t columns_, phases_, pixel_stride_, ahead_;
  Array<int64_t> places_;
};

Packing packing_of_queries(const Layout& layout, int64_t pixel_stride) {
  return Packing(layout, layout.columns.queries, 1, pixel_stride,
                 kRows * layout.rows.dilation);
}

Packing packing_of_keys(const Layout& layout, int64_t pixel_stride) {
  return Packing(layout, layout.columns.keys, layout.column_phases,
                 pixel_stride,
                 kRows * layout.rows.stride * layout.rows.dilation);
}

// The projections of a few rows of an image to planes of queries, keys or
// values. Pixels are lanes: the rows are cut into tiles of kTile vectors a
// channel, which are multiplied by panels of kPanel columns of a matrix.
class Projector {
 public:
  Projector(const Layout& layout, const Inputs& inputs)
      : layout_(layout), projection_(inputs.projection) {
    if (!inputs.projected()) return;
    const int64_t columns = layout.columns.keys;
    rows =
        min(max(kRows, ceil_div(kProjectedPixels, columns)), layout.rows.keys);
    lanes_ = tile_count(rows) * kTile * kLanes;
    columns_ = round_up(layout.heads * layout.width, kUnit);
    const int64_t channels = projection_.channels;
    const int64_t filters = layout.all_heads * layout.width;
    const int64_t count = layout.heads * layout.width;
    const float* kernels[] = {projection_.query_kernel, projection_.key_kernel,
                              projection_.value_kernel};
    float* to = kernels_.zeros(3 * layout.groups * matrix_size());
    for (int map = 0; map < 3; ++map) {
      // Logits in base 2 save a product in every exponential.
      const float factor = map == 0 ? kLog2E : 1.0f;
      for (int64_t group = 0; group < layout.groups; ++group) {
        for (int64_t first = 0; first < count; first += kPanel) {
          const int64_t used = min(kPanel, count - first);
          const int64_t width = min(kPanel, columns_ - first);
          if (kernels[map] == nullptr) continue;
          const float* from = kernels[map] + group * count + first;
          float* panel = to + first * channels;
          for (int64_t channel = 0; channel < channels; ++channel) {
            for (int64_t i = 0; i < used; ++i) panel[i] = from[i] * factor;
            from += filters;
            panel += width;
          }
        }
        to += matrix_size();
      }
    }
  }

  // Floats of scratch memory: the tiles, and what comes out of them.
  int64_t tile_floats() const { return projection_.channels * lanes_; }
  int64_t plane_floats() const { return columns_ * lanes_ + kLanes; }

  // Makes tiles of `count` rows of the image; `places` number them among the
  // rows of all images.
  KERAS_SASA_NOINLINE void read(const int64_t* places, int64_t count,
                                float* tiles) const {
    const int64_t channels = projection_.channels;
    const int64_t columns = layout_.columns.keys;
    const int64_t stride = projection_.image.pixel_stride;
    const int64_t pixel_count = count * columns;
    const int64_t ahead = count * layout_.rows.dilation * columns * stride;
    int64_t row = 0, column = 0, tile = 0;
    for (int64_t lane = 0; lane < round_up(pixel_count, kLanes);
         lane += kSide) {
      const float* pixels[kSide];
      for (int64_t i = 0; i < kSide; ++i) {
        pixels[i] =
            projection_.image.data + (places[row] * columns + column) * stride;
        // Lanes behind the last pixel repeat it.
        if (lane + i + 1 < pixel_count && ++column == columns) {
          column = 0;
          ++row;
        }
      }
      if (lane == tile_start(tile + 1, count)) ++tile;
      constexpr int64_t kWidth = kTile * kLanes;
      float* to =
          tiles + tile * kWidth * channels + lane - tile_start(tile, count);
      int64_t channel = 0;
      for (; channel + kSide <= channels; channel += kSide) {
        Side square[kSide];
        KERAS_SASA_UNROLL
        for (int64_t i = 0; i < kSide; ++i) {
          const float* pixel = pixels[i] + channel;
          square[i] = load_side(pixel);
          // The rows that come next.
          __builtin_prefetch(pixel + ahead, 0, 2);
        }
        transpose(square);
        KERAS_SASA_UNROLL
        for (int64_t i = 0; i < kSide; ++i) {
          store_side(to, square[i]);
          to += kWidth;
        }
      }
      for (; channel < channels; ++channel) {
        for (int64_t i = 0; i < kSide; ++i) to[i] = pixels[i][channel];
        to += kWidth;
      }
    }
  }

  // Multiplies the tiles of `count` rows by one of the three matrices.
  void multiply(const float* tiles, int64_t count, int64_t map, int64_t group,
                float* planes) const {
    const float* panels =
        kernels_.data() + (map * layout_.groups + group) * matrix_size();
    for (int64_t tile = 0; tile < tile_count(count); ++tile) {
      const int64_t start = tile_start(tile, count);
      const int64_t vectors = (tile_start(tile + 1, count) - start) / kLanes;
      for (int64_t first = 0; first < projection_.channels;
           first += kProjectedChannels) {
        const int64_t channels =
            min(kProjectedChannels, projection_.channels - first);
        const float* from = tiles + first * kTile * kLanes;
        for (int64_t column = 0; column < columns_; column += kPanel) {
          const int64_t width = min(kPanel, columns_ - column);
          const float* panel =
              panels + column * projection_.channels + first * width;
          float* to = planes + start + column * lanes_;
          if (vectors == 3)
            multiply<3>(channels, first, from, panel, width, to);
          if (vectors == 2)
            multiply<2>(channels, first, from, panel, width, to);
          if (vectors == 1)
            multiply<1>(channels, first, from, panel, width, to);
        }
      }
      tiles += kTile * kLanes * projection_.channels;
    }
  }

  // Copies row `row` of these to where `Packing::pack` would write it. Returns
  // whether all numbers are finite.
  KERAS_SASA_NOINLINE bool place(const float* planes, int64_t row,
                                 float* strip_row) const {
    const int64_t columns = layout_.columns.keys;
    Vector finite{};
    for (int64_t channel = 0; channel < layout_.width; ++channel) {
      // What a head writes behind its columns, the next one writes again.
      for (int64_t head = 0; head < layout_.heads; ++head) {
        const float* from =
            planes + (head * layout_.width + channel) * lanes_ + row * columns;
        float* to = strip_row + head * layout_.head_stride;
        for (int64_t column = 0; column < columns; column += kLanes) {
          const Vector numbers = load(from + column);
          finite += numbers * 0.0f;
          store(to + column, numbers);
        }
      }
      strip_row += layout_.pitch;
    }
    float sum = 0;
    for (int i = 0; i < kLanes; ++i) sum += finite[i];
    return sum == 0;
  }

  int64_t rows = 0;  // Rows that are projected at a time.

 private:
  int64_t matrix_size() const { return columns_ * projection_.channels; }

  // Tiles are of about the same size: small ones are slow.
  int64_t tile_count(int64_t rows) const {
    return ceil_div(rows * layout_.columns.keys, kTile * kLanes);
  }
  int64_t tile_start(int64_t tile, int64_t rows) const {
    const int64_t vectors = ceil_div(rows * layout_.columns.keys, kLanes);
    return tile * vectors / tile_count(rows) * kLanes;
  }

  // planes = panel * tile, or += where this is not the first channel.
  template <int vectors>
  void multiply(int64_t channels, int64_t first, const float* tile,
                const float* panel, int64_t width, float* planes) const {
    constexpr int kMost = kUnit * kTile / vectors;
    // The last panel may have only one or two units.
    if (width % kMost == 0) {
      for (int64_t column = 0; column < width; column += kMost) {
        multiply_block<vectors, kMost>(channels, first, tile, panel + column,
                                       width, planes + column * lanes_);
      }
      return;
    }
    for (int64_t column = 0; column < width; column += kUnit) {
      multiply_block<vectors, kUnit>(channels, first, tile, panel + column,
                                     width, planes + column * lanes_);
    }
  }

  template <int vectors, int columns>
  KERAS_SASA_NOINLINE void multiply_block(int64_t channels, int64_t first,
                                          const float* tile, const float* panel,
                                          int64_t width, float* planes) const {
    const int64_t lanes = lanes_;
    Vector sums[columns][vectors] = {};
    if (first > 0) {
      KERAS_SASA_UNROLL
      for (int i = 0; i < columns; ++i) {
        KERAS_SASA_UNROLL
        for (int v = 0; v < vectors; ++v) {
          sums[i][v] = load(planes + i * lanes + v * kLanes);
        }
      }
    }
    for (; channels > 0; --channels) {
      Vector pixels[vectors];
      KERAS_SASA_UNROLL
      for (int v = 0; v < vectors; ++v) pixels[v] = load(tile + v * kLanes);
      KERAS_SASA_UNROLL
      for (int i = 0; i < columns; ++i) {
        const Vector weight = all(panel[i]);
        KERAS_SASA_UNROLL
        for (int v = 0; v < vectors; ++v) sums[i][v] += weight * pixels[v];
      }
      tile += kTile * kLanes;
      panel += width;
    }
    KERAS_SASA_UNROLL
    for (int i = 0; i < columns; ++i) {
      KERAS_SASA_UNROLL
      for (int v = 0; v < vectors; ++v) {
        store(planes + i * lanes + v * kLanes, sums[i][v]);
      }
    }
  }

  const Layout& layout_;
  const Projection projection_;
  int64_t lanes_ = 0, columns_ = 0;
  Array<float> kernels_;  // (map, group, panel, channel, column in the panel)
};

// Rows of strips, of which the last few are kept.
struct Ring {
  float* data = nullptr;
  int64_t slots = 0;
  int64_t row_stride = 0;
  int64_t left = 0;

  int64_t size() const { return slots * row_stride; }
  // Points to lane 0 of the first plane.
  float* row(int64_t number) const {
    return data + number % slots * row_stride + left;
  }
};

// What forward and backward share: keys and values in rings, a few rows of
// queries, and their logits.
class Strip {
 public:
  Strip(const Layout& layout, const Inputs& inputs, const Packing& key_packing,
        const Packing& value_packing, const Projector* projector, int64_t task)
      : layout(layout),
        inputs(inputs),
        key_packing(key_packing),
        value_packing(value_packing),
        projector(projector) {
    phase = task % layout.row_phases;
    group = task / layout.row_phases % layout.groups;
    image = task / layout.row_phases / layout.groups;
    first_head = group * layout.heads;
    rows = layout.row_phase(phase);
    const int64_t stride = layout.rows.stride;
    int64_t slots = layout.rows.kernel + (kRows - 1) * stride;
    // Rows are projected before they are needed; kRows rows of queries always
    // lie one after the other.
    if (projector) slots = round_up(slots + projector->rows - 1, kRows);
    keys = {nullptr, slots, layout.key_row, layout.key_left};
    values = keys;
    queries = {nullptr, projector ? slots : kRows, layout.width * layout.pitch,
               layout.left};
  }

  // Row in all images of query row (key row) `number` of this phase.
  int64_t query_row(int64_t number) const {
    return image * layout.rows.queries + rows.query_first +
           number * layout.rows.dilation;
  }
  int64_t key_row(int64_t number) const {
    return image * layout.rows.keys + rows.key_first +
           number * layout.rows.dilation;
  }

  // Begins with queries `first` to `first + count`: packs the keys they see.
  void see(int64_t first, int64_t count) {
    const int64_t stride = layout.rows.stride;
    const int64_t kernel = layout.rows.kernel;
    query_first = first;
    query_count = count;
    key_first = rows.first_query + first * stride - kernel / 2;
    step_begin = max(0, -key_first);
    step_end = min(kernel + (count - 1) * stride, rows.keys - key_first);
    packed = max(packed, key_first);
    const int64_t end = min(rows.keys, key_first + step_end);
    if (projector) {
      while (packed < end) project();
    }
    for (; packed < end; ++packed) {
      const int64_t row = key_row(packed);
      pack(value_packing, inputs.value.data, row, values.row(packed));
      if (inputs.key.data != nullptr) {
        pack(key_packing, inputs.key.data, row, keys.row(packed));
      }
    }
    find_runs();
  }

  // Rows of the window, of query row `row`, that are inside the image.
  void window_rows(int64_t row, int64_t* begin, int64_t* end) const {
    const int64_t start = key_first + row * layout.rows.stride;
    *begin = max(0, -start);
    *end = max(*begin, min(layout.rows.kernel, rows.keys - start));
  }

  // Row logits [row][entry] and column logits, q.r. Zeros without embeddings.
  void position(const float* queries, int64_t query_row_stride, int64_t vector,
                float* row_logits, float* column_logits) const {
    if (!layout.relative) return;
    const int64_t half = layout.width / 2;
    Correlation c{};
    c.query_row = query_row_stride;
    c.query_channel = layout.pitch;
    c.key_channel = kLanes;
    c.channels = half;
    c.row_bias = c.tap_bias = layout.zeros.data();
    c.key_tap = half * kLanes;
    c.tap = kLanes;
    c.steps = 1;
    const float* table = layout.row_table(group, vector);
    c.keys = &table;
    c.query = queries;
    c.output = row_logits;
    c.output_row = layout.rows.kernel * kLanes;
    correlate(c, query_count, layout.row_taps);
    c.query = queries + half * layout.pitch;
    table = layout.column_table(group, vector);
    c.output = column_logits;
    c.output_row = layout.columns.kernel * kLanes;
    correlate(c, query_count, layout.column_taps);
  }

  // products[row][window] = bias + products of queries and what is in `ring`.
  void products(const Ring& ring, int64_t channels, const float* queries,
                int64_t query_row_stride, int64_t vector, const float* row_bias,
                const float* column_bias, float* output) const {
    const int64_t stride = layout.rows.stride;
    const int64_t taps = layout.columns.kernel;
    const float* zeros = layout.zeros.data();
    Correlation c{};
    c.query_row = query_row_stride;
    c.query_channel = layout.pitch;
    c.key_channel = layout.key_channel;
    c.channels = channels;
    c.output_row = (layout.window - stride * taps) * kLanes;
    c.row_bias_row =
        row_bias == zeros ? 0 : (layout.rows.kernel - stride) * kLanes;
    c.tap_bias_row = column_bias == zeros ? 0 : taps * kLanes;
    c.row_bias_step = row_bias == zeros ? 0 : kLanes;
    c.output_step = taps * kLanes;
    const float** pointers = pointers_.reserve(2 * keys.slots);
    for (int64_t phase = 0; phase < layout.column_phases; ++phase) {
      const Taps& group = layout.phase_taps[phase];
      c.key_tap = group.shift;
      c.tap = group.step * kLanes;
      for (int64_t i = 0; i < step_end - step_begin; ++i) {
        pointers[i] =
            ring.data + places_[i] + layout.key_vector(vector) + group.offset;
      }
      for (int64_t number = 0; number < run_count; ++number) {
        const Run& run = runs_[number];
        const int64_t entry = run.begin - run.first * stride;
        c.query = queries + run.first * query_row_stride;
        c.steps = run.end - run.begin;
        c.keys = pointers + run.begin - step_begin;
        c.tap_bias = column_bias + run.first * c.tap_bias_row +
                     (column_bias == zeros ? 0 : group.first * kLanes);
        c.row_bias =
            row_bias == zeros
                ? zeros
                : row_bias + (run.first * layout.rows.kernel + entry) * kLanes;
        c.output =
            output +
            (run.first * layout.window + entry * taps + group.first) * kLanes;
        correlate(c, run.count, group.blocks);
      }
    }
  }

  // output[row][channel] += sum over the window of weights * ring.
  void weigh(const Ring& ring, const float* weights, int64_t vector,
             float* output) const {
    const int64_t stride = layout.rows.stride;
    const int64_t taps = layout.columns.kernel;
    WeightedSum s{};
    s.weight_row = (layout.window - stride * taps) * kLanes;
    s.value_channel = layout.key_channel;
    s.output_row = layout.width * kLanes;
    const float** pointers = pointers_.reserve(2 * keys.slots);
    for (int64_t phase = 0; phase < layout.column_phases; ++phase) {
      const Taps& group = layout.phase_taps[phase];
      s.taps = group.count;
      s.weight_tap = group.step * kLanes;
      s.value_tap = group.shift;
      s.masks = finite ? nullptr : layout.masks(vector) + group.first;
      s.mask_tap = group.step;
      for (int64_t number = 0; number < run_count; ++number) {
        const Run& run = runs_[number];
        const int64_t steps = run.end - run.begin;
        for (int64_t i = 0; i < steps; ++i) {
          const int64_t entry = run.begin + i - run.first * stride;
          pointers[i] =
              weights +
              (run.first * layout.window + entry * taps + group.first) * kLanes;
          pointers[steps + i] = ring.data +
                                places_[run.begin + i - step_begin] +
                                layout.key_vector(vector) + group.offset;
        }
        s.weights = pointers;
        s.values = pointers + steps;
        s.steps = steps;
        s.output = output + run.first * s.output_row;
        add_weighted(s, run.count, layout.channels);
      }
    }
  }

  const Layout& layout;
  const Inputs& inputs;
  const Packing& key_packing;
  const Packing& value_packing;
  const Projector* projector;  // Or null.
  int64_t phase, group, image, first_head;
  float* planes = nullptr;  // A row of keys before `spread`.
  float *tiles = nullptr, *projected = nullptr;  // Of `Projector`.
  Layout::RowPhase rows;
  Ring keys, values;
  Ring queries;        // The forward pass has them here.
  int64_t packed = 0;  // Rows of keys below this are or were in the rings.
  bool finite = true;  // Whether all numbers so far were.
  // The rows of queries of now, and the rows of keys that these see.
  int64_t query_first = 0, query_count = 0, key_first = 0;
  int64_t step_begin = 0, step_end = 0;

 private:
  // The next rows of queries, keys and values.
  void project() {
    const int64_t count = min(projector->rows, rows.keys - packed);
    int64_t* places = projected_places_.reserve(count);
    for (int64_t i = 0; i < count; ++i) places[i] = key_row(packed + i);
    projector->read(places, count, tiles);
    const Ring* rings[] = {&queries, &keys, &values};
    for (int map = 0; map < 3; ++map) {
      if (map == 1 && !inputs.content()) continue;
      projector->multiply(tiles, count, map, group, projected);
      for (int64_t i = 0; i < count; ++i) {
        float* to = rings[map]->row(packed + i);
        const bool spread = map > 0 && layout.blocked;
        float* first = spread ? planes + layout.left : to;
        finite &= projector->place(projected, i, first);
        if (spread) layout.spread(first, to);
      }
    }
    packed += count;
  }

  void pack(const Packing& packing, const float* map, int64_t row, float* to) {
    float* first = layout.blocked ? planes + layout.left : to;
    finite &= packing.pack(map, row, first_head, 1.0f, first);
    if (layout.blocked) layout.spread(first, to);
  }

  // Steps `begin` to `end`, rows of keys that the same rows of queries see:
  // `first` to `first + count`.
  struct Run {
    int64_t first, count, begin, end;
  };

  void find_runs() {
    const int64_t stride = layout.rows.stride;
    const int64_t kernel = layout.rows.kernel;
    const int64_t steps = max(0, step_end - step_begin);
    Run* runs = runs_.reserve(keys.slots);
    int64_t* places = places_.reserve(keys.slots);
    run_count = 0;
    for (int64_t i = 0; i < steps; ++i) {
      const int64_t step = step_begin + i;
      places[i] = (key_first + step) % keys.slots * keys.row_stride + keys.left;
      const int64_t first = max(0, ceil_div(step - kernel + 1, stride));
      const int64_t count = min(query_count - 1, step / stride) - first + 1;
      if (count < 1) continue;  // Between the windows of a large stride.
      if (run_count > 0 && runs[run_count - 1].first == first &&
          runs[run_count - 1].count == count &&
          runs[run_count - 1].end == step) {
        ++runs[run_count - 1].end;
      } else {
        runs[run_count++] = {first, count, step, step + 1};
      }
    }
  }

  int64_t run_count = 0;
  Array<Run> runs_;
  Array<int64_t> places_, projected_places_;
  mutable Array<const float*> pointers_;
};

// Scratch memory of a thread, kept from call to call. The first `cleared`
// floats are zero when a thread begins with a call; later tasks of the same
// call, whose parts are as large, find what the ones before left there.
float* scratch(int64_t floats, int64_t cleared, int64_t call) {
  static thread_local Array<float> memory;
  static thread_local int64_t last_call = 0, last_cleared = 0;
  float* data = memory.reserve(floats);
  // Phases of a dilation have different numbers of rows.
  if (last_call != call || last_cleared != cleared) {
    std::memset(data, 0, cleared * sizeof(float));
    last_call = call;
    last_cleared = cleared;
  }
  return data;
}

// A number that no other call has.
int64_t new_call() {
  static int64_t calls = 0;
  return __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
}

// Sizes of the parts of scratch memory, then the parts.
class Parts {
 public:
  int64_t add(int64_t floats) {
    const int64_t start = size_;
    size_ += round_up(floats, 16);
    return start;
  }
  int64_t size() const { return size_; }

 private:
  int64_t size_ = 0;
};

class ForwardTasks : public Tasks {
 public:
  ForwardTasks(const Shape& shape, const Inputs& inputs, const Outputs& outputs)
      : inputs_(inputs),
        outputs_(outputs),
        layout_(shape, inputs,
                inputs.projected() ? kProjectedLine : kForwardLine),
        projector_(layout_, inputs),
        query_packing_(packing_of_queries(layout_, inputs.query.pixel_stride)),
        key_packing_(packing_of_keys(layout_, inputs.key.pixel_stride)),
        value_packing_(packing_of_keys(layout_, inputs.value.pixel_stride)),
        output_packing_(
            packing_of_queries(layout_, outputs.output.pixel_stride)) {}

  int64_t tasks() const override { return layout_.tasks; }

  void run(int64_t task) const override {
    const int64_t width = layout_.width;
    const int64_t query_stride = width * layout_.pitch;
    const Projector* projector = inputs_.projected() ? &projector_ : nullptr;
    Strip strip(layout_, inputs_, key_packing_, value_packing_, projector,
                task);
    Parts parts;
    const int64_t keys = parts.add(strip.keys.size());
    const int64_t values = parts.add(strip.values.size());
    const int64_t planes = parts.add(query_stride);
    const int64_t queries = parts.add(strip.queries.size());
    const int64_t projected =
        parts.add(projector ? projector->plane_floats() : 0);
    const int64_t row_logits = parts.add(kRows * layout_.rows.kernel * kLanes);
    const int64_t column_logits =
        parts.add(kRows * layout_.columns.kernel * kLanes);
    const int64_t cleared = parts.size();
    const int64_t weights = parts.add(kRows * layout_.window * kLanes);
    const int64_t sums = parts.add(kRows * width * kLanes);
    const int64_t tiles = parts.add(projector ? projector->tile_floats() : 0);
    float* memory = scratch(parts.size(), cleared, call_);
    strip.queries.data = memory + queries;
    strip.projected = memory + projected;
    strip.tiles = memory + tiles;
    strip.keys.data = memory + keys;
    strip.values.data = memory + values;
    strip.planes = memory + planes;
    const int64_t channels = inputs_.content() ? width : 0;

    for (int64_t first = 0; first < strip.rows.queries; first += kRows) {
      const int64_t count = min(kRows, strip.rows.queries - first);
      strip.see(first, count);
      for (int64_t row = 0; row < count && projector == nullptr; ++row) {
        // Logits in base 2 save a product in every exponential.
        query_packing_.pack(inputs_.query.data, strip.query_row(first + row),
                            strip.first_head, kLog2E,
                            strip.queries.row(first + row));
      }
      for (int64_t vector = 0; vector < layout_.vectors; ++vector) {
        for (int64_t row = 0; row < count; ++row) {
          output_packing_.expect(vector, 0, outputs_.output.data,
                                 strip.query_row(first + row),
                                 strip.first_head);
        }
        const float* vector_queries =
            strip.queries.row(first) + vector * kLanes;
        strip.position(vector_queries, query_stride, vector,
                       memory + row_logits, memory + column_logits);
        strip.products(strip.keys, channels, vector_queries, query_stride,
                       vector, memory + row_logits, memory + column_logits,
                       memory + weights);
        Vector largest[kRows], totals[kRows];
        for (int64_t row = 0; row < count; ++row) {
          softmax(strip, row, vector, memory + weights, &largest[row],
                  &totals[row]);
        }
        std::memset(memory + sums, 0, count * width * kLanes * sizeof(float));
        strip.weigh(strip.values, memory + weights, vector, memory + sums);
        for (int64_t row = 0; row < count; ++row) {
          float* output = memory + sums + row * width * kLanes;
          const Vector factor = 1.0f / totals[row];
          for (int64_t channel = 0; channel < width; ++channel) {
            store(output + channel * kLanes,
                  load(output + channel * kLanes) * factor);
          }
          const int64_t place = strip.query_row(first + row);
          output_packing_.unpack(output, vector, 0, outputs_.output.data, place,
                                 strip.first_head);
          if (outputs_.log_sum_exp != nullptr) {
            layout_.scatter(largest[row] + log2(totals[row]), vector,
                            layout_.scalar_row(outputs_.log_sum_exp, place,
                                               strip.first_head));
          }
        }
      }
    }
  }

 private:
  // Leaves exp2(logit - largest logit) in the place of the logits.
  KERAS_SASA_NOINLINE void softmax(const Strip& strip, int64_t row,
                                   int64_t vector, float* weights,
                                   Vector* largest, Vector* total) const {
    const int64_t taps = layout_.columns.kernel;
    int64_t begin, end;
    strip.window_rows(row, &begin, &end);
    float* logits = weights + (row * layout_.window + begin * taps) * kLanes;
    const int64_t count = (end - begin) * taps;
    if (!layout_.inside(vector)) {
      const Bits* masks = layout_.masks(vector);
      const Vector masked = all(kMaskedLogit);
      for (int64_t i = 0; i < count; i += taps) {
        for (int64_t tap = 0; tap < taps; ++tap) {
          float* logit = logits + (i + tap) * kLanes;
          store(logit, select(masks[tap], load(logit), masked));
        }
      }
    }
    // Rows of keys outside the image have the masked logit as well. It counts
    // only where all others are -infinity.
    const float outside = layout_.window - count;
    Vector maximum = all(outside > 0 ? kMaskedLogit : -INFINITY);
    Vector odd = maximum;
    int64_t i = 0;
    for (; i + 1 < count; i += 2) {
      maximum = larger(load(logits + i * kLanes), maximum);
      odd = larger(load(logits + (i + 1) * kLanes), odd);
    }
    if (i < count) maximum = larger(load(logits + i * kLanes), maximum);
    maximum = larger(odd, maximum);
    const Vector lowest = all(kLowestExponent);
    Vector sum = outside * exp2(all(kMaskedLogit) - maximum, lowest);
    odd = Vector{};
    for (i = 0; i + 1 < count; i += 2) {
      float* logit = logits + i * kLanes;
      const Vector first = exp2(load(logit) - maximum, lowest);
      const Vector second = exp2(load(logit + kLanes) - maximum, lowest);
      store(logit, first);
      store(logit + kLanes, second);
      sum += first;
      odd += second;
    }
    if (i < count) {
      const Vector last = exp2(load(logits + i * kLanes) - maximum, lowest);
      store(logits + i * kLanes, last);
      sum += last;
    }
    sum += odd;
    *largest = maximum;
    *total = sum;
  }

  const Inputs inputs_;
  const Outputs outputs_;
  const Layout layout_;
  const Projector projector_;
  const Packing query_packing_, key_packing_, value_packing_, output_packing_;
  const int64_t call_ = new_call();
};

class BackwardTasks : public Tasks {
 public:
  BackwardTasks(const Shape& shape, const Inputs& inputs,
                const Upstream& upstream, const Gradients& gradients)
      : inputs_(inputs),
        upstream_(upstream),
        gradients_(gradients),
        layout_(shape, inputs, kBackwardLine),
        query_packing_(packing_of_queries(layout_, inputs.query.pixel_stride)),
        key_packing_(packing_of_keys(layout_, inputs.key.pixel_stride)),
        value_packing_(packing_of_keys(layout_, inputs.value.pixel_stride)),
        upstream_packing_(
            packing_of_queries(layout_, upstream.output_gradient.pixel_stride)),
        query_unpacking_(
            packing_of_queries(layout_, gradients.query.pixel_stride)),
        key_unpacking_(packing_of_keys(layout_, gradients.key.pixel_stride)),
        value_unpacking_(
            packing_of_keys(layout_, gradients.value.pixel_stride)),
        entries_(shape.rows.kernel + shape.columns.kernel),
        half_(shape.head_width / 2) {
    if (layout_.relative) {
      parts_ = shape.batch * layout_.row_phases;
      embeddings_.reserve(parts_ * entries_ * shape.heads * half_);
    }
  }

  int64_t tasks() const override { return layout_.tasks; }

  void run(int64_t task) const override { Task(*this, task).run(); }

  void finish() const override {
    if (!layout_.relative) return;
    const int64_t numbers = layout_.all_heads * half_;
    for (int64_t entry = 0; entry < entries_; ++entry) {
      float* to = entry < layout_.rows.kernel
                      ? gradients_.row_embedding + entry * numbers
                      : gradients_.column_embedding +
                            (entry - layout_.rows.kernel) * numbers;
      for (int64_t i = 0; i < numbers; ++i) {
        double sum = 0;
        for (int64_t part = 0; part < parts_; ++part) {
          sum += embeddings_[(part * entries_ + entry) * numbers + i];
        }
        to[i] = static_cast<float>(sum);
      }
    }
  }

 private:
  class Task {
   public:
    Task(const BackwardTasks& call, int64_t task)
        : call_(call),
          layout_(call.layout_),
          strip_(call.layout_, call.inputs_, call.key_packing_,
                 call.value_packing_, nullptr, task) {
      const int64_t left = layout_.left;
      const int64_t pitch = layout_.pitch;
      const int64_t slots = query_slots();
      queries_ = {nullptr, slots, layout_.width * pitch, left};
      upstream_ = queries_;
      weights_ = {nullptr, slots, layout_.window * pitch, left};
      logit_gradients_ = weights_;
      head_lanes_ = round_up(layout_.columns.queries, kLanes);

      Parts parts;
      const int64_t keys = parts.add(strip_.keys.size());
      const int64_t values = parts.add(strip_.values.size());
      const int64_t planes = parts.add(layout_.width * pitch);
      const int64_t queries = parts.add(queries_.size());
      const int64_t upstream = parts.add(upstream_.size());
      const int64_t weights = parts.add(weights_.size());
      const int64_t logit_gradients = parts.add(logit_gradients_.size());
      const int64_t row_logits =
          parts.add(kRows * layout_.rows.kernel * kLanes);
      const int64_t column_logits =
          parts.add(kRows * layout_.columns.kernel * kLanes);
      const int64_t head_sums =
          parts.add(call.entries_ * layout_.heads * head_lanes_ + kLanes);
      const int64_t cleared = parts.size();
      const int64_t embedding_floats =
          layout_.relative ? layout_.heads * call.entries_ * call.half_ * kLanes
                           : 0;
      const int64_t embeddings = parts.add(embedding_floats);
      const int64_t logits = parts.add(kRows * layout_.window * kLanes);
      const int64_t products = parts.add(kRows * layout_.window * kLanes);
      const int64_t sums = parts.add(kRows * call.entries_ * kLanes);
      const int64_t row_sums = parts.add(kRows * call.entries_ * pitch);
      const int64_t output = parts.add(kRows * layout_.width * kLanes);
      const int64_t masked = parts.add(layout_.width * head_lanes_);
      float* memory = scratch(parts.size(), cleared, call.call_);
      strip_.keys.data = memory + keys;
      strip_.values.data = memory + values;
      strip_.planes = memory + planes;
      queries_.data = memory + queries;
      upstream_.data = memory + upstream;
      weights_.data = memory + weights;
      logit_gradients_.data = memory + logit_gradients;
      row_logits_ = memory + row_logits;
      column_logits_ = memory + column_logits;
      embeddings_ = memory + embeddings;
      std::memset(embeddings_, 0, embedding_floats * sizeof(float));
      head_sums_ = memory + head_sums;
      logits_ = memory + logits;
      products_ = memory + products;
      sums_ = memory + sums;
      row_sums_ = memory + row_sums;
      output_ = memory + output;
      masked_queries_ = memory + masked;
    }

    void run() {
      const int64_t rows = strip_.rows.queries;
      int64_t block = 0;
      for (int64_t first = 0; first < rows; first += kRows) {
        const int64_t count = min(kRows, rows - first);
        strip_.see(first, count);
        for (int64_t row = first; row < first + count; ++row) pack(row);
        for (int64_t vector = 0; vector < layout_.vectors; ++vector) {
          attend(first, count, vector);
        }
        if (layout_.relative) {
          for (int64_t row = 0; row < count; ++row) add_embeddings(first, row);
        }
        while (block < blocks() && last_query(block) < first + count) {
          finish_keys(block++);
        }
      }
      while (block < blocks()) finish_keys(block++);
      if (layout_.relative) finish_embeddings();
    }

   private:
    // Keys are finished in blocks of kRows rows, of each remainder of the
    // stride, as soon as all queries that see them are done.
    int64_t block_rows() const { return kRows * layout_.rows.stride; }
    int64_t blocks() const { return ceil_div(strip_.rows.keys, block_rows()); }
    int64_t last_query(int64_t block) const {
      const int64_t key = min((block + 1) * block_rows(), strip_.rows.keys) - 1;
      return min(
          strip_.rows.queries - 1,
          floor_div(key - strip_.rows.first_query + layout_.rows.kernel / 2,
                    layout_.rows.stride));
    }
    int64_t first_query(int64_t block) const {
      return max(0, ceil_div(block * block_rows() - strip_.rows.first_query -
                                 layout_.rows.kernel / 2,
                             layout_.rows.stride));
    }

    // Rows of queries to keep: those of unfinished keys and kRows new ones.
    int64_t query_slots() const {
      int64_t slots = kRows;
      int64_t block = 0;
      for (int64_t row = 0; row < strip_.rows.queries; row += kRows) {
        while (block < blocks() && last_query(block) < row) ++block;
        if (block == blocks()) break;
        slots = max(slots, row + kRows - min(row, first_query(block)));
      }
      // So that kRows rows of queries always lie one after the other.
      return round_up(slots, kRows);
    }

    void pack(int64_t row) {
      const int64_t place = strip_.query_row(row);
      strip_.finite &= call_.query_packing_.pack(call_.inputs_.query.data,
                                                 place, strip_.first_head,
                                                 kLog2E, queries_.row(row));
      strip_.finite &= call_.upstream_packing_.pack(
          call_.upstream_.output_gradient.data, place, strip_.first_head, 1.0f,
          upstream_.row(row));
    }

    // Weights, their gradients and the gradient of the queries.
    void attend(int64_t first, int64_t count, int64_t vector) {
      const int64_t lane = vector * kLanes;
      const int64_t width = layout_.width;
      const bool content = call_.inputs_.key.data != nullptr;
      const float* zeros = layout_.zeros.data();
      for (int64_t row = 0; row < count; ++row) {
        call_.query_unpacking_.expect(vector, 0, call_.gradients_.query.data,
                                      strip_.query_row(first + row),
                                      strip_.first_head);
      }
      const float* queries = queries_.row(first) + lane;
      strip_.position(queries, queries_.row_stride, vector, row_logits_,
                      column_logits_);
      strip_.products(strip_.keys, content ? width : 0, queries,
                      queries_.row_stride, vector, row_logits_, column_logits_,
                      logits_);
      strip_.products(strip_.values, width, upstream_.row(first) + lane,
                      upstream_.row_stride, vector, zeros, zeros, products_);
      for (int64_t row = 0; row < count; ++row) {
        differentiate(first, row, vector);
      }
      std::memset(output_, 0, count * width * kLanes * sizeof(float));
      if (layout_.relative) {
        WeightedSum s{};
        s.weight_row = call_.entries_ * kLanes;
        s.weight_tap = kLanes;
        s.value_channel = kLanes;
        s.value_tap = call_.half_ * kLanes;
        s.steps = 1;
        s.output_row = width * kLanes;
        const float* weights = sums_;
        const float* values = layout_.row_table(strip_.group, vector);
        s.weights = &weights;
        s.values = &values;
        s.taps = layout_.rows.kernel;
        s.output = output_;
        add_weighted(s, count, layout_.half_channels);
        weights = sums_ + layout_.rows.kernel * kLanes;
        values = layout_.column_table(strip_.group, vector);
        s.taps = layout_.columns.kernel;
        s.output = output_ + call_.half_ * kLanes;
        add_weighted(s, count, layout_.half_channels);
      }
      if (content) strip_.weigh(strip_.keys, products_, vector, output_);
      for (int64_t row = 0; row < count; ++row) {
        call_.query_unpacking_.unpack(output_ + row * width * kLanes, vector, 0,
                                      call_.gradients_.query.data,
                                      strip_.query_row(first + row),
                                      strip_.first_head);
      }
    }

    // With p a weight and g the product of the value and the gradient of the
    // output, the gradient of the logit is p * (g - sum of all p * g).
    KERAS_SASA_NOINLINE void differentiate(int64_t first, int64_t row,
                                           int64_t vector) {
      const int64_t taps = layout_.columns.kernel;
      const int64_t lane = vector * kLanes;
      int64_t begin, end;
      strip_.window_rows(row, &begin, &end);
      const int64_t start = (row * layout_.window + begin * taps) * kLanes;
      float* logits = logits_ + start;
      float* products = products_ + start;
      const int64_t place = strip_.query_row(first + row);
      const Vector log_sum_exp =
          layout_.gather(layout_.scalar_row(call_.upstream_.log_sum_exp, place,
                                            strip_.first_head),
                         vector, -kMaskedLogit);
      const Bits* masks = layout_.masks(vector);
      if (!layout_.inside(vector)) {
        const Vector masked = all(kMaskedLogit);
        for (int64_t i = 0; i < (end - begin) * taps; i += taps) {
          for (int64_t tap = 0; tap < taps; ++tap) {
            float* logit = logits + (i + tap) * kLanes;
            store(logit, select(masks[tap], load(logit), masked));
          }
        }
      }
      const Vector finite = log_sum_exp * 0.0f;
      for (int i = 0; i < kLanes; ++i) strip_.finite &= finite[i] == 0.0f;
      float* row_sums = sums_ + row * call_.entries_ * kLanes;
      std::memset(row_sums, 0, call_.entries_ * kLanes * sizeof(float));
      float* weights =
          weights_.row(first + row) + begin * taps * layout_.pitch + lane;
      float* gradients = logit_gradients_.row(first + row) +
                         begin * taps * layout_.pitch + lane;
      if (strip_.finite) {
        softmax_gradient<false>(end - begin, logits, products, log_sum_exp,
                                masks, weights, gradients,
                                row_sums + begin * kLanes,
                                row_sums + layout_.rows.kernel * kLanes);
      } else {
        softmax_gradient<true>(end - begin, logits, products, log_sum_exp,
                               masks, weights, gradients,
                               row_sums + begin * kLanes,
                               row_sums + layout_.rows.kernel * kLanes);
      }
      for (int64_t entry = 0; entry < call_.entries_; ++entry) {
        store(row_sums_ + (row * call_.entries_ + entry) * layout_.pitch + lane,
              load(row_sums + entry * kLanes));
      }
    }

    // `products` becomes the gradients of the logits; these and the weights go
    // to the rings too.
    template <bool masked>
    void softmax_gradient(int64_t entries, float* logits, float* products,
                          Vector log_sum_exp, const Bits* masks, float* weights,
                          float* gradients, float* row_sums,
                          float* column_sums) const {
      const int64_t taps = layout_.columns.kernel;
      const int64_t pitch = layout_.pitch;
      const Vector lowest = all(kLowestExponent);
      Vector total{};
      for (int64_t entry = 0; entry < entries; ++entry) {
        for (int64_t tap = 0; tap < taps; ++tap) {
          float* logit = logits + (entry * taps + tap) * kLanes;
          float* product = products + (entry * taps + tap) * kLanes;
          Vector weight = exp2(load(logit) - log_sum_exp, lowest);
          if (masked) {
            weight = zero_unless(masks[tap], weight);
            store(product, zero_unless(masks[tap], load(product)));
          }
          store(logit, weight);
          total += weight * load(product);
        }
      }
      for (int64_t entry = 0; entry < entries; ++entry) {
        Vector row_sum{};
        for (int64_t tap = 0; tap < taps; ++tap) {
          const Vector weight = load(logits);
          Vector gradient = weight * (load(products) - total);
          if (masked) gradient = zero_unless(masks[tap], gradient);
          store(products, gradient);
          store(weights, weight);
          store(gradients, gradient);
          row_sum += gradient;
          float* column_sum = column_sums + tap * kLanes;
          store(column_sum, load(column_sum) + gradient);
          logits += kLanes;
          products += kLanes;
          weights += pitch;
          gradients += pitch;
        }
        store(row_sums + entry * kLanes, row_sum);
      }
    }

    // Gradients of keys and values: every key collects from the queries that
    // see it.
    void finish_keys(int64_t block) {
      const int64_t stride = layout_.rows.stride;
      const int64_t kernel = layout_.rows.kernel;
      for (int64_t remainder = 0; remainder < stride; ++remainder) {
        const int64_t first = block * block_rows() + remainder;
        const int64_t count =
            min(kRows, ceil_div(strip_.rows.keys - first, stride));
        if (count <= 0) break;
        // Entry of the window in which query 0 sees row `first`.
        const int64_t entry = first - strip_.rows.first_query + kernel / 2;
        const int64_t queries = last_query(block) - first_query(block) + 1;
        Run* runs = runs_.reserve(max(1, queries));
        int64_t run_count = 0;
        for (int64_t query = first_query(block); query <= last_query(block);
             ++query) {
          const int64_t e = entry - query * stride;
          const int64_t low = max(0, ceil_div(-e, stride));
          const int64_t high =
              min(count - 1, floor_div(kernel - 1 - e, stride));
          if (low > high) continue;
          if (run_count > 0 && runs[run_count - 1].low == low &&
              runs[run_count - 1].high == high &&
              runs[run_count - 1].end == query) {
            ++runs[run_count - 1].end;
          } else {
            runs[run_count++] = {low, high, query, query + 1};
          }
        }
        for (int64_t phase = 0; phase < layout_.column_phases; ++phase) {
          for (int64_t vector = 0; vector < layout_.vectors; ++vector) {
            for (int64_t row = 0; row < count; ++row) {
              const int64_t place = strip_.key_row(first + row * stride);
              call_.value_unpacking_.expect(vector, phase,
                                            call_.gradients_.value.data, place,
                                            strip_.first_head);
              if (call_.inputs_.key.data == nullptr) continue;
              call_.key_unpacking_.expect(vector, phase,
                                          call_.gradients_.key.data, place,
                                          strip_.first_head);
            }
            collect(weights_, upstream_, run_count, entry, phase, vector,
                    count);
            for (int64_t row = 0; row < count; ++row) {
              call_.value_unpacking_.unpack(
                  output_ + row * layout_.width * kLanes, vector, phase,
                  call_.gradients_.value.data,
                  strip_.key_row(first + row * stride), strip_.first_head);
            }
            if (call_.inputs_.key.data == nullptr) continue;
            collect(logit_gradients_, queries_, run_count, entry, phase, vector,
                    count);
            for (int64_t i = 0; i < count * layout_.width; ++i) {
              store(output_ + i * kLanes, load(output_ + i * kLanes) * kLn2);
            }
            for (int64_t row = 0; row < count; ++row) {
              call_.key_unpacking_.unpack(
                  output_ + row * layout_.width * kLanes, vector, phase,
                  call_.gradients_.key.data,
                  strip_.key_row(first + row * stride), strip_.first_head);
            }
          }
        }
      }
    }

    void collect(const Ring& weights, const Ring& values, int64_t run_count,
                 int64_t entry, int64_t phase, int64_t vector, int64_t count) {
      const int64_t stride = layout_.rows.stride;
      const int64_t taps = layout_.columns.kernel;
      const int64_t lane = vector * kLanes;
      std::memset(output_, 0, count * layout_.width * kLanes * sizeof(float));
      WeightedSum s{};
      s.weight_row = stride * taps * layout_.pitch;
      s.value_channel = layout_.pitch;
      // From the key back to its queries.
      const Taps& group = layout_.phase_taps[phase];
      const int64_t shift =
          group.count > 0 ? layout_.tap_shift[group.first] : 0;
      s.weight_tap = group.step * layout_.pitch - group.shift;
      s.value_tap = -group.shift;
      s.taps = group.count;
      s.mask_tap = 1;
      s.output_row = layout_.width * kLanes;
      s.masks = strip_.finite ? nullptr : layout_.key_masks(phase, vector);
      for (int64_t number = 0; number < run_count; ++number) {
        const Run& run = runs_[number];
        const int64_t steps = run.end - run.begin;
        const float** pointers = pointers_.reserve(2 * steps);
        for (int64_t i = 0; i < steps; ++i) {
          const int64_t query = run.begin + i;
          const int64_t e = entry + (run.low - query) * stride;
          pointers[i] = weights.row(query) +
                        (e * taps + group.first) * layout_.pitch + lane - shift;
          pointers[steps + i] = values.row(query) + lane - shift;
        }
        s.weights = pointers;
        s.values = pointers + steps;
        s.steps = steps;
        s.output = output_ + run.low * s.output_row;
        add_weighted(s, run.high - run.low + 1, layout_.channels);
      }
    }

    // embeddings[head][entry][channel], a vector each, collects the products of
    // queries and gradients of the logits summed along the other axis.
    void add_embeddings(int64_t first, int64_t row) {
      const int64_t columns = layout_.columns.queries;
      const int64_t half = call_.half_;
      const int64_t pitch = layout_.pitch;
      for (int64_t head = 0; head < layout_.heads; ++head) {
        const int64_t start = head * layout_.head_stride;
        // Lanes behind the head stay zero.
        for (int64_t entry = 0; entry < call_.entries_; ++entry) {
          std::memcpy(
              head_sums_ + entry * head_lanes_,
              row_sums_ + (row * call_.entries_ + entry) * pitch + start,
              columns * sizeof(float));
        }
        const float* queries = queries_.row(first + row) + start;
        int64_t query_stride = pitch;
        if (!strip_.finite) {
          for (int64_t channel = 0; channel < layout_.width; ++channel) {
            float* to = masked_queries_ + channel * head_lanes_;
            std::memset(to, 0, head_lanes_ * sizeof(float));
            std::memcpy(to, queries + channel * pitch, columns * sizeof(float));
          }
          queries = masked_queries_;
          query_stride = head_lanes_;
        }
        Correlation c{};
        c.query_row = head_lanes_;
        c.query_channel = kLanes;
        const float* keys;
        c.steps = 1;
        c.keys = &keys;
        c.key_tap = query_stride;
        c.key_channel = kLanes;
        c.channels = head_lanes_ / kLanes;
        c.tap = kLanes;
        c.row_bias = layout_.zeros.data();
        c.tap_bias_row = c.output_row = half * kLanes;
        for (int64_t entry = 0; entry < call_.entries_;) {
          const bool vertical = entry < layout_.rows.kernel;
          const int64_t end = vertical ? layout_.rows.kernel : call_.entries_;
          const int64_t count = min(kRows, end - entry);
          c.query = head_sums_ + entry * head_lanes_;
          keys = queries + (vertical ? 0 : half * query_stride);
          c.output =
              embeddings_ + (head * call_.entries_ + entry) * half * kLanes;
          c.tap_bias = c.output;
          correlate(c, count, layout_.half_taps);
          entry += count;
        }
      }
    }

    void finish_embeddings() {
      const int64_t half = call_.half_;
      const int64_t part = strip_.image * layout_.row_phases + strip_.phase;
      for (int64_t head = 0; head < layout_.heads; ++head) {
        for (int64_t entry = 0; entry < call_.entries_; ++entry) {
          float* to = call_.embeddings_.data() +
                      ((part * call_.entries_ + entry) * layout_.all_heads +
                       strip_.first_head + head) *
                          half;
          const float* from =
              embeddings_ + (head * call_.entries_ + entry) * half * kLanes;
          for (int64_t channel = 0; channel < half; ++channel) {
            float sum = 0;
            for (int i = 0; i < kLanes; ++i) sum += from[channel * kLanes + i];
            to[channel] = sum * kLn2;
          }
        }
      }
    }

    // Queries `begin` to `end`, seen by the rows of keys `low` to `high`.
    struct Run {
      int64_t low, high, begin, end;
    };

    const BackwardTasks& call_;
    const Layout& layout_;
    Strip strip_;
    Ring queries_, upstream_, weights_, logit_gradients_;
    int64_t head_lanes_;
    float *row_logits_, *column_logits_, *logits_, *products_, *output_;
    float *sums_, *row_sums_, *head_sums_, *embeddings_, *masked_queries_;
    Array<Run> runs_;
    Array<const float*> pointers_;
  };

  const Inputs inputs_;
  const Upstream upstream_;
  const Gradients gradients_;
  const Layout layout_;
  const Packing query_packing_, key_packing_, value_packing_;
  const Packing upstream_packing_;
  const Packing query_unpacking_, key_unpacking_, value_unpacking_;
  const int64_t entries_, half_;
  const int64_t call_ = new_call();
  int64_t parts_ = 0;
  Array<float> embeddings_;  // (part, entry, head, channel)
};

std::unique_ptr<Tasks> forward(const Shape& shape, const Inputs& inputs,
                               const Outputs& outputs) {
  return std::unique_ptr<Tasks>(new ForwardTasks(shape, inputs, outputs));
}

std::unique_ptr<Tasks> backward(const Shape& shape, const Inputs& inputs,
                                const Upstream& upstream,
                                const Gradients& gradients) {
  return std::unique_ptr<Tasks>(
      new BackwardTasks(shape, inputs, upstream, gradients));
}

void exp2_all(const float* input, float* output, int64_t size) {
  for (int64_t i = 0; i < size; i += kLanes) {
    const int64_t count = min(kLanes, size - i);
    Vector numbers{};
    std::memcpy(&numbers, input + i, count * sizeof(float));
    numbers = exp2(numbers, all(kLowestExponent));
    std::memcpy(output + i, &numbers, count * sizeof(float));
  }
}

}  // namespace

extern const Level level;
const Level level = {KERAS_SASA_NAME(KERAS_SASA_LEVEL), forward, backward,
                     exp2_all};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa
