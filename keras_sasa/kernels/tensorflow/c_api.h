// The part of TensorFlow's C interface that the operations use.
//
// The functions are found when the operations are registered, so that neither
// TensorFlow's headers nor its libraries are needed to build the kernel, which
// runs in JAX as well.

#ifndef KERAS_SASA_KERNELS_TENSORFLOW_C_API_H_
#define KERAS_SASA_KERNELS_TENSORFLOW_C_API_H_

#include <cstddef>
#include <cstdint>

namespace keras_sasa::tensorflow {

struct KernelBuilder;
struct OpDefinitionBuilder;
struct OpKernelConstruction;
struct OpKernelContext;
struct ShapeInferenceContext;
struct Status;
struct Tensor;

enum DataType : int { kFloat = 1, kInt64 = 9, kBfloat16 = 14 };
enum Code : int { kOk = 0, kInvalidArgument = 3, kResourceExhausted = 8 };

using ShapeFunction = void (*)(ShapeInferenceContext*, Status*);

// Every function is called "TF_" and its name here.
#define KERAS_SASA_TENSORFLOW_FUNCTIONS(F)                                   \
  F(NewStatus, Status*, ())                                                  \
  F(DeleteStatus, void, (Status*))                                           \
  F(SetStatus, void, (Status*, Code, const char*))                           \
  F(GetCode, Code, (const Status*))                                          \
  F(Message, const char*, (const Status*))                                   \
  F(TensorData, void*, (const Tensor*))                                      \
  F(TensorType, DataType, (const Tensor*))                                   \
  F(NumDims, int, (const Tensor*))                                           \
  F(Dim, int64_t, (const Tensor*, int))                                      \
  F(DeleteTensor, void, (Tensor*))                                           \
  F(NewOpDefinitionBuilder, OpDefinitionBuilder*, (const char*))             \
  F(OpDefinitionBuilderAddAttr, void, (OpDefinitionBuilder*, const char*))   \
  F(OpDefinitionBuilderAddInput, void, (OpDefinitionBuilder*, const char*))  \
  F(OpDefinitionBuilderAddOutput, void, (OpDefinitionBuilder*, const char*)) \
  F(OpDefinitionBuilderSetIsStateful, void, (OpDefinitionBuilder*, bool))    \
  F(OpDefinitionBuilderSetShapeInferenceFunction, void,                      \
    (OpDefinitionBuilder*, ShapeFunction))                                   \
  F(RegisterOpDefinition, void, (OpDefinitionBuilder*, Status*))             \
  F(ShapeInferenceContextSetUnknownShape, void,                              \
    (ShapeInferenceContext*, Status*))                                       \
  F(NewKernelBuilder, KernelBuilder*,                                        \
    (const char*, const char*, void* (*)(OpKernelConstruction*),             \
     void (*)(void*, OpKernelContext*), void (*)(void*)))                    \
  F(RegisterKernelBuilder, void, (const char*, KernelBuilder*, Status*))     \
  F(OpKernelConstruction_GetAttrSize, void,                                  \
    (OpKernelConstruction*, const char*, int32_t*, int32_t*, Status*))       \
  F(OpKernelConstruction_GetAttrInt64List, void,                             \
    (OpKernelConstruction*, const char*, int64_t*, int, Status*))            \
  F(OpKernelConstruction_Failure, void, (OpKernelConstruction*, Status*))    \
  F(NumInputs, int, (OpKernelContext*))                                      \
  F(NumOutputs, int, (OpKernelContext*))                                     \
  F(GetInput, void, (OpKernelContext*, int, Tensor**, Status*))              \
  F(AllocateOutput, Tensor*,                                                 \
    (OpKernelContext*, int, DataType, const int64_t*, int, size_t, Status*)) \
  F(SetOutput, void, (OpKernelContext*, int, const Tensor*, Status*))        \
  F(ExpectedOutputDataType, DataType, (OpKernelContext*, int))               \
  F(OpKernelContext_Failure, void, (OpKernelContext*, Status*))

struct Functions {
#define KERAS_SASA_DECLARE(name, result, arguments) result(*name) arguments;
  KERAS_SASA_TENSORFLOW_FUNCTIONS(KERAS_SASA_DECLARE)
#undef KERAS_SASA_DECLARE
};

}  // namespace keras_sasa::tensorflow

#endif  // KERAS_SASA_KERNELS_TENSORFLOW_C_API_H_
