// The types of the numbers in maps.

#ifndef KERAS_SASA_KERNELS_BASE_ELEMENT_TYPE_H_
#define KERAS_SASA_KERNELS_BASE_ELEMENT_TYPE_H_

#include <cstdint>

namespace keras_sasa {

enum class ElementType { kFloat32, kBfloat16 };

inline int64_t ElementSize(ElementType type) {
  return type == ElementType::kFloat32 ? 4 : 2;
}

}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BASE_ELEMENT_TYPE_H_
