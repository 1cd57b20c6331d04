#include "keras_sasa/kernels/window/attention.h"

#include "keras_sasa/kernels/window/backward.h"
#include "keras_sasa/kernels/window/forward.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

extern const WindowAttention window_attention;
const WindowAttention window_attention = {MakeWindowForward,
                                          MakeWindowBackward};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa
