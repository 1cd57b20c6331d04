// Local self-attention of maps, forward and backward: what the mathematics in
// local_attention.cc offers. Nothing here knows who calls it.
//
// For one head, a query at (i, j) and the window of keys (a, b) around it,
//
//   y_ij = sum_ab softmax_ab(q_ij . k_ab + q_ij . r_ab) v_ab
//   r_ab = concat(row_embedding[a], column_embedding[b])
//
// Keys outside the image take no part. float32, channels last. A call is cut
// into tasks, which any number of threads may run in any order: the result has
// the same bits.

#ifndef KERAS_SASA_KERNELS_LOCAL_ATTENTION_H_
#define KERAS_SASA_KERNELS_LOCAL_ATTENTION_H_

#include <cstdint>
#include <memory>

#include "tasks.h"

namespace keras_sasa {

// One axis of the image. Query n sits at the pixel first_query + n * stride;
// its window covers the pixels at `dilation` times -(kernel / 2) ... kernel / 2
// from there. `stride` and `dilation` are not both above 1.
struct Axis {
  int64_t keys;
  int64_t queries;
  int64_t kernel;
  int64_t stride;
  int64_t dilation;
  int64_t first_query;
};

struct Shape {
  int64_t batch;
  Axis rows;
  Axis columns;
  int64_t heads;
  int64_t head_width;

  int64_t filters() const { return heads * head_width; }
};

// A map (batch, height, width, filters) whose pixels are `pixel_stride` floats
// apart, so that it may be some of the channels of a wider map. Without `data`
// there is no such map.
template <typename Float>
struct Map {
  Float* data = nullptr;
  int64_t pixel_stride = 0;
};

// Queries, keys and values as products of the pixels of an image with matrices
// (channels, filters), computed where they are needed.
struct Projection {
  Map<const float> image;
  int64_t channels;
  const float* query_kernel;
  const float* key_kernel;  // May be null, as `Inputs::key`.
  const float* value_kernel;
};

struct Inputs {
  Map<const float> query;
  Map<const float> key;  // Without it the logits have no q . k.
  Map<const float> value;
  const float* row_embedding;     // (kernel, heads, head_width / 2), or null
  const float* column_embedding;  // for both: the logits have no q . r.
  // Forward only, in place of the maps, for a query at every pixel.
  Projection projection;

  bool projected() const { return projection.image.data != nullptr; }
  bool content() const {
    return key.data != nullptr || projection.key_kernel != nullptr;
  }
};

struct Outputs {
  Map<float> output;
  // (batch, heads, query rows, query columns): log2 of the sum of exp(logit),
  // all that the gradient needs to know the weights. May be null.
  float* log_sum_exp;
};

struct Upstream {
  Map<const float> output_gradient;
  const float* log_sum_exp;
};

struct Gradients {
  Map<float> query;
  Map<float> key;
  Map<float> value;
  float* row_embedding;
  float* column_embedding;
};

// One instruction set for which the mathematics was compiled.
struct Level {
  const char* name;
  std::unique_ptr<Tasks> (*forward)(const Shape&, const Inputs&,
                                    const Outputs&);
  std::unique_ptr<Tasks> (*backward)(const Shape&, const Inputs&,
                                     const Upstream&, const Gradients&);
  // exp2 of every number, as the softmax computes it.
  void (*exp2)(const float* input, float* output, int64_t size);
};

}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_LOCAL_ATTENTION_H_
