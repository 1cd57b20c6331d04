#include "keras_sasa/kernels/window/pixel_products.h"

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {
namespace {

// The most pixels of a tile of one vector of columns, of two, and so on, so
// that accumulators and operands fill the registers.
#if defined(__AVX512VL__) || defined(__aarch64__)
constexpr int kTileVectors = 4;
constexpr int kTilePixels[] = {0, 8, 8, 8, 6};
#else
constexpr int kTileVectors = 3;
constexpr int kTilePixels[] = {0, 6, 6, 4};
#endif

// Narrow vectors make tiles of few pixels, each of which reads the matrix: a
// copy of its current part stays in the first cache.
constexpr bool kCopyMatrix = kLanes < kCacheLineFloats;
// The fewest pixels that are worth the copy.
constexpr int64_t kCopyPixels = 16;

// Channels that are multiplied at a time, so that their part of a few columns
// of the matrix stays in the first or the second cache.
constexpr int64_t kBlockChannels = kCopyMatrix ? 256 : 512;

template <int vectors, int pixels>
KERAS_SASA_NOINLINE void PixelProductTile(const float* image,
                                          int64_t pixel_stride,
                                          int64_t channels, bool add,
                                          const float* matrix,
                                          int64_t matrix_stride, float* output,
                                          int64_t output_stride) {
  Vector sums[pixels][vectors] = {};
  if (add) {
    KERAS_SASA_UNROLL
    for (int i = 0; i < pixels; ++i) {
      KERAS_SASA_UNROLL
      for (int v = 0; v < vectors; ++v) {
        sums[i][v] = Load(output + i * output_stride + v * kLanes);
      }
    }
  }
  // There are not enough registers for an address of every pixel. One for
  // every three and the stride between them is enough.
  constexpr int kMiddles = (pixels + 2) / 3;
  const float* middles[kMiddles];
  KERAS_SASA_UNROLL
  for (int i = 0; i < kMiddles; ++i) {
    middles[i] = image + (3 * i + 1) * pixel_stride;
  }
  for (; channels > 0; --channels) {
    Vector right[vectors];
    KERAS_SASA_UNROLL
    for (int v = 0; v < vectors; ++v) right[v] = Load(matrix + v * kLanes);
    KERAS_SASA_UNROLL
    for (int i = 0; i < pixels; ++i) {
      const Vector left =
          Broadcast(*(middles[i / 3] + (i % 3 - 1) * pixel_stride));
      KERAS_SASA_UNROLL
      for (int v = 0; v < vectors; ++v) sums[i][v] += left * right[v];
    }
    KERAS_SASA_UNROLL
    for (int i = 0; i < kMiddles; ++i) ++middles[i];
    matrix += matrix_stride;
  }
  KERAS_SASA_UNROLL
  for (int i = 0; i < pixels; ++i) {
    KERAS_SASA_UNROLL
    for (int v = 0; v < vectors; ++v) {
      Store(output + i * output_stride + v * kLanes, sums[i][v]);
    }
  }
}

// Computes `count` pixels, at most `pixels`, from `first` on.
template <int vectors, int pixels>
inline void ComputePixels(const PixelProducts& p, int64_t first, int64_t count,
                          bool add) {
  if constexpr (pixels > 1) {
    if (count < pixels) {
      return ComputePixels<vectors, pixels - 1>(p, first, count, add);
    }
  }
  PixelProductTile<vectors, pixels>(
      p.pixels + first * p.pixel_stride, p.pixel_stride, p.channels, add,
      p.matrix, p.matrix_stride, p.output + first * p.output_stride,
      p.output_stride);
}

// Computes `count` vectors of columns, at most `vectors`.
template <int vectors>
void ComputeVectors(const PixelProducts& p, int64_t count, bool add) {
  if constexpr (vectors > 1) {
    if (count < vectors) return ComputeVectors<vectors - 1>(p, count, add);
  }
  // Tiles are of about the same size, as small ones are slow.
  const int64_t tiles = CeilDiv(p.count, kTilePixels[vectors]);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = tile * p.count / tiles;
    const int64_t end = (tile + 1) * p.count / tiles;
    ComputePixels<vectors, kTilePixels[vectors]>(p, first, end - first, add);
  }
}

// Copies `columns` columns, a multiple of kLanes.
void CopyMatrix(const float* matrix, int64_t matrix_stride, int64_t channels,
                int64_t columns, float* copy) {
  for (int64_t channel = 0; channel < channels; ++channel) {
    for (int64_t column = 0; column < columns; column += kLanes) {
      Store(copy + column, Load(matrix + column));
    }
    matrix += matrix_stride;
    copy += columns;
  }
}

}  // namespace

void ComputePixelProducts(const PixelProducts& p) {
  alignas(kCacheLineBytes) float
      copy[kCopyMatrix ? kBlockChannels * kTileVectors * kLanes : 1];
  const int64_t vectors = p.columns / kLanes;
  const int64_t parts = CeilDiv(vectors, kTileVectors);
  for (int64_t channel = 0; channel < p.channels; channel += kBlockChannels) {
    PixelProducts block = p;
    block.pixels += channel;
    block.channels = Min(kBlockChannels, p.channels - channel);
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t first = part * vectors / parts;
      const int64_t end = (part + 1) * vectors / parts;
      block.matrix = p.matrix + channel * p.matrix_stride + first * kLanes;
      block.output = p.output + first * kLanes;
      if (kCopyMatrix && p.count >= kCopyPixels) {
        block.matrix_stride = (end - first) * kLanes;
        CopyMatrix(block.matrix, p.matrix_stride, block.channels,
                   block.matrix_stride, copy);
        block.matrix = copy;
      }
      ComputeVectors<kTileVectors>(block, end - first, channel > 0);
    }
  }
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa
