// Local self-attention of maps, forward and backward: the interface. Nothing
// here knows who calls it.
//
// For one head, a query at (i, j) and the window of keys (a, b) around it,
//
//   y_ij = sum_ab softmax_ab(q_ij . k_ab + q_ij . r_ab) v_ab
//   r_ab = concat(row_embedding[a], column_embedding[b])
//
// A number for each offset (a - i, b - j) may take the place of q_ij . r_ab.
// Keys outside the image are masked, or windows shift inwards so that there are
// none. Maps are float32 or bfloat16, channels last; all else is float32, and
// so is the computation. A call is divided into tasks, which any number of
// threads may run in any order: the result has the same bits.

#ifndef KERAS_SASA_KERNELS_WINDOW_ATTENTION_H_
#define KERAS_SASA_KERNELS_WINDOW_ATTENTION_H_

#include <cstdint>
#include <memory>
#include <type_traits>

#include "keras_sasa/kernels/base/element_type.h"
#include "keras_sasa/kernels/base/tasks.h"

namespace keras_sasa {

// One axis of the image. Query n sits at the pixel first_query + n * stride;
// its window covers the pixels at `dilation` times -(kernel / 2) ... kernel / 2
// from there. At most one of `stride` and `dilation` is above 1. A window that
// `shifts` at the border is the nearest one of `kernel` keys, all of them
// inside the image; there are `kernel` * `dilation` pixels or more, and a query
// on each.
struct WindowAxis {
  int64_t keys;
  int64_t queries;
  int64_t kernel;
  int64_t stride;
  int64_t dilation;
  int64_t first_query;
  bool shifts = false;

  // Different offsets between a query and its keys, in steps of the dilation,
  int64_t offsets() const { return shifts ? 2 * kernel - 1 : kernel; }
  // and the largest one.
  int64_t reach() const { return shifts ? kernel - 1 : kernel / 2; }
};

struct WindowShape {
  int64_t batch;
  WindowAxis rows;
  WindowAxis columns;
  int64_t heads;
  int64_t head_width;

  int64_t filters() const { return heads * head_width; }
};

// A map (batch, height, width, filters) whose pixels are `pixel_stride` numbers
// apart: it may be some of the channels of a wider map. A map without `data` is
// absent. `Void` is `void` or `const void`.
template <typename Void>
struct Map {
  Void* data = nullptr;
  int64_t pixel_stride = 0;
  ElementType type = ElementType::kFloat32;
};

// The same map from one of its channels on.
template <typename Void>
Map<Void> FromChannel(Map<Void> map, int64_t channel) {
  using Byte = std::conditional_t<std::is_const_v<Void>, const char, char>;
  map.data = static_cast<Byte*>(map.data) + channel * ElementSize(map.type);
  return map;
}

// Queries, keys and values as products of the pixels of an image with matrices
// (channels, filters), computed where they are needed.
struct Projection {
  Map<const void> image;
  int64_t channels;
  const float* query_kernel;
  const float* key_kernel;  // May be null, like `WindowInputs::key`.
  const float* value_kernel;
  // (filters), added to the queries; may be null. A bias of keys changes no
  // output, and one of values is an offset of the output.
  const float* query_bias = nullptr;
};

struct WindowInputs {
  Map<const void> query;
  Map<const void> key;  // If absent, logits lack the term q . k.
  Map<const void> value;
  // (kernel, heads, head_width / 2). If both are null, logits lack q . r. For
  // windows that do not shift.
  const float* row_embedding;
  const float* column_embedding;
  // Forward only, instead of the maps.
  Projection projection;
  // (heads, row offsets, column offsets), added to the logits; see
  // `WindowAxis::offsets`. May be null, and is if there are embeddings.
  const float* position_bias = nullptr;
  // Factor of q . k; 1 if there are embeddings.
  float scale = 1.0f;

  bool projected() const { return projection.image.data != nullptr; }
  // Whether logits have the term q . k.
  bool content() const {
    return key.data != nullptr || projection.key_kernel != nullptr;
  }
};

// The steps relu(average(y) * scale + offset) that follow attention in a
// network; without a scale there are none.
struct WindowEpilogue {
  const float* scale = nullptr;  // A number a channel.
  const float* offset = nullptr;
  bool relu = false;
  // Whether squares of 2 x 2 pixels are averaged, which takes rows without
  // dilation. At the bottom and right border, only the pixels that exist count.
  bool average = false;
};

struct WindowOutputs {
  Map<void> output;
  // (batch, heads, query rows, query columns): log2 of the sum of exp(logit),
  // from which the gradient recomputes the weights. May be null.
  float* log_sum_exp;
  WindowEpilogue epilogue{};
};

struct WindowUpstream {
  Map<const void> output_gradient;
  const float* log_sum_exp;
};

struct WindowGradients {
  Map<void> query;
  Map<void> key;
  Map<void> value;
  float* row_embedding;
  float* column_embedding;
  float* position_bias = nullptr;
};

// The functions as they are compiled for one instruction set.
struct WindowAttention {
  std::unique_ptr<Tasks> (*forward)(const WindowShape&, const WindowInputs&,
                                    const WindowOutputs&);
  std::unique_ptr<Tasks> (*backward)(const WindowShape&, const WindowInputs&,
                                     const WindowUpstream&,
                                     const WindowGradients&);
};

}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_ATTENTION_H_
