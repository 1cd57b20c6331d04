// Vectors of lanes and memory for them, for the files of mathematics.
//
// These are compiled once for each instruction set, each under a name of its
// own, KERAS_SASA_LEVEL. They use no function of the standard library that the
// linker could share between them.

#ifndef KERAS_SASA_KERNELS_VECTORS_H_
#define KERAS_SASA_KERNELS_VECTORS_H_

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#ifndef KERAS_SASA_LEVEL
#define KERAS_SASA_LEVEL baseline
#endif

#define KERAS_SASA_STRING(x) #x
#define KERAS_SASA_NAME(x) KERAS_SASA_STRING(x)

#define KERAS_SASA_UNROLL _Pragma("GCC unroll 24")
#define KERAS_SASA_NOINLINE __attribute__((noinline))

// GCC has it from version 9 on, and says so from version 10 on.
#if defined(__has_builtin)
#if __has_builtin(__builtin_convertvector)
#define KERAS_SASA_CONVERTS
#endif
#endif

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {
namespace {

#if defined(__AVX512VL__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// Sides of the squares in which channels become lanes and back: heads may have
// as few as 8 channels.
constexpr int kSide = kLanes < 8 ? kLanes : 8;

typedef float Vector __attribute__((vector_size(kLanes * 4)));
typedef float Unaligned
    __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef int32_t Bits __attribute__((vector_size(kLanes * 4)));
typedef float Side __attribute__((vector_size(kSide * 4)));
typedef float UnalignedSide
    __attribute__((vector_size(kSide * 4), aligned(4), may_alias));

// Logit of a key that takes no part, as in the other implementations.
constexpr float kMaskedLogit = -1e30f;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t floor_div(int64_t a, int64_t b) {
  return a >= 0 ? a / b : -((b - 1 - a) / b);
}
inline int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

inline Vector load(const float* from) {
  return *reinterpret_cast<const Unaligned*>(from);
}
inline void store(float* to, Vector value) {
  *reinterpret_cast<Unaligned*>(to) = value;
}
inline Side load_side(const float* from) {
  return *reinterpret_cast<const UnalignedSide*>(from);
}
inline void store_side(float* to, Side value) {
  *reinterpret_cast<UnalignedSide*>(to) = value;
}
inline Vector all(float value) { return value - Vector{}; }
inline Vector select(Bits condition, Vector yes, Vector no) {
  return condition ? yes : no;
}
// The larger of both; `b` if there is a NaN.
inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }
inline Vector zero_unless(Bits condition, Vector value) {
  return reinterpret_cast<Vector>(reinterpret_cast<Bits>(value) & condition);
}

// exp2 of numbers up to 127, exactly 0 from -126.5 down. NaN stays NaN.
// `lowest` is kLowestExponent; a variable, or else GCC makes two instructions
// of the maximum.
const volatile float kLowestExponent = -127.0f;
inline Vector exp2(Vector x, Vector lowest) {
  // Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits; 127
  // more make it the exponent of a float.
  constexpr float kRound = 12582912.0f + 127.0f;
  x = larger(lowest, x);
  const Vector rounded = x + kRound;
  const Vector fraction = x - (rounded - kRound);
  // Minimax polynomial of 2^fraction, relative error 1e-7.
  Vector power = all(0.00132647273f);
  power = power * fraction + 0.00967151299f;
  power = power * fraction + 0.0555073359f;
  power = power * fraction + 0.240222424f;
  power = power * fraction + 0.693147004f;
  power = power * fraction + 1.0f;
  const Bits exponent = reinterpret_cast<Bits>(rounded) << 23;
  return power * reinterpret_cast<Vector>(exponent);
}

// Exact for integers below 2^22.
inline Vector to_float(Bits x) {
#if defined(KERAS_SASA_CONVERTS)
  return __builtin_convertvector(x, Vector);
#else
  // Added to 1.5 * 2^23, the number is in the low bits of a float.
  constexpr float kRound = 12582912.0f;
  return reinterpret_cast<Vector>(x + reinterpret_cast<Bits>(all(kRound))) -
         kRound;
#endif
}

// log2 of normal numbers; NaN stays NaN.
inline Vector log2(Vector x) {
  // The mantissa, from sqrt(1/2) to sqrt(2), and the exponent.
  constexpr int32_t kSqrtHalf = 0x3f3504f3;
  const Bits bits = reinterpret_cast<Bits>(x);
  const Bits exponent = (bits - kSqrtHalf) >> 23;
  const Vector mantissa = reinterpret_cast<Vector>(bits - (exponent << 23));
  // log(m) = 2 artanh((m - 1) / (m + 1)), a series of odd powers.
  const Vector t = (mantissa - 1.0f) / (mantissa + 1.0f);
  const Vector square = t * t;
  Vector series = all(1.0f / 9.0f);
  series = series * square + 1.0f / 7.0f;
  series = series * square + 1.0f / 5.0f;
  series = series * square + 1.0f / 3.0f;
  series = series * square + 1.0f;
  return to_float(exponent) + (2.0f * kLog2E) * t * series +
         0.0f * x;
}

// An array of numbers, aligned to cache lines.
template <typename Number>
class Array {
 public:
  Array() = default;
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { std::free(data_); }

  // Makes room for `size` numbers; what was there is lost. Never shrinks.
  Number* reserve(int64_t size) {
    if (size > size_) {
      std::free(data_);
      size_ = 0;
      const int64_t bytes = round_up(size * sizeof(Number), 64);
      data_ = static_cast<Number*>(std::aligned_alloc(64, bytes));
      if (data_ == nullptr) throw std::bad_alloc();
      size_ = size;
    }
    return data_;
  }

  Number* zeros(int64_t size) {
    reserve(size);
    std::memset(data_, 0, size * sizeof(Number));
    return data_;
  }

  const Number& operator[](int64_t index) const { return data_[index]; }
  Number* data() const { return data_; }

 private:
  Number* data_ = nullptr;
  int64_t size_ = 0;
};

// Selects numbers of both sides: those of `b` are counted after those of `a`.
template <int... order>
inline Side shuffle(Side a, Side b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, order...);
#else
  // The same instructions; GCC has Clang's function from version 12 on only.
  typedef int32_t Order __attribute__((vector_size(kSide * 4)));
  return __builtin_shuffle(a, b, Order{order...});
#endif
}

