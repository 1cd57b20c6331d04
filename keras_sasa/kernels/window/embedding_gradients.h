// Gradients of the row and column embeddings.

#ifndef KERAS_SASA_KERNELS_WINDOW_EMBEDDING_GRADIENTS_H_
#define KERAS_SASA_KERNELS_WINDOW_EMBEDDING_GRADIENTS_H_

#include <cstdint>
#include <cstring>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/exponentials.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/window/attention.h"
#include "keras_sasa/kernels/window/layout.h"
#include "keras_sasa/kernels/window/strip.h"
#include "keras_sasa/kernels/window/tap_products.h"
#include "keras_sasa/kernels/window/tile_sizes.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Entries of both embeddings: first the rows, then the columns.
inline int64_t EmbeddingEntries(const Layout& layout) {
  return layout.rows.kernel + layout.columns.kernel;
}

// The gradients of all strips, one part for each image and subgrid.
class EmbeddingGradientParts {
 public:
  EmbeddingGradientParts(const Layout& layout, int64_t batch, bool relative)
      : layout_(layout),
        parts_(relative ? batch * layout.row_subgrids : 0),
        numbers_(layout.all_heads * (layout.width / 2)) {
    memory_.Reserve(parts_ * EmbeddingEntries(layout) * numbers_);
  }

  // Where the gradient of an entry goes: (heads, half of the head width).
  float* At(const Strip& strip, int64_t entry) const {
    const int64_t part = strip.image * layout_.row_subgrids + strip.subgrid;
    return memory_.data() +
           (part * EmbeddingEntries(layout_) + entry) * numbers_ +
           strip.first_head * (layout_.width / 2);
  }

  // Adds the parts up.
  void Sum(const WindowGradients& gradients) const {
    const int64_t entries = EmbeddingEntries(layout_);
    for (int64_t entry = 0; entry < entries; ++entry) {
      float* to = entry < layout_.rows.kernel
                      ? gradients.row_embedding + entry * numbers_
                      : gradients.column_embedding +
                            (entry - layout_.rows.kernel) * numbers_;
      for (int64_t i = 0; i < numbers_; ++i) {
        double sum = 0;
        for (int64_t part = 0; part < parts_; ++part) {
          sum += memory_[(part * entries + entry) * numbers_ + i];
        }
        to[i] = static_cast<float>(sum);
      }
    }
  }

 private:
  const Layout& layout_;
  const int64_t parts_;
  const int64_t numbers_;       // Of an entry.
  AlignedArray<float> memory_;  // [part][entry][head][channel]
};

// The gradients of one strip, as a vector for each number; lanes are added up
// at the end.
class EmbeddingGradients {
 public:
  explicit EmbeddingGradients(const Layout& layout)
      : layout_(layout),
        entries_(EmbeddingEntries(layout)),
        half_(layout.width / 2),
        head_lanes_(RoundUp(layout.columns.queries, kLanes)) {}

  // Floats of the scratch memory below. `head_sums` starts as zeros.
  int64_t head_sums_size() const {
    return entries_ * layout_.heads * head_lanes_ + kLanes;
  }
  int64_t finite_queries_size() const { return layout_.width * head_lanes_; }
  int64_t sums_size() const {
    return layout_.heads * entries_ * half_ * kLanes;
  }
  float *head_sums, *finite_queries, *sums;

  void Clear() { std::memset(sums, 0, sums_size() * sizeof(float)); }

  // Adds the products of a row of queries and the gradients of their logits,
  // for the heads of a block. `logit_sums` are the latter, added up along the
  // other axis: a plane of the block each entry. `masked`: numbers may be
  // infinite or NaN.
  void Add(const float* queries, const float* logit_sums, int64_t block,
           bool masked) {
    const int64_t columns = layout_.columns.queries;
    const int64_t plane_stride = layout_.plane_stride;
    for (int64_t i = 0; i < layout_.block_heads; ++i) {
      const int64_t head = block * layout_.block_heads + i;
      // Lanes behind the head stay zero.
      for (int64_t entry = 0; entry < entries_; ++entry) {
        std::memcpy(head_sums + entry * head_lanes_,
                    logit_sums + entry * layout_.block_plane_stride +
                        i * layout_.head_stride,
                    columns * sizeof(float));
      }
      const float* head_queries = queries + head * layout_.head_stride;
      int64_t query_stride = plane_stride;
      if (masked) {
        for (int64_t channel = 0; channel < layout_.width; ++channel) {
          float* to = finite_queries + channel * head_lanes_;
          std::memset(to, 0, head_lanes_ * sizeof(float));
          std::memcpy(to, head_queries + channel * plane_stride,
                      columns * sizeof(float));
        }
        head_queries = finite_queries;
        query_stride = head_lanes_;
      }
      AddHead(head, head_queries, query_stride);
    }
  }

  void Finish(const Strip& strip, const EmbeddingGradientParts& parts) const {
    for (int64_t head = 0; head < layout_.heads; ++head) {
      for (int64_t entry = 0; entry < entries_; ++entry) {
        float* to = parts.At(strip, entry) + head * half_;
        const float* from = sums + (head * entries_ + entry) * half_ * kLanes;
        for (int64_t channel = 0; channel < half_; ++channel) {
          // The logits are in base 2.
          to[channel] = SumOfLanes(from + channel * kLanes) * kLn2;
        }
      }
    }
  }

 private:
  // Here the entries are the rows of queries, the lanes the channels, and the
  // channels of the queries the taps.
  void AddHead(int64_t head, const float* queries, int64_t query_stride) {
    TapProducts p{};
    p.query_row_stride = head_lanes_;
    p.query_channel_stride = kLanes;
    const float* keys;
    p.steps = 1;
    p.keys = &keys;
    p.key_tap_stride = query_stride;
    p.key_channel_stride = kLanes;
    p.channels = head_lanes_ / kLanes;
    p.tap_bias_tap_stride = p.output_tap_stride = kLanes;
    p.row_bias = layout_.zeros.data();
    p.tap_bias_row_stride = p.output_row_stride = half_ * kLanes;
    for (int64_t entry = 0; entry < entries_;) {
      const bool vertical = entry < layout_.rows.kernel;
      const int64_t end = vertical ? layout_.rows.kernel : entries_;
      const int64_t count = Min(kQueryRows, end - entry);
      p.query = head_sums + entry * head_lanes_;
      keys = queries + (vertical ? 0 : half_ * query_stride);
      p.output = sums + (head * entries_ + entry) * half_ * kLanes;
      p.tap_bias = p.output;
      ComputeTapProducts(p, count, layout_.half_taps);
      entry += count;
    }
  }

  const Layout& layout_;
  const int64_t entries_, half_;
  const int64_t head_lanes_;  // Lanes of one head, from a vector of its own on.
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_EMBEDDING_GRADIENTS_H_
