// Numbers of maps that are stored as bfloat16: the upper half of a float. All
// computations are in float.

#ifndef KERAS_SASA_KERNELS_BASE_BFLOAT16_H_
#define KERAS_SASA_KERNELS_BASE_BFLOAT16_H_

#include <cstdint>
#include <cstring>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/squares.h"
#include "keras_sasa/kernels/base/vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

struct Bfloat16 {
  uint16_t bits;
};

typedef uint32_t VectorBits __attribute__((vector_size(kLanes * 4)));
typedef uint16_t VectorHalves
    __attribute__((vector_size(kLanes * 2), aligned(2), may_alias));
typedef uint32_t SideBits __attribute__((vector_size(kSide * 4)));
typedef uint16_t SideHalves
    __attribute__((vector_size(kSide * 2), aligned(2), may_alias));

// The nearest bfloat16, of two the even one, in the upper half. The instruction
// of AVX-512 would replace the smallest numbers by 0.
template <typename Bits>
inline Bits RoundToBfloat16(Bits bits) {
  return bits + (bits >> 16 & 1) + 0x7fff;
}
// NaN has to keep a bit in the upper half, and rounding could carry.
constexpr uint32_t kQuietNan = 0x400000;

inline Vector Load(const Bfloat16* from) {
  const VectorHalves halves = *reinterpret_cast<const VectorHalves*>(from);
  return reinterpret_cast<Vector>(__builtin_convertvector(halves, VectorBits)
                                  << 16);
}
inline Side LoadSide(const Bfloat16* from) {
  const SideHalves halves = *reinterpret_cast<const SideHalves*>(from);
  return reinterpret_cast<Side>(__builtin_convertvector(halves, SideBits)
                                << 16);
}
inline void StoreSide(Bfloat16* to, Side value) {
  const SideBits bits = reinterpret_cast<SideBits>(value);
  const SideBits rounded =
      value == value ? RoundToBfloat16(bits) : bits | kQuietNan;
  *reinterpret_cast<SideHalves*>(to) =
      __builtin_convertvector(rounded >> 16, SideHalves);
}

// One number, of either type.
inline float LoadNumber(const float* from) { return *from; }
inline void StoreNumber(float* to, float value) { *to = value; }
inline float LoadNumber(const Bfloat16* from) {
  const uint32_t bits = static_cast<uint32_t>(from->bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline void StoreNumber(Bfloat16* to, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits = value == value ? RoundToBfloat16(bits) : bits | kQuietNan;
  to->bits = static_cast<uint16_t>(bits >> 16);
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BASE_BFLOAT16_H_
