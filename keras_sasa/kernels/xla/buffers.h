// Operands and results of a call of XLA, checked for their types and shapes.
//
// A call has them itself, or its only operand is a `TensorTable` that says
// where they are.

#ifndef KERAS_SASA_KERNELS_XLA_BUFFERS_H_
#define KERAS_SASA_KERNELS_XLA_BUFFERS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "xla/ffi/api/ffi.h"

#define KERAS_SASA_RETURN_IF_ERROR(expression)                     \
  do {                                                             \
    if (::xla::ffi::Error error = (expression); error.failure()) { \
      return error;                                                \
    }                                                              \
  } while (false)

namespace keras_sasa {

namespace ffi = xla::ffi;

// The error of a call whose operands, results or attributes are wrong.
ffi::Error InvalidCall(const std::string& message);

using Dimensions = std::vector<int64_t>;

// All operands and results are float32.
class Buffers {
 public:
  Buffers(const ffi::RemainingArgs& operands,
          const ffi::RemainingRets& results);

  // Checks that there is an operand `number` of that rank.
  ffi::Error CheckRank(int64_t number, size_t rank, const char* name) const;

  // Of operands whose rank was checked.
  Dimensions OperandShape(int64_t number) const;
  const float* OperandData(int64_t number) const;

  // Reads the next operand, of the shape `expected`. `Skip` passes over
  // operands that are read in another way.
  ffi::Error ReadOperand(const Dimensions& expected, const char* name,
                         const float** data);
  void Skip(int64_t count) { next_ += count; }

  // Result `number`, of the shape `expected`.
  ffi::Error GetResult(size_t number, const Dimensions& expected,
                       const char* name, float** data) const;
  size_t result_count() const { return results_.size(); }

 private:
  struct Buffer {
    float* data;
    Dimensions shape;
    bool is_float32;
  };

  static Buffer BufferOf(const ffi::AnyBuffer& buffer);
  // Whether there is an operand or a result `number` of float32.
  static bool Has(const std::vector<Buffer>& buffers, int64_t number);

  std::vector<Buffer> operands_, results_;
  int64_t next_ = 0;
};

}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_XLA_BUFFERS_H_
