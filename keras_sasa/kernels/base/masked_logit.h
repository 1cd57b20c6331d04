// The logit of a key that is masked.

#ifndef KERAS_SASA_KERNELS_BASE_MASKED_LOGIT_H_
#define KERAS_SASA_KERNELS_BASE_MASKED_LOGIT_H_

#include "keras_sasa/kernels/base/compiler.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// Finite, as in the other implementations: where all keys are at -infinity,
// the masked ones count.
constexpr float kMaskedLogit = -1e30f;

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BASE_MASKED_LOGIT_H_
