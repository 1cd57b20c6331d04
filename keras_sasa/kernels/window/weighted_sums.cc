#include "keras_sasa/kernels/window/weighted_sums.h"

#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {
namespace {

// Adds a span to the rows `first` to `first + count` of a tile.
template <int first, int count, bool masked, int channels>
KERAS_SASA_ALWAYS_INLINE void AddSpan(const WeightedSums& s,
                                      const WeightedSpan& span,
                                      int64_t first_channel,
                                      Vector (&sums)[kQueryRows][channels]) {
  // Copies, because the compiler must assume that stores change the members.
  const int64_t taps = s.taps;
  const int64_t weight_row_stride = s.weight_row_stride;
  const int64_t weight_tap_stride = s.weight_tap_stride;
  const int64_t value_channel_stride = s.value_channel_stride;
  const int64_t value_tap_stride = s.value_tap_stride;
  for (int64_t step = 0; step < span.steps; ++step) {
    const float* weight = span.weights[step];
    const float* value =
        span.values[step] + first_channel * value_channel_stride;
    for (int64_t tap = 0; tap < taps; ++tap) {
      Vector weights[count];
      KERAS_SASA_UNROLL
      for (int row = 0; row < count; ++row) {
        weights[row] = LoadRegister(weight + row * weight_row_stride);
        if (masked) {
          weights[row] =
              ZeroUnless(s.masks[tap * s.mask_tap_stride], weights[row]);
        }
      }
      KERAS_SASA_UNROLL
      for (int channel = 0; channel < channels; ++channel) {
        Vector values = LoadRegister(value + channel * value_channel_stride);
        if (masked) {
          values = ZeroUnless(s.masks[tap * s.mask_tap_stride], values);
        }
        KERAS_SASA_UNROLL
        for (int row = 0; row < count; ++row) {
          sums[first + row][channel] += weights[row] * values;
        }
      }
      weight += weight_tap_stride;
      value += value_tap_stride;
    }
  }
}

// Computes `channels` channels from `first` on.
template <bool masked, int channels>
KERAS_SASA_NOINLINE void WeightedSumTile(const WeightedSums& s, int64_t rows,
                                         int64_t first) {
  Vector sums[kQueryRows][channels] = {};
  float* output = s.output + first * kLanes;
  if (s.add) {
    KERAS_SASA_UNROLL
    for (int row = 0; row < kQueryRows; ++row) {
      if (row >= rows) break;
      KERAS_SASA_UNROLL
      for (int channel = 0; channel < channels; ++channel) {
        sums[row][channel] =
            Load(output + row * s.output_row_stride + channel * kLanes);
      }
    }
  }
  for (int64_t i = 0; i < s.span_count; ++i) {
    const WeightedSpan& span = s.spans[i];
    static_assert(kQueryRows == 3);
    switch (kQueryRows * span.first + span.count) {
      case 1:
        AddSpan<0, 1, masked>(s, span, first, sums);
        break;
      case 2:
        AddSpan<0, 2, masked>(s, span, first, sums);
        break;
      case 3:
        AddSpan<0, 3, masked>(s, span, first, sums);
        break;
      case 4:
        AddSpan<1, 1, masked>(s, span, first, sums);
        break;
      case 5:
        AddSpan<1, 2, masked>(s, span, first, sums);
        break;
      case 7:
        AddSpan<2, 1, masked>(s, span, first, sums);
        break;
    }
  }
  KERAS_SASA_UNROLL
  for (int row = 0; row < kQueryRows; ++row) {
    if (row >= rows) break;
    const Vector factor =
        s.factors != nullptr ? s.factors[row] : Broadcast(1.0f);
    KERAS_SASA_UNROLL
    for (int channel = 0; channel < channels; ++channel) {
      Store(output + row * s.output_row_stride + channel * kLanes,
            sums[row][channel] * factor);
    }
  }
}

// Computes `count` channels, at most `channels`, from `first` on.
template <int channels>
inline void ComputeChannels(const WeightedSums& s, int64_t rows, int64_t first,
                            int64_t count) {
  if constexpr (channels > 1) {
    if (count < channels) {
      return ComputeChannels<channels - 1>(s, rows, first, count);
    }
  }
  if (s.masks != nullptr) {
    return WeightedSumTile<true, channels>(s, rows, first);
  }
  WeightedSumTile<false, channels>(s, rows, first);
}

}  // namespace

void ComputeWeightedSums(const WeightedSums& s, int64_t rows,
                         int64_t channels) {
  // Tiles of about the same size, as small ones are slow.
  const int64_t size =
      CeilDiv(channels, Max(1, CeilDiv(channels, kTileChannels)));
  for (int64_t first = 0; first < channels; first += size) {
    ComputeChannels<kTileChannels>(s, rows, first, Min(size, channels - first));
  }
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa
