#include "keras_sasa/kernels/levels/best_level.h"

namespace keras_sasa {

// setup.py compiles the mathematics once for each level, and defines which
// levels the compiler supports.
namespace baseline {
extern const WindowAttention window_attention;
extern const BlockAttention block_attention;
extern const RowFunctions row_functions;
}  // namespace baseline
#if defined(KERAS_SASA_HAS_X86_64_V3)
namespace x86_64_v3 {
extern const WindowAttention window_attention;
extern const BlockAttention block_attention;
extern const RowFunctions row_functions;
}  // namespace x86_64_v3
#endif
#if defined(KERAS_SASA_HAS_X86_64_V4)
namespace x86_64_v4 {
extern const WindowAttention window_attention;
extern const BlockAttention block_attention;
extern const RowFunctions row_functions;
}  // namespace x86_64_v4
#endif

namespace {

#if defined(KERAS_SASA_HAS_X86_64_V3) || defined(KERAS_SASA_HAS_X86_64_V4)
bool RunsV3() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
}
#endif
#if defined(KERAS_SASA_HAS_X86_64_V4)
bool RunsV4() {
  return RunsV3() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
#endif

Level FindBestLevel() {
#if defined(KERAS_SASA_HAS_X86_64_V4)
  if (RunsV4()) {
    return {&x86_64_v4::window_attention, &x86_64_v4::block_attention,
            &x86_64_v4::row_functions};
  }
#endif
#if defined(KERAS_SASA_HAS_X86_64_V3)
  if (RunsV3()) {
    return {&x86_64_v3::window_attention, &x86_64_v3::block_attention,
            &x86_64_v3::row_functions};
  }
#endif
  return {&baseline::window_attention, &baseline::block_attention,
          &baseline::row_functions};
}

}  // namespace

const Level& BestLevel() {
  static const Level level = FindBestLevel();
  return level;
}

}  // namespace keras_sasa
