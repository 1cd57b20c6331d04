// A table of tensors as integers, through which an operation of TensorFlow
// hands the tensors of any size to a call of XLA that depends on no size.

#ifndef KERAS_SASA_KERNELS_BASE_TENSOR_TABLE_H_
#define KERAS_SASA_KERNELS_BASE_TENSOR_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "keras_sasa/kernels/base/element_type.h"

namespace keras_sasa {

struct TableTensor {
  void* data;
  ElementType type;
  std::vector<int64_t> shape;
};

// The numbers of operands and results, and for each of them the address, the
// type, the rank and the sizes.
struct TensorTable {
  std::vector<TableTensor> operands, results;

  std::vector<int64_t> Integers() const {
    std::vector<int64_t> integers = {static_cast<int64_t>(operands.size()),
                                     static_cast<int64_t>(results.size())};
    for (const auto* tensors : {&operands, &results}) {
      for (const TableTensor& tensor : *tensors) {
        integers.push_back(reinterpret_cast<intptr_t>(tensor.data));
        integers.push_back(static_cast<int64_t>(tensor.type));
        integers.push_back(static_cast<int64_t>(tensor.shape.size()));
        integers.insert(integers.end(), tensor.shape.begin(),
                        tensor.shape.end());
      }
    }
    return integers;
  }

  // Reads a table of `count` integers; false if it is not one.
  bool Read(const int64_t* integers, int64_t count) {
    const int64_t* const end = integers + count;
    if (count < 2) return false;
    const int64_t numbers[] = {*integers++, *integers++};
    for (int i = 0; i < 2; ++i) {
      for (int64_t tensor = 0; tensor < numbers[i]; ++tensor) {
        if (end - integers < 3) return false;
        void* const data = reinterpret_cast<void*>(intptr_t{*integers++});
        const auto type = static_cast<ElementType>(*integers++);
        const int64_t rank = *integers++;
        if (rank < 0 || end - integers < rank) return false;
        (i == 0 ? operands : results)
            .push_back({data, type, {integers, integers + rank}});
        integers += rank;
      }
    }
    return integers == end;
  }
};

}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BASE_TENSOR_TABLE_H_
