// Access to maps by the type of their numbers.

#ifndef KERAS_SASA_KERNELS_WINDOW_TYPED_MAPS_H_
#define KERAS_SASA_KERNELS_WINDOW_TYPED_MAPS_H_

#include "keras_sasa/kernels/base/bfloat16.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/element_type.h"
#include "keras_sasa/kernels/window/attention.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Calls `function` with the numbers of a map, as a pointer to their type.
template <typename Function>
inline auto WithNumbers(const Map<const void>& map, const Function& function) {
  return map.type == ElementType::kBfloat16
             ? function(static_cast<const Bfloat16*>(map.data))
             : function(static_cast<const float*>(map.data));
}
template <typename Function>
inline auto WithNumbers(const Map<void>& map, const Function& function) {
  return map.type == ElementType::kBfloat16
             ? function(static_cast<Bfloat16*>(map.data))
             : function(static_cast<float*>(map.data));
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_TYPED_MAPS_H_
