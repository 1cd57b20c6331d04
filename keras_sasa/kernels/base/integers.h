// Integer arithmetic.

#ifndef KERAS_SASA_KERNELS_BASE_INTEGERS_H_
#define KERAS_SASA_KERNELS_BASE_INTEGERS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

inline int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t FloorDiv(int64_t a, int64_t b) {
  return a >= 0 ? a / b : -((b - 1 - a) / b);
}
inline int64_t CeilDiv(int64_t a, int64_t b) { return -FloorDiv(-a, b); }
inline int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BASE_INTEGERS_H_
