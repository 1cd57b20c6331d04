// The operations of TensorFlow around a call of XLA that depends on no size.
//
// XLA compiles a call for every shape of its operands, which takes longer than
// the attention of an image. Here a call reads its operands and writes its
// results where a table says: KerasSasaAllocate allocates the results and makes
// the table, and KerasSasaFinish returns the results after the call. It takes
// the operands as well, which keeps them in memory until then. What XLA itself
// sees instead of operands and results of unknown sizes are small stand-ins.
//
// A function that XLA compiles as a whole needs none of this: there the
// operations pass on the operands to the call, with an empty table, and the
// results of the call.

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "keras_sasa/kernels/base/element_type.h"
#include "keras_sasa/kernels/base/tensor_table.h"
#include "keras_sasa/kernels/tensorflow/c_api.h"

namespace keras_sasa::tensorflow {
namespace {

Functions tf;

// Returns null, or the name of a function that is missing.
const char* FindFunctions(void* (*find)(const char* name)) {
#define KERAS_SASA_FIND(name, result, arguments)                      \
  tf.name = reinterpret_cast<result(*) arguments>(find("TF_" #name)); \
  if (tf.name == nullptr) return "TF_" #name;
  KERAS_SASA_TENSORFLOW_FUNCTIONS(KERAS_SASA_FIND)
#undef KERAS_SASA_FIND
  return nullptr;
}

struct DeleteStatus {
  void operator()(Status* status) const { tf.DeleteStatus(status); }
};
struct DeleteTensor {
  void operator()(Tensor* tensor) const { tf.DeleteTensor(tensor); }
};
using StatusPointer = std::unique_ptr<Status, DeleteStatus>;
using TensorPointer = std::unique_ptr<Tensor, DeleteTensor>;

StatusPointer NewStatus() { return StatusPointer(tf.NewStatus()); }
bool Failed(const StatusPointer& status) {
  return tf.GetCode(status.get()) != kOk;
}

// Reads input `number`; null if that fails.
TensorPointer Input(OpKernelContext* context, int number,
                    const StatusPointer& status) {
  Tensor* tensor = nullptr;
  tf.GetInput(context, number, &tensor, status.get());
  return TensorPointer(Failed(status) ? nullptr : tensor);
}

// Of a tensor whose type the definitions below allow.
ElementType ElementTypeOf(const Tensor* tensor) {
  return tf.TensorType(tensor) == kBfloat16 ? ElementType::kBfloat16
                                            : ElementType::kFloat32;
}

// Allocates output `number`; null if that fails.
TensorPointer Output(OpKernelContext* context, int number,
                     const std::vector<int64_t>& shape,
                     const StatusPointer& status) {
  const DataType type = tf.ExpectedOutputDataType(context, number);
  size_t bytes = type == kInt64 ? 8 : type == kFloat ? 4 : 2;
  for (const int64_t size : shape) bytes *= size;
  Tensor* tensor =
      tf.AllocateOutput(context, number, type, shape.data(),
                        static_cast<int>(shape.size()), bytes, status.get());
  return TensorPointer(Failed(status) ? nullptr : tensor);
}

// The attributes of KerasSasaAllocate.
struct AllocateAttributes {
  // For every result its rank, and for every dimension three integers: an
  // operand, its axis, and a divisor by which its size is divided, and rounded
  // up. The operand -1 means that the second integer is the size.
  std::vector<int64_t> result_shapes;
  // For every operand the rank and the sizes of what XLA sees instead of it, or
  // -1 if the call takes the operand itself.
  std::vector<int64_t> stand_in_shapes;
};

std::vector<int64_t> Attribute(OpKernelConstruction* construction,
                               const char* name, const StatusPointer& status) {
  int32_t size = 0, total = 0;
  tf.OpKernelConstruction_GetAttrSize(construction, name, &size, &total,
                                      status.get());
  std::vector<int64_t> values(size > 0 ? size : 0);
  if (!Failed(status)) {
    tf.OpKernelConstruction_GetAttrInt64List(construction, name, values.data(),
                                             size, status.get());
  }
  return values;
}

void* CreateAllocate(OpKernelConstruction* construction) {
  const StatusPointer status = NewStatus();
  auto attributes = std::make_unique<AllocateAttributes>();
  attributes->result_shapes = Attribute(construction, "result_shapes", status);
  if (!Failed(status)) {
    attributes->stand_in_shapes =
        Attribute(construction, "stand_in_shapes", status);
  }
  if (Failed(status)) {
    tf.OpKernelConstruction_Failure(construction, status.get());
    return nullptr;
  }
  return attributes.release();
}

void DeleteAllocate(void* kernel) {
  delete static_cast<AllocateAttributes*>(kernel);
}

// Adds results without data; false if the attribute does not fit the operands.
bool AddResults(const std::vector<int64_t>& attribute, TensorTable& table) {
  for (size_t i = 0; i < attribute.size();) {
    const int64_t rank = attribute[i++];
    if (rank < 0 || rank > static_cast<int64_t>(attribute.size() - i) / 3) {
      return false;
    }
    std::vector<int64_t> shape(rank);
    for (int64_t& size : shape) {
      const int64_t operand = attribute[i], axis = attribute[i + 1];
      const int64_t divisor = attribute[i + 2];
      i += 3;
      size = axis;
      if (operand >= 0) {
        if (operand >= static_cast<int64_t>(table.operands.size())) {
          return false;
        }
        const std::vector<int64_t>& sizes = table.operands[operand].shape;
        if (axis < 0 || axis >= static_cast<int64_t>(sizes.size()) ||
            divisor < 1) {
          return false;
        }
        size = (sizes[axis] + divisor - 1) / divisor;
      }
      if (size < 0) return false;
    }
    table.results.push_back({nullptr, {}, shape});
  }
  return true;
}

// Outputs the stand-ins, from output 1 on. Returns their number.
int PutStandIns(const std::vector<int64_t>& attribute, OpKernelContext* context,
                const StatusPointer& status) {
  int count = 0;
  for (size_t i = 0; i < attribute.size() && !Failed(status);) {
    const int64_t rank = attribute[i++];
    if (rank < 0) continue;
    std::vector<int64_t> shape;
    while (static_cast<int64_t>(shape.size()) < rank && i < attribute.size()) {
      shape.push_back(attribute[i++]);
    }
    Output(context, ++count, shape, status);
  }
  return count;
}

// Inputs: an empty table, operands. Outputs: the table, the stand-ins, the
// results.
void Allocate(const AllocateAttributes& attributes, OpKernelContext* context,
              const StatusPointer& status) {
  TensorTable table;
  std::vector<TensorPointer> operands;
  for (int i = 1; i < tf.NumInputs(context); ++i) {
    operands.push_back(Input(context, i, status));
    const Tensor* tensor = operands.back().get();
    if (tensor == nullptr) return;
    std::vector<int64_t> shape(tf.NumDims(tensor));
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      shape[axis] = tf.Dim(tensor, static_cast<int>(axis));
    }
    table.operands.push_back(
        {tf.TensorData(tensor), ElementTypeOf(tensor), shape});
  }
  const int first_result =
      1 + PutStandIns(attributes.stand_in_shapes, context, status);
  if (Failed(status)) return;
  if (!AddResults(attributes.result_shapes, table) ||
      tf.NumOutputs(context) !=
          first_result + static_cast<int>(table.results.size())) {
    tf.SetStatus(
        status.get(), kInvalidArgument,
        "keras_sasa kernel: `result_shapes` does not fit the tensors.");
    return;
  }
  for (size_t i = 0; i < table.results.size(); ++i) {
    const TensorPointer tensor =
        Output(context, first_result + static_cast<int>(i),
               table.results[i].shape, status);
    if (tensor == nullptr) return;
    table.results[i].data = tf.TensorData(tensor.get());
    table.results[i].type = ElementTypeOf(tensor.get());
  }
  const std::vector<int64_t> integers = table.Integers();
  const TensorPointer tensor =
      Output(context, 0, {static_cast<int64_t>(integers.size())}, status);
  if (tensor == nullptr) return;
  std::memcpy(tf.TensorData(tensor.get()), integers.data(),
              integers.size() * sizeof(int64_t));
}

void ComputeAllocate(void* kernel, OpKernelContext* context) {
  const StatusPointer status = NewStatus();
  try {
    Allocate(*static_cast<AllocateAttributes*>(kernel), context, status);
  } catch (const std::bad_alloc&) {
    tf.SetStatus(status.get(), kResourceExhausted,
                 "keras_sasa kernel: out of memory.");
  }
  if (Failed(status)) tf.OpKernelContext_Failure(context, status.get());
}

// Makes an input an output.
void Forward(OpKernelContext* context, int input, int output,
             const StatusPointer& status) {
  const TensorPointer tensor = Input(context, input, status);
  if (tensor == nullptr) return;
  tf.SetOutput(context, output, tensor.get(), status.get());
}

// Inputs: the results of the call, the operands that it did not take, the
// results of KerasSasaAllocate. Outputs: the last of these.
void ComputeFinish(void*, OpKernelContext* context) {
  const StatusPointer status = NewStatus();
  const int count = tf.NumOutputs(context);
  const int first = tf.NumInputs(context) - count;
  for (int i = 0; i < count && !Failed(status); ++i) {
    Forward(context, first + i, i, status);
  }
  if (Failed(status)) tf.OpKernelContext_Failure(context, status.get());
}

// While XLA compiles a function, tensors are symbols, which TensorFlow's C
// interface can pass on unless they have no elements.
void ForwardSymbol(OpKernelContext* context, int input, int output,
                   const StatusPointer& status) {
  const TensorPointer tensor = Input(context, input, status);
  if (tensor == nullptr) return;
  for (int axis = 0; axis < tf.NumDims(tensor.get()); ++axis) {
    if (tf.Dim(tensor.get(), axis) > 0) continue;
    tf.SetStatus(status.get(), kInvalidArgument,
                 "keras_sasa kernel: a function that was traced for unknown "
                 "sizes, and later compiled by XLA, cannot take or return "
                 "empty tensors. Trace it inside the function with "
                 "`jit_compile=True`.");
    return;
  }
  tf.SetOutput(context, output, tensor.get(), status.get());
}

// Passes on the empty table and, as stand-ins, the operands. Nothing uses the
// results, for which the first operand serves.
void CompileAllocate(void* kernel, OpKernelContext* context) {
  const StatusPointer status = NewStatus();
  const std::vector<int64_t>& shapes =
      static_cast<AllocateAttributes*>(kernel)->stand_in_shapes;
  ForwardSymbol(context, 0, 0, status);
  int output = 1;
  int operand = 1;
  for (size_t i = 0; i < shapes.size() && !Failed(status); ++operand) {
    const int64_t rank = shapes[i++];
    if (rank < 0) continue;
    i += rank;
    ForwardSymbol(context, operand, output++, status);
  }
  for (; output < tf.NumOutputs(context) && !Failed(status); ++output) {
    ForwardSymbol(context, 1, output, status);
  }
  if (Failed(status)) tf.OpKernelContext_Failure(context, status.get());
}

// Returns the results of the call.
void CompileFinish(void*, OpKernelContext* context) {
  const StatusPointer status = NewStatus();
  for (int i = 0; i < tf.NumOutputs(context) && !Failed(status); ++i) {
    ForwardSymbol(context, i, i, status);
  }
  if (Failed(status)) tf.OpKernelContext_Failure(context, status.get());
}

void UnknownShapes(ShapeInferenceContext* context, Status* status) {
  tf.ShapeInferenceContextSetUnknownShape(context, status);
}

using ComputeFunction = void (*)(void*, OpKernelContext*);

struct Operation {
  const char* name;
  std::vector<const char*> attributes, inputs, outputs;
  void* (*create)(OpKernelConstruction*);
  ComputeFunction compute;
  // While XLA compiles a function.
  ComputeFunction compile;
  void (*destroy)(void*);
};

void Register(const Operation& operation, const StatusPointer& status) {
  OpDefinitionBuilder* definition = tf.NewOpDefinitionBuilder(operation.name);
  for (const char* text : operation.attributes) {
    tf.OpDefinitionBuilderAddAttr(definition, text);
  }
  for (const char* text : operation.inputs) {
    tf.OpDefinitionBuilderAddInput(definition, text);
  }
  for (const char* text : operation.outputs) {
    tf.OpDefinitionBuilderAddOutput(definition, text);
  }
  // Addresses must be neither folded into constants nor shared.
  tf.OpDefinitionBuilderSetIsStateful(definition, true);
  tf.OpDefinitionBuilderSetShapeInferenceFunction(definition, UnknownShapes);
  tf.RegisterOpDefinition(definition, status.get());
  const std::pair<const char*, ComputeFunction> kernels[] = {
      {"CPU", operation.compute}, {"XLA_CPU_JIT", operation.compile}};
  for (const auto& [device, compute] : kernels) {
    if (Failed(status)) return;
    KernelBuilder* kernel = tf.NewKernelBuilder(
        operation.name, device, operation.create, compute, operation.destroy);
    tf.RegisterKernelBuilder(operation.name, kernel, status.get());
  }
}

}  // namespace
}  // namespace keras_sasa::tensorflow

// Registers the operations with TensorFlow, once in a process. `find` returns
// the address of a function of TensorFlow, or null. Returns null, or an error
// message that stays valid.
extern "C" __attribute__((visibility("default"))) const char*
keras_sasa_register_operations(void* (*find)(const char* name)) {
  namespace tensorflow = keras_sasa::tensorflow;
  using tensorflow::tf;
  static std::string message;
  static bool registered = false;
  if (registered) return message.empty() ? nullptr : message.c_str();
  if (const char* name = tensorflow::FindFunctions(find)) {
    message = std::string("TensorFlow has no function ") + name;
    return message.c_str();
  }
  registered = true;
  const tensorflow::Operation operations[] = {
      {"KerasSasaAllocate",
       {"operand_types: list({float, bfloat16}) >= 1",
        "stand_in_types: list({float, bfloat16}) >= 0",
        "result_types: list({float, bfloat16}) >= 1",
        "result_shapes: list(int)", "stand_in_shapes: list(int)"},
       {"empty_table: int64", "operands: operand_types"},
       {"table: int64", "stand_ins: stand_in_types", "results: result_types"},
       tensorflow::CreateAllocate,
       tensorflow::ComputeAllocate,
       tensorflow::CompileAllocate,
       tensorflow::DeleteAllocate},
      {"KerasSasaFinish",
       {"call_types: list(type)", "operand_types: list({float, bfloat16}) >= 0",
        "result_types: list({float, bfloat16}) >= 1"},
       {"call: call_types", "operands: operand_types", "results: result_types"},
       {"outputs: result_types"},
       nullptr,
       tensorflow::ComputeFinish,
       tensorflow::CompileFinish,
       nullptr}};
  const tensorflow::StatusPointer status = tensorflow::NewStatus();
  for (const tensorflow::Operation& operation : operations) {
    tensorflow::Register(operation, status);
    if (tensorflow::Failed(status)) {
      message = tf.Message(status.get());
      return message.c_str();
    }
  }
  return nullptr;
}
