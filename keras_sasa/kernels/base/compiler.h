// What the compiler is told beyond the language.

#ifndef KERAS_SASA_KERNELS_BASE_COMPILER_H_
#define KERAS_SASA_KERNELS_BASE_COMPILER_H_

// The mathematics is compiled once for each instruction set (level), each time
// in a namespace of its own. It calls no function of the standard library that
// the linker could share between levels: it might keep the copy that this
// processor cannot run.
#ifndef KERAS_SASA_LEVEL
#define KERAS_SASA_LEVEL baseline
#endif

#define KERAS_SASA_UNROLL _Pragma("GCC unroll 24")
#define KERAS_SASA_NOINLINE __attribute__((noinline))
#define KERAS_SASA_ALWAYS_INLINE inline __attribute__((always_inline))

#endif  // KERAS_SASA_KERNELS_BASE_COMPILER_H_
