#include "keras_sasa/kernels/xla/buffers.h"

#include "keras_sasa/kernels/base/tensor_table.h"

namespace keras_sasa {
namespace {

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

Buffers::Buffer Buffers::BufferOf(const ffi::AnyBuffer& buffer) {
  std::optional<ElementType> type;
  if (buffer.element_type() == ffi::DataType::F32) {
    type = ElementType::kFloat32;
  } else if (buffer.element_type() == ffi::DataType::BF16) {
    type = ElementType::kBfloat16;
  }
  return {buffer.untyped_data(),
          {buffer.dimensions().begin(), buffer.dimensions().end()},
          type};
}

Buffers::Buffers(const ffi::RemainingArgs& operands,
                 const ffi::RemainingRets& results) {
  const auto first = operands.get<ffi::AnyBuffer>(0);
  const bool has_table = first.has_value() &&
                         first->element_type() == ffi::DataType::S64 &&
                         first->dimensions().size() == 1;
  if (has_table) {
    TensorTable table;
    const auto* integers = static_cast<const int64_t*>(first->untyped_data());
    if (table.Read(integers, first->dimensions()[0])) {
      for (const TableTensor& tensor : table.operands) {
        operands_.push_back({tensor.data, tensor.shape, tensor.type});
      }
      for (const TableTensor& tensor : table.results) {
        results_.push_back({tensor.data, tensor.shape, tensor.type});
      }
      return;
    }
  }
  for (size_t i = has_table ? 1 : 0; i < operands.size(); ++i) {
    operands_.push_back(BufferOf(*operands.get<ffi::AnyBuffer>(i)));
  }
  for (size_t i = 0; i < results.size(); ++i) {
    results_.push_back(BufferOf(**results.get<ffi::AnyBuffer>(i)));
  }
}

ffi::Error Buffers::CheckRank(int64_t number, size_t rank,
                              const char* name) const {
  if (number >= static_cast<int64_t>(operands_.size())) {
    return InvalidCall(std::string("an operand is missing: ") + name);
  }
  if (!operands_[number].type || operands_[number].shape.size() != rank) {
    return InvalidCall(std::string(name) +
                       " must be float32 or bfloat16 of rank " +
                       std::to_string(rank));
  }
  return ffi::Error::Success();
}

Dimensions Buffers::OperandShape(int64_t number) const {
  return operands_[number].shape;
}

Map<const void> Buffers::OperandMap(int64_t number) const {
  const Buffer& operand = operands_[number];
  return {operand.data, operand.shape.back(), *operand.type};
}

ffi::Error Buffers::CheckNext(const Dimensions& expected,
                              const char* name) const {
  KERAS_SASA_RETURN_IF_ERROR(CheckRank(next_, expected.size(), name));
  const Dimensions shape = OperandShape(next_);
  if (shape != expected) {
    return InvalidCall(std::string(name) + " has the shape " + Text(shape) +
                       " and not " + Text(expected));
  }
  return ffi::Error::Success();
}

ffi::Error Buffers::ReadOperand(const Dimensions& expected, const char* name,
                                const float** data) {
  KERAS_SASA_RETURN_IF_ERROR(CheckNext(expected, name));
  if (!operands_[next_].is_float32()) {
    return InvalidCall(std::string(name) + " must be float32");
  }
  *data = static_cast<const float*>(operands_[next_++].data);
  return ffi::Error::Success();
}

ffi::Error Buffers::ReadOperand(const Dimensions& expected, const char* name,
                                Map<const void>* map) {
  KERAS_SASA_RETURN_IF_ERROR(CheckNext(expected, name));
  *map = OperandMap(next_++);
  return ffi::Error::Success();
}

ffi::Error Buffers::GetResult(size_t number, const Dimensions& expected,
                              const char* name, float** data) const {
  if (number >= results_.size() || !results_[number].is_float32() ||
      results_[number].shape != expected) {
    return InvalidCall(std::string(name) +
                       " must be a float32 result of shape " + Text(expected));
  }
  *data = static_cast<float*>(results_[number].data);
  return ffi::Error::Success();
}

ffi::Error Buffers::GetResult(size_t number, const Dimensions& expected,
                              const char* name, Map<void>* map) const {
  if (number >= results_.size() || !results_[number].type ||
      results_[number].shape != expected) {
    return InvalidCall(std::string(name) +
                       " must be a float32 or bfloat16 result of shape " +
                       Text(expected));
  }
  const Buffer& result = results_[number];
  *map = {result.data, expected.back(), *result.type};
  return ffi::Error::Success();
}

}  // namespace keras_sasa
