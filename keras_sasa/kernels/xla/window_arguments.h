// Operands and attributes of the calls within windows.
//
// Maps come as "sources": tensors (batch, height, width, channels) that hold
// queries, keys or values, or several of them side by side, as one matrix
// product leaves them. The attribute `places` has the source and the first
// channel of each of the three; the source -1 means that there is none.

#ifndef KERAS_SASA_KERNELS_XLA_WINDOW_ARGUMENTS_H_
#define KERAS_SASA_KERNELS_XLA_WINDOW_ARGUMENTS_H_

#include <cstdint>
#include <string_view>

#include "keras_sasa/kernels/window/attention.h"
#include "keras_sasa/kernels/xla/buffers.h"
#include "xla/ffi/api/ffi.h"

namespace keras_sasa {

struct WindowAttributes {
  int64_t sources, filters, num_heads, relative, position_bias;
  ffi::Span<const int64_t> places, kernel_size, strides, dilation_rate;
  std::string_view padding, border;
  float scale;
};

class WindowArguments {
 public:
  WindowArguments(const ffi::RemainingArgs& operands,
                  const ffi::RemainingRets& results,
                  const WindowAttributes& attributes)
      : buffers(operands, results), attributes_(attributes) {}

  // Reads sources and the position term, and checks that they fit together.
  ffi::Error ReadSources();

  // Reads an image, the matrices that project it, and the position term.
  // `content`: there is a matrix for keys. `query_bias`: queries have a bias.
  ffi::Error ReadProjection(bool content, bool query_bias);

  Dimensions output_shape() const {
    return {shape.batch, shape.rows.queries, shape.columns.queries,
            shape.filters()};
  }
  Dimensions log_sum_exp_shape() const {
    return {shape.batch, shape.heads, shape.rows.queries,
            shape.columns.queries};
  }
  // Whether there is no query.
  bool empty() const {
    return shape.batch == 0 || shape.rows.queries == 0 ||
           shape.columns.queries == 0;
  }

  Buffers buffers;
  WindowShape shape{};
  WindowInputs inputs{};

 private:
  ffi::Error CheckWindow() const;
  ffi::Error CheckHeads() const;
  ffi::Error CheckOverlap() const;
  ffi::Error CheckSizes() const;
  ffi::Error ReadPosition();
  ffi::Error ReadEmbeddings();
  WindowAxis Axis(int number, int64_t size) const;
  // The map at places[number] and places[number + 1].
  Map<const void> MapAt(int number) const;

  const WindowAttributes attributes_;
};

}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_XLA_WINDOW_ARGUMENTS_H_
