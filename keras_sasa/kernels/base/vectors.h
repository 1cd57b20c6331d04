// Vectors of lanes, as wide as the registers of the instruction set.

#ifndef KERAS_SASA_KERNELS_BASE_VECTORS_H_
#define KERAS_SASA_KERNELS_BASE_VECTORS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

#if defined(__AVX512VL__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vector __attribute__((vector_size(kLanes * 4)));
typedef float UnalignedVector
    __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
// A mask has all bits of a lane set, or none.
typedef int32_t Bits __attribute__((vector_size(kLanes * 4)));

inline Vector Load(const float* from) {
  return *reinterpret_cast<const UnalignedVector*>(from);
}
inline void Store(float* to, Vector value) {
  *reinterpret_cast<UnalignedVector*>(to) = value;
}
// The same vector, in a register.
inline Vector InRegister(Vector value) {
  // Empty, but its operand must be there.
#if defined(__AVX512F__)
  asm("" : "+v"(value));
#elif defined(__SSE2__)
  asm("" : "+x"(value));
#elif defined(__aarch64__)
  asm("" : "+w"(value));
#endif
  return value;
}
// Loads a vector into a register, also where it is used several times at once.
// Compilers otherwise make the load a part of each of these instructions, and a
// product that loads its operand takes as long as the load.
inline Vector LoadRegister(const float* from) { return InRegister(Load(from)); }
inline Vector Broadcast(float value) { return value - Vector{}; }
inline Vector Select(Bits condition, Vector yes, Vector no) {
  return condition ? yes : no;
}
// The larger of both; `b` if either is NaN.
inline Vector Larger(Vector a, Vector b) { return a > b ? a : b; }
inline Vector ZeroUnless(Bits condition, Vector value) {
  return reinterpret_cast<Vector>(reinterpret_cast<Bits>(value) & condition);
}
#if defined(__AVX512F__)
// The lanes from `count` on of both, one after the other. GCC would take a
// slower instruction, and warns about its own function for this one.
template <int count>
inline Vector ShiftLanes(Vector a, Vector b) {
  Vector lanes;
  asm("valignd %3, %1, %2, %0" : "=v"(lanes) : "v"(a), "v"(b), "i"(count));
  return lanes;
}
#endif
// Adds the lanes up, from the first to the last.
inline float SumOfLanes(const float* lanes) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += lanes[i];
  return sum;
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BASE_VECTORS_H_
