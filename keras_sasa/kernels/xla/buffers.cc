#include "keras_sasa/kernels/xla/buffers.h"

namespace keras_sasa {
namespace {

Dimensions DimensionsOf(const ffi::AnyBuffer& buffer) {
  return {buffer.dimensions().begin(), buffer.dimensions().end()};
}

std::string Text(const Dimensions& sizes) {
  std::string result = "(";
  for (size_t i = 0; i < sizes.size(); ++i) {
    result += (i > 0 ? ", " : "") + std::to_string(sizes[i]);
  }
  return result + ")";
}

}  // namespace

ffi::Error InvalidCall(const std::string& message) {
  return ffi::Error(ffi::ErrorCode::kInvalidArgument,
                    "keras_sasa kernel: " + message + ".");
}

ffi::Error Buffers::CheckRank(int64_t number, size_t rank,
                              const char* name) const {
  if (number >= static_cast<int64_t>(operands_.size())) {
    return InvalidCall(std::string("an operand is missing: ") + name);
  }
  auto buffer = operands_.get<ffi::AnyBuffer>(number);
  if (!buffer.has_value() || buffer->element_type() != ffi::DataType::F32 ||
      buffer->dimensions().size() != rank) {
    return InvalidCall(std::string(name) + " must be float32 of rank " +
                       std::to_string(rank));
  }
  return ffi::Error::Success();
}

Dimensions Buffers::OperandShape(int64_t number) const {
  return DimensionsOf(*operands_.get<ffi::AnyBuffer>(number));
}

const float* Buffers::OperandData(int64_t number) const {
  return static_cast<const float*>(
      operands_.get<ffi::AnyBuffer>(number)->untyped_data());
}

ffi::Error Buffers::ReadOperand(const Dimensions& expected, const char* name,
                                const float** data) {
  KERAS_SASA_RETURN_IF_ERROR(CheckRank(next_, expected.size(), name));
  const Dimensions shape = OperandShape(next_);
  if (shape != expected) {
    return InvalidCall(std::string(name) + " has the shape " + Text(shape) +
                       " and not " + Text(expected));
  }
  *data = OperandData(next_++);
  return ffi::Error::Success();
}

ffi::Error Buffers::GetResult(size_t number, const Dimensions& expected,
                              const char* name, float** data) const {
  auto buffer = results_.get<ffi::AnyBuffer>(number);
  if (!buffer.has_value() || (*buffer)->element_type() != ffi::DataType::F32 ||
      DimensionsOf(**buffer) != expected) {
    return InvalidCall(std::string(name) +
                       " must be a float32 result of shape " + Text(expected));
  }
  *data = static_cast<float*>((*buffer)->untyped_data());
  return ffi::Error::Success();
}

}  // namespace keras_sasa
