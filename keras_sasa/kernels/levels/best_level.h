// The instruction sets (levels) that the mathematics was compiled for, and the
// best one that this processor can run.

#ifndef KERAS_SASA_KERNELS_LEVELS_BEST_LEVEL_H_
#define KERAS_SASA_KERNELS_LEVELS_BEST_LEVEL_H_

#include "keras_sasa/kernels/block/attention.h"
#include "keras_sasa/kernels/rows/normalization.h"
#include "keras_sasa/kernels/window/attention.h"

namespace keras_sasa {

struct Level {
  const WindowAttention* window;
  const BlockAttention* block;
  const RowFunctions* rows;
};

const Level& BestLevel();

}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_LEVELS_BEST_LEVEL_H_
