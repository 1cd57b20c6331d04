// Memory that is aligned to cache lines.

#ifndef KERAS_SASA_KERNELS_BASE_ALIGNED_ARRAY_H_
#define KERAS_SASA_KERNELS_BASE_ALIGNED_ARRAY_H_

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/integers.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

constexpr int64_t kCacheLineBytes = 64;
constexpr int64_t kCacheLineFloats = kCacheLineBytes / sizeof(float);

template <typename Number>
class AlignedArray {
 public:
  AlignedArray() = default;
  AlignedArray(const AlignedArray&) = delete;
  AlignedArray& operator=(const AlignedArray&) = delete;
  ~AlignedArray() { std::free(data_); }

  // Makes room for `size` numbers and loses the ones that were there. Never
  // shrinks.
  Number* Reserve(int64_t size) {
    if (size > size_) {
      std::free(data_);
      size_ = 0;
      const int64_t bytes = RoundUp(size * sizeof(Number), kCacheLineBytes);
      data_ = static_cast<Number*>(std::aligned_alloc(kCacheLineBytes, bytes));
      if (data_ == nullptr) throw std::bad_alloc();
      size_ = size;
    }
    return data_;
  }

  Number* ReserveZeros(int64_t size) {
    Reserve(size);
    std::memset(data_, 0, size * sizeof(Number));
    return data_;
  }

  const Number& operator[](int64_t index) const { return data_[index]; }
  Number* data() const { return data_; }

 private:
  Number* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BASE_ALIGNED_ARRAY_H_
