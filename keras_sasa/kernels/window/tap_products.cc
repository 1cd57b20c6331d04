#include "keras_sasa/kernels/window/tap_products.h"

#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {
namespace {

// How the keys of the taps of a tile are read: at any distance, one float
// apart, or that and around a key that is aligned, so that they are shifted in
// registers instead of loaded across cache lines.
enum class Keys { kStrided, kAdjacent, kCentered };

#if defined(__AVX512VL__)
constexpr bool kCanShift = true;

template <int taps, int tap>
KERAS_SASA_ALWAYS_INLINE Vector ShiftKeys(const Vector (&line)[3]) {
  constexpr int kShift = tap - taps / 2;
  if constexpr (kShift < 0) {
    return ShiftLanes<kLanes + kShift>(line[0], line[1]);
  }
  if constexpr (kShift > 0) return ShiftLanes<kShift>(line[1], line[2]);
  return line[1];
}

template <int taps, int tap = 0>
KERAS_SASA_ALWAYS_INLINE void ShiftAllKeys(const Vector (&line)[3],
                                           Vector (&keys)[taps]) {
  keys[tap] = ShiftKeys<taps, tap>(line);
  if constexpr (tap + 1 < taps) ShiftAllKeys<taps, tap + 1>(line, keys);
}
#else
constexpr bool kCanShift = false;

template <int taps>
void ShiftAllKeys(const Vector (&line)[3], Vector (&keys)[taps]) = delete;
#endif

// Computes `taps` taps from `first` on. `unit`: channels computed at a time;
// their number is a multiple of it.
template <int rows, int taps, Keys access, int unit>
KERAS_SASA_NOINLINE void TapProductTile(const TapProducts& p, int64_t first) {
  // Copies, because the compiler must assume that stores change the members.
  const int64_t channels = p.channels;
  const int64_t query_row_stride = p.query_row_stride;
  const int64_t query_channel_stride = p.query_channel_stride;
  const int64_t key_channel_stride = p.key_channel_stride;
  const int64_t key_tap_stride =
      access == Keys::kStrided ? p.key_tap_stride : 1;
  const int64_t tap_bias_tap_stride = p.tap_bias_tap_stride;
  const int64_t output_tap_stride = p.output_tap_stride;
  const float* row_bias = p.row_bias;
  const float* all_tap_bias = p.tap_bias + first * tap_bias_tap_stride;
  float* output = p.output + first * output_tap_stride;
  for (int64_t step = 0; step < p.steps; ++step) {
    Vector sums[rows][taps];
    KERAS_SASA_UNROLL
    for (int row = 0; row < rows; ++row) {
      const Vector bias = Load(row_bias + row * p.row_bias_row_stride);
      const float* tap_bias = all_tap_bias + row * p.tap_bias_row_stride;
      KERAS_SASA_UNROLL
      for (int tap = 0; tap < taps; ++tap) {
        sums[row][tap] = bias + Load(tap_bias + tap * tap_bias_tap_stride);
      }
    }
    const float* query = p.query;
    const float* key = p.keys[step] + first * key_tap_stride;
    for (int64_t channel = 0; channel < channels; channel += unit) {
      KERAS_SASA_UNROLL
      for (int i = 0; i < unit; ++i) {
        Vector queries[rows];
        KERAS_SASA_UNROLL
        for (int row = 0; row < rows; ++row) {
          queries[row] = LoadRegister(query + row * query_row_stride);
        }
        Vector keys[taps];
        if constexpr (access == Keys::kCentered) {
          const float* center = key + taps / 2;
          const Vector line[] = {Load(center - kLanes), Load(center),
                                 Load(center + kLanes)};
          ShiftAllKeys<taps>(line, keys);
        }
        KERAS_SASA_UNROLL
        for (int tap = 0; tap < taps; ++tap) {
          if constexpr (access != Keys::kCentered) {
            keys[tap] = LoadRegister(key + tap * key_tap_stride);
          }
          KERAS_SASA_UNROLL
          for (int row = 0; row < rows; ++row) {
            sums[row][tap] += queries[row] * keys[tap];
          }
        }
        query += query_channel_stride;
        key += key_channel_stride;
      }
    }
    KERAS_SASA_UNROLL
    for (int row = 0; row < rows; ++row) {
      KERAS_SASA_UNROLL
      for (int tap = 0; tap < taps; ++tap) {
        Store(output + row * p.output_row_stride + tap * output_tap_stride,
              sums[row][tap]);
      }
    }
    row_bias += p.row_bias_step_stride;
    all_tap_bias += p.tap_bias_step_stride;
    output += p.output_step_stride;
  }
}

// Computes `count` taps, at most `taps`, from `first` on.
template <int rows, int taps>
inline void ComputeTaps(const TapProducts& p, int64_t first, int64_t count) {
  if constexpr (taps > 1) {
    if (count < taps) return ComputeTaps<rows, taps - 1>(p, first, count);
  }
  constexpr int kUnit = kTileUnits[rows];
  if constexpr (kUnit > 1) {
    if (p.channels % kUnit != 0) {
      return TapProductTile<rows, taps, Keys::kStrided, 1>(p, first);
    }
  }
  // Three rows share every load, so that it may take longer.
  if constexpr (kCanShift && rows < kQueryRows && (taps == 7 || taps == 3)) {
    if (p.centered) {
      return TapProductTile<rows, taps, Keys::kCentered, kUnit>(p, first);
    }
  }
  if (p.key_tap_stride == 1) {
    return TapProductTile<rows, taps, Keys::kAdjacent, kUnit>(p, first);
  }
  TapProductTile<rows, taps, Keys::kStrided, kUnit>(p, first);
}

template <int rows>
void ComputeRows(const TapProducts& p, int64_t count, const TileSizes& taps) {
  if constexpr (rows > 1) {
    if (count < rows) {
      return ComputeRows<rows - 1>(p, count, taps);
    }
  }
  const int64_t size = taps.size[rows];
  for (int64_t first = 0; first < taps.total; first += size) {
    ComputeTaps<rows, kTileTaps[rows]>(p, first, Min(size, taps.total - first));
  }
}

}  // namespace

void ComputeTapProducts(const TapProducts& p, int64_t rows,
                        const TileSizes& taps) {
  ComputeRows<kQueryRows>(p, rows, taps);
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa
