// Powers and logarithms of vectors, in base 2: logits in base 2 save a product
// in every exponential.

#ifndef KERAS_SASA_KERNELS_BASE_EXPONENTIALS_H_
#define KERAS_SASA_KERNELS_BASE_EXPONENTIALS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/vectors.h"

// GCC has this builtin from version 9 on, and can be asked from version 10 on.
#if defined(__has_builtin)
#if __has_builtin(__builtin_convertvector)
#define KERAS_SASA_HAS_CONVERTVECTOR
#endif
#endif

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

// The `lowest` of Exp2. It is volatile because GCC needs two instructions for
// the maximum with a constant.
inline const volatile float kLowestExponent = -127.0f;

// 2^x for x up to 127; exactly 0 from -126.5 down. NaN stays NaN. `lowest` is
// kLowestExponent in every lane.
inline Vector Exp2(Vector x, Vector lowest) {
  // Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits; 127
  // more make it the exponent of a float.
  constexpr float kRound = 12582912.0f + 127.0f;
  x = Larger(lowest, x);
  const Vector rounded = x + kRound;
  const Vector fraction = x - (rounded - kRound);
  // Minimax polynomial of 2^fraction, relative error 1e-7.
  Vector power = Broadcast(0.00132647273f);
  power = power * fraction + 0.00967151299f;
  power = power * fraction + 0.0555073359f;
  power = power * fraction + 0.240222424f;
  power = power * fraction + 0.693147004f;
  power = power * fraction + 1.0f;
  const Bits exponent = reinterpret_cast<Bits>(rounded) << 23;
  return power * reinterpret_cast<Vector>(exponent);
}

// Exact for integers below 2^22.
inline Vector ToFloat(Bits x) {
#if defined(KERAS_SASA_HAS_CONVERTVECTOR)
  return __builtin_convertvector(x, Vector);
#else
  // Added to 1.5 * 2^23, the integer is in the low bits of a float.
  constexpr float kRound = 12582912.0f;
  return reinterpret_cast<Vector>(x +
                                  reinterpret_cast<Bits>(Broadcast(kRound))) -
         kRound;
#endif
}

// log2 of normal numbers; NaN stays NaN.
inline Vector Log2(Vector x) {
  // The mantissa, from sqrt(1/2) to sqrt(2), and the exponent.
  constexpr int32_t kSqrtHalf = 0x3f3504f3;
  const Bits bits = reinterpret_cast<Bits>(x);
  const Bits exponent = (bits - kSqrtHalf) >> 23;
  const Vector mantissa = reinterpret_cast<Vector>(bits - (exponent << 23));
  // log(m) = 2 artanh((m - 1) / (m + 1)), a series of odd powers.
  const Vector t = (mantissa - 1.0f) / (mantissa + 1.0f);
  const Vector square = t * t;
  Vector series = Broadcast(1.0f / 9.0f);
  series = series * square + 1.0f / 7.0f;
  series = series * square + 1.0f / 5.0f;
  series = series * square + 1.0f / 3.0f;
  series = series * square + 1.0f;
  return ToFloat(exponent) + (2.0f * kLog2E) * t * series + 0.0f * x;
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BASE_EXPONENTIALS_H_
