// Scratch memory: every thread keeps one piece of memory from call to call, and
// a task divides it into the arrays it needs.

#ifndef KERAS_SASA_KERNELS_BASE_SCRATCH_H_
#define KERAS_SASA_KERNELS_BASE_SCRATCH_H_

#include <cstdint>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/integers.h"

namespace keras_sasa {

// Returns a number that no other call has.
int64_t NewScratchCall();

// Returns `size` floats of this thread's memory. The first `cleared` of them
// are zero when the thread starts with a call, or when `cleared` changes;
// otherwise they hold what the call's previous task left there.
float* ReserveScratch(int64_t call, int64_t size, int64_t cleared);

namespace KERAS_SASA_LEVEL {

// An array of `size` floats, which `*data` will point to.
struct ScratchArray {
  float** data;
  int64_t size;
};

template <int count>
int64_t ScratchSize(const ScratchArray (&arrays)[count]) {
  int64_t size = 0;
  for (const ScratchArray& array : arrays) {
    size += RoundUp(array.size, kCacheLineFloats);
  }
  return size;
}

// Places the arrays one after the other; returns the end of the last one.
template <int count>
float* PlaceScratch(const ScratchArray (&arrays)[count], float* memory) {
  for (const ScratchArray& array : arrays) {
    *array.data = memory;
    memory += RoundUp(array.size, kCacheLineFloats);
  }
  return memory;
}

// Allocates the arrays of a task. `cleared` start as zeros, see
// `ReserveScratch`; the others hold arbitrary numbers.
template <int cleared_count, int count>
void AllocateScratch(int64_t call, const ScratchArray (&cleared)[cleared_count],
                     const ScratchArray (&others)[count]) {
  const int64_t size = ScratchSize(cleared);
  float* memory = ReserveScratch(call, size + ScratchSize(others), size);
  PlaceScratch(others, PlaceScratch(cleared, memory));
}
template <int count>
void AllocateScratch(int64_t call, const ScratchArray (&arrays)[count]) {
  PlaceScratch(arrays, ReserveScratch(call, ScratchSize(arrays), 0));
}

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BASE_SCRATCH_H_
