// What both passes compute of a head in the blocks of a vector: queries, values
// and attention weights.
//
// An image has few channels, so that x_i' L x_j takes fewer products than the
// queries and keys that L comes from. A few pixels of a block query at a time:
// their logits and weights stay in the nearest cache.

#ifndef KERAS_SASA_KERNELS_BLOCK_WEIGHTS_H_
#define KERAS_SASA_KERNELS_BLOCK_WEIGHTS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/exponentials.h"
#include "keras_sasa/kernels/base/masked_logit.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/block/attention.h"
#include "keras_sasa/kernels/block/lane_blocks.h"
#include "keras_sasa/kernels/block/lane_matrices.h"
#include "keras_sasa/kernels/block/lane_vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Pixels that query together.
constexpr int64_t kQueries = 16;

class BlockHead {
 public:
  BlockHead(const BlockShape& shape, const BlockInputs& inputs, int64_t head)
      : shape_(shape), inputs_(inputs), head_(head) {}

  SharedMatrix logit_kernel() const {
    return {inputs_.logit_kernels + head_ * shape_.channels * shape_.channels,
            shape_.channels, 1};
  }
  SharedMatrix value_kernel(int64_t place) const {
    return {inputs_.value_kernels + place * shape_.channels * shape_.filters() +
                head_ * shape_.head_width,
            shape_.filters(), 1};
  }

  // Pixels times the logit kernel, for logits in base 2.
  void ProjectQueries(const float* pixels, int64_t places,
                      float* queries) const {
    const int64_t channels = shape_.channels;
    for (int64_t i = 0; i < places * channels; i += channels) {
      float* to = queries + i * kLanes;
      Project<false>(pixels + i * kLanes, logit_kernel(), channels, channels,
                     to);
      for (int64_t j = 0; j < channels; ++j) {
        Store(to + j * kLanes, Load(to + j * kLanes) * kLog2E);
      }
    }
  }

  void ProjectValues(const float* pixels, int64_t places, float* values) const {
    const int64_t channels = shape_.channels;
    for (int64_t place = 0; place < places; ++place) {
      Project<false>(pixels + place * channels * kLanes, value_kernel(place),
                     channels, shape_.head_width,
                     values + place * shape_.head_width * kLanes);
    }
  }

 private:
  const BlockShape& shape_;
  const BlockInputs& inputs_;
  const int64_t head_;
};

// Weights exp2(logit - largest logit) [query][key] of the `query_count` queries
// from `first` on, and the inverse of their sums.
inline void ComputeBlockWeights(const LaneBlocks& blocks, const float* pixels,
                                int64_t channels, const float* queries,
                                int64_t first, int64_t query_count,
                                float* weights, float* factors) {
  const int64_t places = blocks.places;
  const int64_t pixel_stride = channels * kLanes;
  MultiplyLanes({queries + first * pixel_stride, pixel_stride, kLanes},
                {pixels, kLanes, pixel_stride}, query_count, places, channels,
                {weights, places * kLanes, kLanes});
  const Vector lowest = Broadcast(kLowestExponent);
  for (int64_t query = 0; query < query_count; ++query) {
    float* logits = weights + query * places * kLanes;
    if (blocks.cut_off) {
      for (int64_t key = 0; key < places; ++key) {
        Store(logits + key * kLanes,
              Select(blocks.place(key).mask, Load(logits + key * kLanes),
                     Broadcast(kMaskedLogit)));
      }
    }
    Vector largest = Load(logits);
    for (int64_t key = 1; key < places; ++key) {
      largest = Larger(Load(logits + key * kLanes), largest);
    }
    Vector sum{};
    for (int64_t key = 0; key < places; ++key) {
      const Vector weight = Exp2(Load(logits + key * kLanes) - largest, lowest);
      Store(logits + key * kLanes, weight);
      sum += weight;
    }
    Store(factors + query * kLanes, 1.0f / sum);
  }
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BLOCK_WEIGHTS_H_
