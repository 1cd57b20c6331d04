// The calls on the rows of a matrix.

#include <cstdint>

#include "keras_sasa/kernels/levels/best_level.h"
#include "keras_sasa/kernels/rows/normalization.h"
#include "keras_sasa/kernels/xla/buffers.h"
#include "keras_sasa/kernels/xla/handlers.h"
#include "keras_sasa/kernels/xla/run_tasks.h"
#include "xla/ffi/api/ffi.h"

namespace keras_sasa {
namespace {

ffi::Error Normalize(ffi::ThreadPool pool, ffi::RemainingArgs operands,
                     ffi::RemainingRets results, float epsilon) {
  Buffers buffers(operands, results);
  KERAS_SASA_RETURN_IF_ERROR(buffers.CheckRank(0, 4, "image"));
  const Dimensions image = buffers.OperandShape(0);
  RowNormalization call{};
  call.rows = image[0] * image[1] * image[2];
  call.channels = image[3];
  call.epsilon = epsilon;
  KERAS_SASA_RETURN_IF_ERROR(buffers.ReadOperand(image, "image", &call.inputs));
  KERAS_SASA_RETURN_IF_ERROR(
      buffers.ReadOperand({call.channels}, "scale", &call.scale));
  KERAS_SASA_RETURN_IF_ERROR(
      buffers.ReadOperand({call.channels}, "offset", &call.offset));
  KERAS_SASA_RETURN_IF_ERROR(
      buffers.GetResult(0, image, "output", &call.output));
  return RunTasks(pool, [&] { return BestLevel().rows->normalize(call); });
}

}  // namespace
}  // namespace keras_sasa

XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_sasa_normalize, keras_sasa::Normalize,
                              keras_sasa::ffi::Ffi::Bind()
                                  .Ctx<keras_sasa::ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<float>("epsilon"));
