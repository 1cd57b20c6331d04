// The gradient of attention within blocks.

#ifndef KERAS_SASA_KERNELS_BLOCK_BACKWARD_H_
#define KERAS_SASA_KERNELS_BLOCK_BACKWARD_H_

#include <memory>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/tasks.h"
#include "keras_sasa/kernels/block/attention.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

std::unique_ptr<Tasks> MakeBlockBackward(const BlockShape& shape,
                                         const BlockInputs& inputs,
                                         const float* output_gradient,
                                         const BlockGradients& gradients);

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BLOCK_BACKWARD_H_
