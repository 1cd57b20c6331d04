#include "keras_sasa/kernels/block/forward.h"

#include <cmath>
#include <cstdint>
#include <memory>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/scratch.h"
#include "keras_sasa/kernels/base/tasks.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/block/attention.h"
#include "keras_sasa/kernels/block/lane_blocks.h"
#include "keras_sasa/kernels/block/lane_matrices.h"
#include "keras_sasa/kernels/block/weights.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {
namespace {

// A task is one row of blocks of one image.
class ForwardTasks : public Tasks {
 public:
  ForwardTasks(const BlockShape& shape, const BlockInputs& inputs,
               const BlockOutputs& outputs)
      : shape_(shape), inputs_(inputs), outputs_(outputs) {}

  int64_t count() const override { return shape_.rows(); }

  void Run(int64_t task) const override {
    LaneBlocks blocks(shape_);
    const int64_t all_places = blocks.all_places();
    const int64_t width = shape_.head_width;
    const int64_t channels = shape_.channels;
    const bool pooled = outputs_.scale != nullptr;
    float *pixels, *queries, *values, *weights, *factors, *sums, *largest;
    AllocateScratch(scratch_call_, {{&pixels, all_places * channels * kLanes},
                                    {&queries, all_places * channels * kLanes},
                                    {&values, all_places * width * kLanes},
                                    {&weights, kQueries * all_places * kLanes},
                                    {&factors, kQueries * kLanes},
                                    {&sums, kQueries * width * kLanes},
                                    {&largest, width * kLanes}});
    for (int64_t block = 0; block < shape_.block_columns(); block += kLanes) {
      blocks.MoveTo(inputs_.image, task / shape_.block_rows(),
                    task % shape_.block_rows(), block, pixels);
      for (int64_t head = 0; head < shape_.heads; ++head) {
        const BlockHead kernels(shape_, inputs_, head);
        kernels.ProjectQueries(pixels, blocks.places, queries);
        kernels.ProjectValues(pixels, blocks.places, values);
        for (int64_t channel = 0; pooled && channel < width; ++channel) {
          Store(largest + channel * kLanes, Broadcast(-INFINITY));
        }
        for (int64_t first = 0; first < blocks.places; first += kQueries) {
          const int64_t count = Min(kQueries, blocks.places - first);
          ComputeBlockWeights(blocks, pixels, channels, queries, first, count,
                              weights, factors);
          MultiplyLanes({weights, blocks.places * kLanes, kLanes},
                        {values, width * kLanes, kLanes}, count, width,
                        blocks.places, {sums, width * kLanes, kLanes});
          if (pooled) {
            Pool(blocks, first, count, head, factors, sums, largest);
            continue;
          }
          for (int64_t query = 0; query < count; ++query) {
            float* sum = sums + query * width * kLanes;
            const Vector factor = Load(factors + query * kLanes);
            for (int64_t channel = 0; channel < width; ++channel) {
              float* number = sum + channel * kLanes;
              Store(number, Load(number) * factor);
            }
            blocks.Scatter(first + query, sum, width,
                           outputs_.output + head * width, shape_.filters());
          }
        }
        if (!pooled) continue;
        float* output =
            outputs_.output +
            (task * shape_.block_columns() + block) * shape_.filters() +
            head * width;
        for (int lane = 0; lane < blocks.count; ++lane) {
          for (int64_t channel = 0; channel < width; ++channel) {
            output[lane * shape_.filters() + channel] =
                largest[channel * kLanes + lane];
          }
        }
      }
    }
  }

 private:
  // Normalizes the outputs of the pixels from `first` on, and keeps the
  // largest.
  void Pool(const LaneBlocks& blocks, int64_t first, int64_t count,
            int64_t head, const float* factors, const float* sums,
            float* largest) const {
    const int64_t width = shape_.head_width;
    for (int64_t channel = 0; channel < width; ++channel) {
      const Vector scale = Broadcast(outputs_.scale[head * width + channel]);
      const Vector offset = Broadcast(outputs_.offset[head * width + channel]);
      Vector most = Load(largest + channel * kLanes);
      Bits undefined = most != most;
      for (int64_t query = 0; query < count; ++query) {
        Vector number = Load(sums + (query * width + channel) * kLanes) *
                            Load(factors + query * kLanes) * scale +
                        offset;
        if (blocks.cut_off) {
          number = Select(blocks.place(first + query).mask, number, most);
        }
        most = Larger(most, number);
        undefined |= number != number;
      }
      Store(largest + channel * kLanes,
            Select(undefined, Broadcast(NAN), most));
    }
  }

  const BlockShape shape_;
  const BlockInputs inputs_;
  const BlockOutputs outputs_;
  const int64_t scratch_call_ = NewScratchCall();
};

}  // namespace

std::unique_ptr<Tasks> MakeBlockForward(const BlockShape& shape,
                                        const BlockInputs& inputs,
                                        const BlockOutputs& outputs) {
  return std::unique_ptr<Tasks>(new ForwardTasks(shape, inputs, outputs));
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa
