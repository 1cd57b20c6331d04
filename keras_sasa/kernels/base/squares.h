// Squares of numbers that are transposed in registers: channels become lanes
// and back.

#ifndef KERAS_SASA_KERNELS_BASE_SQUARES_H_
#define KERAS_SASA_KERNELS_BASE_SQUARES_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// At most 8, because heads may be as narrow as that.
constexpr int kSide = kLanes < 8 ? kLanes : 8;

typedef float Side __attribute__((vector_size(kSide * 4)));
typedef float UnalignedSide
    __attribute__((vector_size(kSide * 4), aligned(4), may_alias));

inline Side LoadSide(const float* from) {
  return *reinterpret_cast<const UnalignedSide*>(from);
}
inline void StoreSide(float* to, Side value) {
  *reinterpret_cast<UnalignedSide*>(to) = value;
}

// Selects numbers of both sides; the numbers of `b` are counted after those of
// `a`.
template <int... order>
inline Side Shuffle(Side a, Side b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, order...);
#else
  // The same instructions; GCC has Clang's function only from version 12 on.
  typedef int32_t Order __attribute__((vector_size(kSide * 4)));
  return __builtin_shuffle(a, b, Order{order...});
#endif
}

#if defined(__AVX__)
inline void Transpose(Side (&m)[8]) {
  Side pairs[8], quads[8];
  KERAS_SASA_UNROLL
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = Shuffle<0, 8, 1, 9, 4, 12, 5, 13>(m[i], m[i + 1]);
    pairs[i + 1] = Shuffle<2, 10, 3, 11, 6, 14, 7, 15>(m[i], m[i + 1]);
  }
  KERAS_SASA_UNROLL
  for (int i = 0; i < 8; i += 4) {
    KERAS_SASA_UNROLL
    for (int j = 0; j < 2; ++j) {
      const Side a = pairs[i + j], b = pairs[i + j + 2];
      quads[i + 2 * j] = Shuffle<0, 1, 8, 9, 4, 5, 12, 13>(a, b);
      quads[i + 2 * j + 1] = Shuffle<2, 3, 10, 11, 6, 7, 14, 15>(a, b);
    }
  }
  KERAS_SASA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const Side a = quads[i], b = quads[i + 4];
    m[i] = Shuffle<0, 1, 2, 3, 8, 9, 10, 11>(a, b);
    m[i + 4] = Shuffle<4, 5, 6, 7, 12, 13, 14, 15>(a, b);
  }
}
#else
inline void Transpose(Side (&m)[4]) {
  const Side a = Shuffle<0, 4, 1, 5>(m[0], m[1]);
  const Side b = Shuffle<2, 6, 3, 7>(m[0], m[1]);
  const Side c = Shuffle<0, 4, 1, 5>(m[2], m[3]);
  const Side d = Shuffle<2, 6, 3, 7>(m[2], m[3]);
  m[0] = Shuffle<0, 1, 4, 5>(a, c);
  m[1] = Shuffle<2, 3, 6, 7>(a, c);
  m[2] = Shuffle<0, 1, 4, 5>(b, d);
  m[3] = Shuffle<2, 3, 6, 7>(b, d);
}
#endif

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BASE_SQUARES_H_
