// The forward pass of attention within blocks.

#ifndef KERAS_SASA_KERNELS_BLOCK_FORWARD_H_
#define KERAS_SASA_KERNELS_BLOCK_FORWARD_H_

#include <memory>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/tasks.h"
#include "keras_sasa/kernels/block/attention.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

std::unique_ptr<Tasks> MakeBlockForward(const BlockShape& shape,
                                        const BlockInputs& inputs,
                                        const BlockOutputs& outputs);

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BLOCK_FORWARD_H_
