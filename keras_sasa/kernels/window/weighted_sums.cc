#include "keras_sasa/kernels/window/weighted_sums.h"

#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {
namespace {

// Computes `channels` channels from `first` on.
template <int rows, int channels, bool masked>
KERAS_SASA_NOINLINE void WeightedSumTile(const WeightedSums& s, int64_t first) {
  Vector sums[rows][channels];
  KERAS_SASA_UNROLL
  for (int row = 0; row < rows; ++row) {
    const float* output = s.output + row * s.output_row_stride + first * kLanes;
    KERAS_SASA_UNROLL
    for (int channel = 0; channel < channels; ++channel) {
      sums[row][channel] = Load(output + channel * kLanes);
    }
  }
  for (int64_t step = 0; step < s.steps; ++step) {
    const float* weight = s.weights[step];
    const float* value = s.values[step] + first * s.value_channel_stride;
    for (int64_t tap = 0; tap < s.taps; ++tap) {
      Vector weights[rows];
      KERAS_SASA_UNROLL
      for (int row = 0; row < rows; ++row) {
        weights[row] = LoadRegister(weight + row * s.weight_row_stride);
        if (masked) {
          weights[row] =
              ZeroUnless(s.masks[tap * s.mask_tap_stride], weights[row]);
        }
      }
      KERAS_SASA_UNROLL
      for (int channel = 0; channel < channels; ++channel) {
        Vector values = LoadRegister(value + channel * s.value_channel_stride);
        if (masked) {
          values = ZeroUnless(s.masks[tap * s.mask_tap_stride], values);
        }
        KERAS_SASA_UNROLL
        for (int row = 0; row < rows; ++row) {
          sums[row][channel] += weights[row] * values;
        }
      }
      weight += s.weight_tap_stride;
      value += s.value_tap_stride;
    }
  }
  KERAS_SASA_UNROLL
  for (int row = 0; row < rows; ++row) {
    float* output = s.output + row * s.output_row_stride + first * kLanes;
    KERAS_SASA_UNROLL
    for (int channel = 0; channel < channels; ++channel) {
      Store(output + channel * kLanes, sums[row][channel]);
    }
  }
}

// Computes `count` channels, at most `channels`, from `first` on.
template <int rows, int channels>
inline void AddChannels(const WeightedSums& s, int64_t first, int64_t count) {
  if constexpr (channels > 1) {
    if (count < channels) {
      return AddChannels<rows, channels - 1>(s, first, count);
    }
  }
  if (s.masks != nullptr) {
    return WeightedSumTile<rows, channels, true>(s, first);
  }
  WeightedSumTile<rows, channels, false>(s, first);
}

template <int rows>
void AddRows(const WeightedSums& s, int64_t count, const TileSizes& channels) {
  if constexpr (rows > 1) {
    if (count < rows) {
      return AddRows<rows - 1>(s, count, channels);
    }
  }
  const int64_t size = channels.size[rows];
  for (int64_t first = 0; first < channels.total; first += size) {
    AddChannels<rows, kTileChannels[rows]>(s, first,
                                           Min(size, channels.total - first));
  }
}

}  // namespace

void AddWeightedSums(const WeightedSums& s, int64_t rows,
                     const TileSizes& channels) {
  AddRows<kQueryRows>(s, rows, channels);
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa
