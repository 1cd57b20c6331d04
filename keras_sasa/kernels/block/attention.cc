#include "keras_sasa/kernels/block/attention.h"

#include "keras_sasa/kernels/block/backward.h"
#include "keras_sasa/kernels/block/forward.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

extern const BlockAttention block_attention;
const BlockAttention block_attention = {MakeBlockForward, MakeBlockBackward};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa
