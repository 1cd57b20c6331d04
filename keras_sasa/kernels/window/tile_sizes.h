// Tiles: the part of a product whose accumulators stay in registers.

#ifndef KERAS_SASA_KERNELS_WINDOW_TILE_SIZES_H_
#define KERAS_SASA_KERNELS_WINDOW_TILE_SIZES_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/integers.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Rows of queries that are computed together and share every load of keys and
// values.
constexpr int kQueryRows = 3;

// The most taps (of logits) of a tile of one, two and three rows of queries,
// and channels (of weighted sums) of a tile of three, so that accumulators and
// operands fill the registers.
#if defined(__AVX512VL__) || defined(__aarch64__)
constexpr int kTileTaps[] = {0, 8, 8, 7};
constexpr int kTileChannels = 8;
#else
constexpr int kTileTaps[] = {0, 8, 4, 4};
constexpr int kTileChannels = 4;
#endif

// Channels that a tile of logits computes at a time where their number is a
// multiple of it, as it mostly is. The loop then takes less of the time, but
// with few registers the compiler runs out of them.
#if defined(__AVX512VL__)
constexpr int kTileUnits[] = {0, 1, 1, 4};
#else
constexpr int kTileUnits[] = {0, 1, 1, 1};
#endif

// Divides a number of taps into tiles of about the same size, as small ones are
// slow.
struct TileSizes {
  int64_t total = 0;
  int64_t size[kQueryRows + 1] = {};  // By the number of rows of queries.

  TileSizes() = default;
  TileSizes(int64_t total, const int (&limits)[kQueryRows + 1]) : total(total) {
    for (int rows = 1; rows <= kQueryRows; ++rows) {
      size[rows] =
          total == 0 ? 1 : CeilDiv(total, CeilDiv(total, limits[rows]));
    }
  }
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_TILE_SIZES_H_
