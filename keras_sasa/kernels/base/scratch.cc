#include "keras_sasa/kernels/base/scratch.h"

#include <cstring>

namespace keras_sasa {

int64_t NewScratchCall() {
  static int64_t calls = 0;
  return __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
}

float* ReserveScratch(int64_t call, int64_t size, int64_t cleared) {
  static thread_local KERAS_SASA_LEVEL::AlignedArray<float> memory;
  static thread_local int64_t last_call = 0, last_cleared = 0;
  float* data = memory.Reserve(size);
  // The rows of a dilated image do not divide evenly among the tasks of a call,
  // so that sizes may change within it.
  if (last_call != call || last_cleared != cleared) {
    std::memset(data, 0, cleared * sizeof(float));
    last_call = call;
    last_cleared = cleared;
  }
  return data;
}

}  // namespace keras_sasa
