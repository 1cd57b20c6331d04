// The gradient of attention within windows.

#ifndef KERAS_SASA_KERNELS_WINDOW_BACKWARD_H_
#define KERAS_SASA_KERNELS_WINDOW_BACKWARD_H_

#include <memory>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/tasks.h"
#include "keras_sasa/kernels/window/attention.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

std::unique_ptr<Tasks> MakeWindowBackward(const WindowShape& shape,
                                          const WindowInputs& inputs,
                                          const WindowUpstream& upstream,
                                          const WindowGradients& gradients);

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_BACKWARD_H_
