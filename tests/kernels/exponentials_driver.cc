// Compares Exp2 with the standard library's. A part of kernel_driver.cc.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/exponentials.h"
#include "keras_sasa/kernels/base/vectors.h"

namespace {

using Numbers = std::vector<float>;
using namespace keras_sasa::KERAS_SASA_LEVEL;

Numbers Exp2All(const Numbers& input) {
  Numbers output(input.size());
  for (size_t i = 0; i < input.size(); i += kLanes) {
    const size_t size =
        std::min<size_t>(kLanes, input.size() - i) * sizeof(float);
    Vector numbers{};
    std::memcpy(&numbers, &input[i], size);
    numbers = Exp2(numbers, Broadcast(kLowestExponent));
    std::memcpy(&output[i], &numbers, size);
  }
  return output;
}

}  // namespace

// Returns the number of failures.
int CheckExponentials() {
  // Every 97th float or so from -160 to 127.
  Numbers input;
  for (float x = 1e-30f; x < 160; x = std::nextafterf(x * 1.00001f, 200)) {
    input.push_back(-x);
    if (x <= 127) input.push_back(x);
  }
  const Numbers output = Exp2All(input);
  for (size_t i = 0; i < input.size(); ++i) {
    const double expected = std::exp2(static_cast<double>(input[i]));
    const double error = std::fabs(output[i] - expected);
    if (!(error <= 2.5e-7 * expected || error < 1.2e-38)) {
      std::printf("exp2(%g) is %g, not %g\n", input[i], output[i], expected);
      return 1;
    }
  }
  const Numbers special =
      Exp2All({0.0f, -0.0f, -1e30f, -INFINITY, NAN, -127, -126.5f});
  if (special[0] != 1 || special[1] != 1 || special[2] != 0 ||
      special[3] != 0 || !std::isnan(special[4]) || special[5] != 0) {
    std::printf("exp2 of a special number is wrong\n");
    return 1;
  }
  return 0;
}
