// Operands and results of a call of XLA, checked for their types and shapes.
//
// A call has them itself, or its only operand is a `TensorTable` that says
// where they are.

#ifndef KERAS_SASA_KERNELS_XLA_BUFFERS_H_
#define KERAS_SASA_KERNELS_XLA_BUFFERS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "keras_sasa/kernels/base/element_type.h"
#include "keras_sasa/kernels/window/attention.h"
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

// Operands and results are float32, maps also bfloat16.
class Buffers {
 public:
  Buffers(const ffi::RemainingArgs& operands,
          const ffi::RemainingRets& results);

  // Checks that there is an operand `number` of that rank.
  ffi::Error CheckRank(int64_t number, size_t rank, const char* name) const;

  // Of operands whose rank was checked.
  Dimensions OperandShape(int64_t number) const;
  Map<const void> OperandMap(int64_t number) const;

  // Reads the next operand, of the shape `expected`. `Skip` passes over
  // operands that are read in another way.
  ffi::Error ReadOperand(const Dimensions& expected, const char* name,
                         const float** data);
  ffi::Error ReadOperand(const Dimensions& expected, const char* name,
                         Map<const void>* map);
  void Skip(int64_t count) { next_ += count; }

  // Result `number`, of the shape `expected`.
  ffi::Error GetResult(size_t number, const Dimensions& expected,
                       const char* name, float** data) const;
  ffi::Error GetResult(size_t number, const Dimensions& expected,
                       const char* name, Map<void>* map) const;
  size_t result_count() const { return results_.size(); }

 private:
  struct Buffer {
    void* data;
    Dimensions shape;
    // None for types that nothing here can have.
    std::optional<ElementType> type;

    bool is_float32() const { return type == ElementType::kFloat32; }
  };

  static Buffer BufferOf(const ffi::AnyBuffer& buffer);
  // Checks the next operand.
  ffi::Error CheckNext(const Dimensions& expected, const char* name) const;

  std::vector<Buffer> operands_, results_;
  int64_t next_ = 0;
};

}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_XLA_BUFFERS_H_
