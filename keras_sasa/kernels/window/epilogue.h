// Scale, offset and ReLU of one channel or of several adjacent ones.

#ifndef KERAS_SASA_KERNELS_WINDOW_EPILOGUE_H_
#define KERAS_SASA_KERNELS_WINDOW_EPILOGUE_H_

#include <cstdint>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/squares.h"
#include "keras_sasa/kernels/window/attention.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

inline float LoadNumbers(const float* from, float) { return *from; }
inline Side LoadNumbers(const float* from, Side) { return LoadSide(from); }

// `Numbers` is a float or a `Side`.
template <typename Numbers>
class EpilogueSteps {
 public:
  // `channel`: the first channel, of all heads.
  EpilogueSteps(const WindowEpilogue& epilogue, int64_t channel)
      : scale_(LoadNumbers(epilogue.scale + channel, Numbers{})),
        offset_(LoadNumbers(epilogue.offset + channel, Numbers{})),
        relu_(epilogue.relu) {}

  Numbers Apply(Numbers numbers) const {
    numbers = numbers * scale_ + offset_;
    // NaN stays NaN.
    return relu_ ? (numbers < 0.0f ? Numbers{} : numbers) : numbers;
  }

 private:
  const Numbers scale_, offset_;
  const bool relu_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_WINDOW_EPILOGUE_H_
