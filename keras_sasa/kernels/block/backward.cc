#include "keras_sasa/kernels/block/backward.h"

#include <cstdint>
#include <cstring>
#include <memory>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/exponentials.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/scratch.h"
#include "keras_sasa/kernels/base/tasks.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/block/attention.h"
#include "keras_sasa/kernels/block/lane_blocks.h"
#include "keras_sasa/kernels/block/lane_matrices.h"
#include "keras_sasa/kernels/block/lane_vectors.h"
#include "keras_sasa/kernels/block/weights.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {
namespace {

// Parts that add up the gradients of kernels, each on its own. Their number
// must not depend on the number of threads.
constexpr int64_t kMaxParts = 64;

// A task is some rows of blocks of all images, and adds up the gradients of the
// kernels in a part of its own.
class BackwardTasks : public Tasks {
 public:
  BackwardTasks(const BlockShape& shape, const BlockInputs& inputs,
                const float* output_gradient, const BlockGradients& gradients)
      : shape_(shape),
        inputs_(inputs),
        output_gradient_(output_gradient),
        gradients_(gradients),
        rows_(shape.rows()),
        rows_of_task_(Max(1, CeilDiv(rows_, kMaxParts))) {
    parts_.Reserve(count() * part_size());
  }

  int64_t count() const override { return CeilDiv(rows_, rows_of_task_); }

  void Run(int64_t task) const override {
    LaneBlocks blocks(shape_);
    const int64_t width = shape_.head_width;
    const int64_t channels = shape_.channels;
    const int64_t places = blocks.all_places();
    Memory m{};
    AllocateScratch(scratch_call_,
                    {{&m.pixels, places * channels * kLanes},
                     {&m.image, places * channels * kLanes},
                     {&m.queries, places * channels * kLanes},
                     {&m.keys, places * channels * kLanes},
                     {&m.values, places * width * kLanes},
                     {&m.value_gradients, places * width * kLanes},
                     {&m.weights, kQueries * places * kLanes},
                     {&m.products, kQueries * places * kLanes},
                     {&m.factors, kQueries * kLanes},
                     {&m.upstream, kQueries * width * kLanes},
                     {&m.attended, kQueries * channels * kLanes},
                     {&m.logit_kernels, logit_size() * kLanes},
                     {&m.value_kernels, value_size() * kLanes}});
    std::memset(m.logit_kernels, 0, logit_size() * kLanes * sizeof(float));
    std::memset(m.value_kernels, 0, value_size() * kLanes * sizeof(float));

    const int64_t end = Min(rows_, (task + 1) * rows_of_task_);
    for (int64_t row = task * rows_of_task_; row < end; ++row) {
      for (int64_t block = 0; block < shape_.block_columns(); block += kLanes) {
        blocks.MoveTo(inputs_.image, row / shape_.block_rows(),
                      row % shape_.block_rows(), block, m.pixels);
        std::memset(m.image, 0, places * channels * kLanes * sizeof(float));
        for (int64_t head = 0; head < shape_.heads; ++head) {
          Differentiate(blocks, head, m);
        }
        for (int64_t place = 0; place < blocks.places; ++place) {
          blocks.Scatter(place, m.image + place * channels * kLanes, channels,
                         gradients_.image, channels);
        }
      }
    }
    // [head][channel][channel], then [head][place][channel][head width].
    float* to = parts_.data() + task * part_size();
    for (int64_t i = 0; i < logit_size(); ++i) {
      *to++ = SumOfLanes(m.logit_kernels + i * kLanes);
    }
    const int64_t matrix = channels * width;
    for (int64_t head = 0; head < shape_.heads; ++head) {
      for (int64_t i = 0; i < places * matrix; ++i) {
        *to++ =
            SumOfLanes(m.value_kernels + (head * places * matrix + i) * kLanes);
      }
    }
  }

  void Finish() const override {
    const int64_t width = shape_.head_width;
    for (int64_t i = 0; i < logit_size(); ++i) {
      gradients_.logit_kernels[i] = SumOfParts(i);
    }
    // From heads first to heads beside each other.
    const int64_t matrices = value_size() / shape_.filters();
    for (int64_t i = 0; i < value_size(); ++i) {
      const int64_t head = i / (matrices * width);
      const int64_t matrix = i / width % matrices;
      gradients_
          .value_kernels[matrix * shape_.filters() + head * width + i % width] =
          SumOfParts(logit_size() + i);
    }
  }

 private:
  struct Memory {
    float *pixels, *image;  // [place][channel][lane], and its gradient.
    float *queries, *keys;  // Of the head; the gradient through the keys.
    float *values, *value_gradients;
    float *weights, *products;  // Of kQueries pixels: [query][key][lane].
    float *factors, *upstream;
    float* attended;  // Pixels weighted by the gradients of their logits.
    float *logit_kernels, *value_kernels;
  };

  int64_t logit_size() const {
    return shape_.heads * shape_.channels * shape_.channels;
  }
  int64_t value_size() const {
    return shape_.size * shape_.size * shape_.channels * shape_.filters();
  }
  int64_t part_size() const { return logit_size() + value_size(); }

  float SumOfParts(int64_t number) const {
    double sum = 0;
    for (int64_t part = 0; part < count(); ++part) {
      sum += parts_[part * part_size() + number];
    }
    return static_cast<float>(sum);
  }

  void Differentiate(const LaneBlocks& blocks, int64_t head,
                     const Memory& m) const {
    const int64_t width = shape_.head_width;
    const int64_t channels = shape_.channels;
    const int64_t places = blocks.places;
    const int64_t pixel = channels * kLanes;
    const int64_t value = width * kLanes;
    const LaneMatrix<float> weights = {m.weights, places * kLanes, kLanes};
    const LaneMatrix<float> products = {m.products, places * kLanes, kLanes};
    const LaneMatrix<float> values = {m.values, value, kLanes};
    const LaneMatrix<float> upstream = {m.upstream, value, kLanes};
    const LaneMatrix<float> pixels = {m.pixels, pixel, kLanes};
    const LaneMatrix<float> value_gradients = {m.value_gradients, value,
                                               kLanes};
    const LaneMatrix<float> keys = {m.keys, pixel, kLanes};
    const LaneMatrix<float> attended = {m.attended, pixel, kLanes};
    const BlockHead kernels(shape_, inputs_, head);
    float* kernel_gradient =
        m.logit_kernels + head * channels * channels * kLanes;
    kernels.ProjectQueries(m.pixels, places, m.queries);
    kernels.ProjectValues(m.pixels, places, m.values);
    for (int64_t first = 0; first < places; first += kQueries) {
      const int64_t count = Min(kQueries, places - first);
      const bool add = first > 0;
      ComputeBlockWeights(blocks, m.pixels, channels, m.queries, first, count,
                          m.weights, m.factors);
      for (int64_t query = 0; query < count; ++query) {
        blocks.Gather(first + query, output_gradient_ + head * width,
                      shape_.filters(), width, m.upstream + query * value);
      }
      MultiplyLanes(upstream, values.Transposed(), count, places, width,
                    products);
      ComputeLogitGradients(count, places, m);
      MultiplyLanes(weights.Transposed(), upstream, places, width, count,
                    value_gradients, add);
      MultiplyLanes(products, pixels, count, channels, places, attended);
      MultiplyLanes(products.Transposed(),
                    {m.queries + first * pixel, pixel, kLanes}, places,
                    channels, count, keys, add);
      for (int64_t query = 0; query < count; ++query) {
        const int64_t place = (first + query) * pixel;
        const float* sum = m.attended + query * pixel;
        AddOuterProduct(m.pixels + place, channels, sum, channels,
                        kernel_gradient);
        Project<true>(sum, kernels.logit_kernel().Transposed(), channels,
                      channels, m.image + place);
      }
    }
    for (int64_t place = 0; place < places; ++place) {
      const float* gradient = m.value_gradients + place * value;
      Project<true>(gradient, kernels.value_kernel(place).Transposed(), width,
                    channels, m.image + place * pixel);
      AddOuterProduct(m.pixels + place * pixel, channels, gradient, width,
                      m.value_kernels + (head * blocks.all_places() + place) *
                                            channels * value);
    }
    // The queries were multiplied by log2(e).
    for (int64_t i = 0; i < places * pixel; i += kLanes) {
      Store(m.image + i, Load(m.image + i) + Load(m.keys + i) * kLn2);
    }
  }

  // With p a weight and g the product of the value and the gradient of the
  // output, the gradient of the logit is p * (g - sum of all p * g). The
  // products become these gradients.
  void ComputeLogitGradients(int64_t count, int64_t places,
                             const Memory& m) const {
    for (int64_t query = 0; query < count; ++query) {
      float* weights = m.weights + query * places * kLanes;
      float* products = m.products + query * places * kLanes;
      const Vector factor = Load(m.factors + query * kLanes);
      Vector total{};
      for (int64_t i = 0; i < places * kLanes; i += kLanes) {
        const Vector weight = Load(weights + i) * factor;
        Store(weights + i, weight);
        total += weight * Load(products + i);
      }
      for (int64_t i = 0; i < places * kLanes; i += kLanes) {
        Store(products + i, Load(weights + i) * (Load(products + i) - total));
      }
    }
  }

  const BlockShape shape_;
  const BlockInputs inputs_;
  const float* const output_gradient_;
  const BlockGradients gradients_;
  const int64_t rows_, rows_of_task_;
  const int64_t scratch_call_ = NewScratchCall();
  AlignedArray<float> parts_;
};

}  // namespace

std::unique_ptr<Tasks> MakeBlockBackward(const BlockShape& shape,
                                         const BlockInputs& inputs,
                                         const float* output_gradient,
                                         const BlockGradients& gradients) {
  return std::unique_ptr<Tasks>(
      new BackwardTasks(shape, inputs, output_gradient, gradients));
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa
