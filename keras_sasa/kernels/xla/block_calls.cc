// The calls within blocks.

#include <cstdint>

#include "keras_sasa/kernels/block/attention.h"
#include "keras_sasa/kernels/levels/best_level.h"
#include "keras_sasa/kernels/xla/buffers.h"
#include "keras_sasa/kernels/xla/handlers.h"
#include "keras_sasa/kernels/xla/run_tasks.h"
#include "xla/ffi/api/ffi.h"

namespace keras_sasa {
namespace {

// The operands that all calls have, checked to fit together.
class BlockArguments {
 public:
  BlockArguments(const ffi::RemainingArgs& operands,
                 const ffi::RemainingRets& results)
      : buffers(operands, results) {}

  ffi::Error Read(int64_t num_heads, int64_t block_size) {
    KERAS_SASA_RETURN_IF_ERROR(buffers.CheckRank(0, 4, "image"));
    KERAS_SASA_RETURN_IF_ERROR(buffers.CheckRank(2, 3, "value_kernels"));
    const Dimensions image = buffers.OperandShape(0);
    const int64_t channels = image[3];
    const int64_t filters = buffers.OperandShape(2)[2];
    if (channels == 0) return InvalidCall("the image has no channels");
    if (num_heads < 1 || filters < 1 || filters % num_heads != 0) {
      return InvalidCall(
          "`filters` must be a positive multiple of `num_heads`");
    }
    if (block_size < 1 || block_size > int64_t{1} << 15) {
      return InvalidCall("`block_size` must be from 1 to 32768");
    }
    shape = {image[0],   image[1],  image[2],           channels,
             block_size, num_heads, filters / num_heads};
    KERAS_SASA_RETURN_IF_ERROR(
        buffers.ReadOperand(image, "image", &inputs.image));
    KERAS_SASA_RETURN_IF_ERROR(
        buffers.ReadOperand({num_heads, channels, channels}, "logit_kernels",
                            &inputs.logit_kernels));
    return buffers.ReadOperand({block_size * block_size, channels, filters},
                               "value_kernels", &inputs.value_kernels);
  }

  Dimensions map_shape() const {
    return {shape.batch, shape.height, shape.width, shape.filters()};
  }
  Dimensions pooled_shape() const {
    return {shape.batch, shape.block_rows(), shape.block_columns(),
            shape.filters()};
  }

  Buffers buffers;
  BlockShape shape{};
  BlockInputs inputs{};
};

// The forward pass of a call whose arguments have been read.
ffi::Error Attend(ffi::ThreadPool& pool, const BlockArguments& arguments,
                  const Dimensions& output_shape, BlockOutputs outputs) {
  KERAS_SASA_RETURN_IF_ERROR(
      arguments.buffers.GetResult(0, output_shape, "output", &outputs.output));
  return RunTasks(pool, [&] {
    return BestLevel().block->forward(arguments.shape, arguments.inputs,
                                      outputs);
  });
}

ffi::Error Forward(ffi::ThreadPool pool, ffi::RemainingArgs operands,
                   ffi::RemainingRets results, int64_t num_heads,
                   int64_t block_size) {
  BlockArguments arguments(operands, results);
  KERAS_SASA_RETURN_IF_ERROR(arguments.Read(num_heads, block_size));
  return Attend(pool, arguments, arguments.map_shape(), {});
}

ffi::Error Pooled(ffi::ThreadPool pool, ffi::RemainingArgs operands,
                  ffi::RemainingRets results, int64_t num_heads,
                  int64_t block_size) {
  BlockArguments arguments(operands, results);
  KERAS_SASA_RETURN_IF_ERROR(arguments.Read(num_heads, block_size));
  BlockOutputs outputs{};
  const Dimensions filters = {arguments.shape.filters()};
  KERAS_SASA_RETURN_IF_ERROR(
      arguments.buffers.ReadOperand(filters, "scale", &outputs.scale));
  KERAS_SASA_RETURN_IF_ERROR(
      arguments.buffers.ReadOperand(filters, "offset", &outputs.offset));
  return Attend(pool, arguments, arguments.pooled_shape(), outputs);
}

ffi::Error Backward(ffi::ThreadPool pool, ffi::RemainingArgs operands,
                    ffi::RemainingRets results, int64_t num_heads,
                    int64_t block_size) {
  BlockArguments arguments(operands, results);
  Buffers& buffers = arguments.buffers;
  KERAS_SASA_RETURN_IF_ERROR(arguments.Read(num_heads, block_size));
  const float* output_gradient = nullptr;
  KERAS_SASA_RETURN_IF_ERROR(buffers.ReadOperand(
      arguments.map_shape(), "output_gradient", &output_gradient));
  BlockGradients gradients{};
  float** data[] = {&gradients.image, &gradients.logit_kernels,
                    &gradients.value_kernels};
  for (int i = 0; i < 3; ++i) {
    KERAS_SASA_RETURN_IF_ERROR(buffers.GetResult(
        i, buffers.OperandShape(i), "gradient of an operand", data[i]));
  }
  return RunTasks(pool, [&] {
    return BestLevel().block->backward(arguments.shape, arguments.inputs,
                                       output_gradient, gradients);
  });
}

auto Binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .RemainingArgs()
      .RemainingRets()
      .Attr<int64_t>("num_heads")
      .Attr<int64_t>("block_size");
}

}  // namespace
}  // namespace keras_sasa

XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_sasa_block_forward, keras_sasa::Forward,
                              keras_sasa::Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_sasa_block_pooled, keras_sasa::Pooled,
                              keras_sasa::Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_sasa_block_backward, keras_sasa::Backward,
                              keras_sasa::Binding());