// Transposes a square in registers.
#if defined(__AVX__)
inline void transpose(Side (&m)[8]) {
  Side pairs[8], quads[8];
  KERAS_SASA_UNROLL
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = shuffle<0, 8, 1, 9, 4, 12, 5, 13>(m[i], m[i + 1]);
    pairs[i + 1] = shuffle<2, 10, 3, 11, 6, 14, 7, 15>(m[i], m[i + 1]);
  }
  KERAS_SASA_UNROLL
  for (int i = 0; i < 8; i += 4) {
    KERAS_SASA_UNROLL
    for (int j = 0; j < 2; ++j) {
      const Side a = pairs[i + j], b = pairs[i + j + 2];
      quads[i + 2 * j] = shuffle<0, 1, 8, 9, 4, 5, 12, 13>(a, b);
      quads[i + 2 * j + 1] = shuffle<2, 3, 10, 11, 6, 7, 14, 15>(a, b);
    }
  }
  KERAS_SASA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const Side a = quads[i], b = quads[i + 4];
    m[i] = shuffle<0, 1, 2, 3, 8, 9, 10, 11>(a, b);
    m[i + 4] = shuffle<4, 5, 6, 7, 12, 13, 14, 15>(a, b);
  }
}
#else
inline void transpose(Side (&m)[4]) {
  const Side a = shuffle<0, 4, 1, 5>(m[0], m[1]);
  const Side b = shuffle<2, 6, 3, 7>(m[0], m[1]);
  const Side c = shuffle<0, 4, 1, 5>(m[2], m[3]);
  const Side d = shuffle<2, 6, 3, 7>(m[2], m[3]);
  m[0] = shuffle<0, 1, 4, 5>(a, c);
  m[1] = shuffle<2, 3, 6, 7>(a, c);
  m[2] = shuffle<0, 1, 4, 5>(b, d);
  m[3] = shuffle<2, 3, 6, 7>(b, d);
}
#endif

}  // namespace
}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_VECTORS_H_
