// The calls within windows.

#include <cstdint>
#include <cstring>
#include <string_view>

#include "keras_sasa/kernels/levels/best_level.h"
#include "keras_sasa/kernels/window/attention.h"
#include "keras_sasa/kernels/xla/buffers.h"
#include "keras_sasa/kernels/xla/handlers.h"
#include "keras_sasa/kernels/xla/run_tasks.h"
#include "keras_sasa/kernels/xla/window_arguments.h"
#include "xla/ffi/api/ffi.h"

namespace keras_sasa {
namespace {

// The forward pass of a call whose arguments have been read.
ffi::Error Attend(ffi::ThreadPool& pool, const WindowArguments& arguments,
                  const WindowEpilogue& epilogue = {}) {
  WindowOutputs outputs{};
  outputs.epilogue = epilogue;
  Dimensions output_shape = arguments.output_shape();
  if (epilogue.average) {
    for (int axis : {1, 2}) output_shape[axis] = (output_shape[axis] + 1) / 2;
  }
  KERAS_SASA_RETURN_IF_ERROR(
      arguments.buffers.GetResult(0, output_shape, "output", &outputs.output));
  if (arguments.buffers.result_count() > 1) {
    KERAS_SASA_RETURN_IF_ERROR(arguments.buffers.GetResult(
        1, arguments.log_sum_exp_shape(), "log_sum_exp", &outputs.log_sum_exp));
  }
  if (arguments.empty()) return ffi::Error::Success();
  return RunTasks(pool, [&] {
    return BestLevel().window->forward(arguments.shape, arguments.inputs,
                                       outputs);
  });
}

ffi::Error Forward(ffi::ThreadPool pool, ffi::RemainingArgs operands,
                   ffi::RemainingRets results, int64_t sources,
                   ffi::Span<const int64_t> places, int64_t filters,
                   int64_t num_heads, ffi::Span<const int64_t> kernel_size,
                   ffi::Span<const int64_t> strides,
                   ffi::Span<const int64_t> dilation_rate,
                   std::string_view padding, std::string_view border,
                   int64_t relative, int64_t position_bias, float scale) {
  WindowArguments arguments(
      operands, results,
      {sources, filters, num_heads, relative, position_bias, places,
       kernel_size, strides, dilation_rate, padding, border, scale});
  KERAS_SASA_RETURN_IF_ERROR(arguments.ReadSources());
  return Attend(pool, arguments);
}

ffi::Error Projected(ffi::ThreadPool pool, ffi::RemainingArgs operands,
                     ffi::RemainingRets results, int64_t filters,
                     int64_t num_heads, ffi::Span<const int64_t> kernel_size,
                     ffi::Span<const int64_t> strides,
                     ffi::Span<const int64_t> dilation_rate,
                     std::string_view border, int64_t content,
                     int64_t query_bias, int64_t relative,
                     int64_t position_bias, float scale, int64_t epilogue,
                     int64_t relu, int64_t pool_size) {
  WindowAttributes attributes{};
  attributes.filters = filters;
  attributes.num_heads = num_heads;
  attributes.relative = relative;
  attributes.position_bias = position_bias;
  attributes.scale = scale;
  attributes.kernel_size = kernel_size;
  attributes.strides = strides;
  attributes.dilation_rate = dilation_rate;
  attributes.padding = "same";
  attributes.border = border;
  WindowArguments arguments(operands, results, attributes);
  KERAS_SASA_RETURN_IF_ERROR(
      arguments.ReadProjection(content != 0, query_bias != 0));
  WindowEpilogue steps{};
  if (epilogue) {
    if (pool_size != 1 && pool_size != 2) {
      return InvalidCall("`pool_size` must be 1 or 2");
    }
    if (pool_size == 2 && dilation_rate[0] > 1) {
      return InvalidCall(
          "`pool_size` and a `dilation_rate` of rows cannot be combined");
    }
    steps.relu = relu;
    steps.average = pool_size == 2;
    const Dimensions filters_shape = {filters};
    KERAS_SASA_RETURN_IF_ERROR(
        arguments.buffers.ReadOperand(filters_shape, "scale", &steps.scale));
    KERAS_SASA_RETURN_IF_ERROR(
        arguments.buffers.ReadOperand(filters_shape, "offset", &steps.offset));
  } else if (relu || pool_size != 1) {
    return InvalidCall("`relu` and `pool_size` need `epilogue`");
  }
  return Attend(pool, arguments, steps);
}

ffi::Error Backward(ffi::ThreadPool pool, ffi::RemainingArgs operands,
                    ffi::RemainingRets results, int64_t sources,
                    ffi::Span<const int64_t> places, int64_t filters,
                    int64_t num_heads, ffi::Span<const int64_t> kernel_size,
                    ffi::Span<const int64_t> strides,
                    ffi::Span<const int64_t> dilation_rate,
                    std::string_view padding, std::string_view border,
                    int64_t relative, int64_t position_bias, float scale) {
  WindowArguments arguments(
      operands, results,
      {sources, filters, num_heads, relative, position_bias, places,
       kernel_size, strides, dilation_rate, padding, border, scale});
  Buffers& buffers = arguments.buffers;
  KERAS_SASA_RETURN_IF_ERROR(arguments.ReadSources());
  WindowUpstream upstream{};
  KERAS_SASA_RETURN_IF_ERROR(buffers.ReadOperand(
      arguments.output_shape(), "output_gradient", &upstream.output_gradient));
  KERAS_SASA_RETURN_IF_ERROR(buffers.ReadOperand(
      arguments.log_sum_exp_shape(), "log_sum_exp", &upstream.log_sum_exp));

  WindowGradients gradients{};
  Map<void>* maps[] = {&gradients.query, &gradients.key, &gradients.value};
  for (int64_t i = 0; i < sources; ++i) {
    const Dimensions shape = buffers.OperandShape(i);
    Map<void> source;
    KERAS_SASA_RETURN_IF_ERROR(
        buffers.GetResult(i, shape, "gradient of a source", &source));
    int64_t channels = 0;
    for (int map = 0; map < 3; ++map) {
      if (places[2 * map] != i) continue;
      *maps[map] = FromChannel(source, places[2 * map + 1]);
      channels += filters;
    }
    // Channels that are in no map, and maps that no query sees.
    const int64_t size = shape[0] * shape[1] * shape[2] * shape[3];
    if (size > 0 && (channels != shape[3] || arguments.empty())) {
      std::memset(source.data, 0, size * ElementSize(source.type));
    }
  }
  if (relative) {
    float** embeddings[] = {&gradients.row_embedding,
                            &gradients.column_embedding};
    for (int i = 0; i < 2; ++i) {
      const Dimensions shape = buffers.OperandShape(sources + i);
      KERAS_SASA_RETURN_IF_ERROR(buffers.GetResult(
          sources + i, shape, "gradient of an embedding", embeddings[i]));
      const int64_t size = shape[0] * shape[1] * shape[2];
      if (size > 0) std::memset(*embeddings[i], 0, size * sizeof(float));
    }
  }
  if (position_bias) {
    const Dimensions shape = buffers.OperandShape(sources);
    KERAS_SASA_RETURN_IF_ERROR(buffers.GetResult(
        sources, shape, "gradient of position_bias", &gradients.position_bias));
    const int64_t size = shape[0] * shape[1] * shape[2];
    std::memset(gradients.position_bias, 0, size * sizeof(float));
  }
  if (arguments.empty()) return ffi::Error::Success();
  return RunTasks(pool, [&] {
    return BestLevel().window->backward(arguments.shape, arguments.inputs,
                                        upstream, gradients);
  });
}

auto SourcesBinding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .RemainingArgs()
      .RemainingRets()
      .Attr<int64_t>("sources")
      .Attr<ffi::Span<const int64_t>>("places")
      .Attr<int64_t>("filters")
      .Attr<int64_t>("num_heads")
      .Attr<ffi::Span<const int64_t>>("kernel_size")
      .Attr<ffi::Span<const int64_t>>("strides")
      .Attr<ffi::Span<const int64_t>>("dilation_rate")
      .Attr<std::string_view>("padding")
      .Attr<std::string_view>("border")
      .Attr<int64_t>("relative")
      .Attr<int64_t>("position_bias")
      .Attr<float>("scale");
}

auto ProjectedBinding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .RemainingArgs()
      .RemainingRets()
      .Attr<int64_t>("filters")
      .Attr<int64_t>("num_heads")
      .Attr<ffi::Span<const int64_t>>("kernel_size")
      .Attr<ffi::Span<const int64_t>>("strides")
      .Attr<ffi::Span<const int64_t>>("dilation_rate")
      .Attr<std::string_view>("border")
      .Attr<int64_t>("content")
      .Attr<int64_t>("query_bias")
      .Attr<int64_t>("relative")
      .Attr<int64_t>("position_bias")
      .Attr<float>("scale")
      .Attr<int64_t>("epilogue")
      .Attr<int64_t>("relu")
      .Attr<int64_t>("pool_size");
}

}  // namespace
}  // namespace keras_sasa

XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_sasa_forward, keras_sasa::Forward,
                              keras_sasa::SourcesBinding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_sasa_backward, keras_sasa::Backward,
                              keras_sasa::SourcesBinding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_sasa_projected, keras_sasa::Projected,
                              keras_sasa::ProjectedBinding());
