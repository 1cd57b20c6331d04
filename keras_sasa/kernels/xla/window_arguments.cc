#include "keras_sasa/kernels/xla/window_arguments.h"

#include <algorithm>
#include <array>
#include <string>

namespace keras_sasa {
namespace {

ffi::Error CheckPair(const char* name, ffi::Span<const int64_t> values) {
  if (values.size() == 2 && values[0] >= 1 && values[1] >= 1) {
    return ffi::Error::Success();
  }
  return InvalidCall(std::string("`") + name +
                     "` must be two positive integers");
}

}  // namespace

ffi::Error WindowArguments::ReadSources() {
  KERAS_SASA_RETURN_IF_ERROR(CheckWindow());
  if (attributes_.sources < 1 || attributes_.places.size() != 6) {
    return InvalidCall("`sources` or `places` is wrong");
  }
  KERAS_SASA_RETURN_IF_ERROR(CheckHeads());
  const int64_t filters = attributes_.filters;
  for (int64_t i = 0; i < attributes_.sources; ++i) {
    KERAS_SASA_RETURN_IF_ERROR(buffers.CheckRank(i, 4, "source"));
  }
  std::array<Dimensions, 3> sizes;
  const char* names[] = {"query", "key", "value"};
  for (int i = 0; i < 3; ++i) {
    const int64_t source = attributes_.places[2 * i];
    const int64_t channel = attributes_.places[2 * i + 1];
    if (source == -1 && i == 1) continue;
    if (source < 0 || source >= attributes_.sources || channel < 0) {
      return InvalidCall(std::string("no such source for ") + names[i]);
    }
    sizes[i] = buffers.OperandShape(source);
    if (channel > sizes[i][3] - filters) {
      return InvalidCall(std::string(names[i]) +
                         " has fewer channels than `filters`");
    }
  }
  KERAS_SASA_RETURN_IF_ERROR(CheckOverlap());
  const Dimensions &query = sizes[0], &key = sizes[1], &value = sizes[2];
  if (!key.empty() &&
      !std::equal(key.begin(), key.begin() + 3, value.begin())) {
    return InvalidCall("key and value differ in batch, height or width");
  }
  if (query[0] != value[0]) {
    return InvalidCall("query and value differ in batch");
  }
  shape = {query[0], Axis(0, value[1]), Axis(1, value[2]),
           attributes_.num_heads, filters / attributes_.num_heads};
  if (shape.rows.queries != query[1] || shape.columns.queries != query[2]) {
    return InvalidCall(
        "query does not have the height and width of the output");
  }
  KERAS_SASA_RETURN_IF_ERROR(CheckSizes());
  inputs.query = MapAt(0);
  if (attributes_.places[2] >= 0) inputs.key = MapAt(2);
  inputs.value = MapAt(4);
  buffers.Skip(attributes_.sources);
  return ReadPosition();
}

ffi::Error WindowArguments::ReadProjection(bool content, bool query_bias) {
  KERAS_SASA_RETURN_IF_ERROR(CheckWindow());
  KERAS_SASA_RETURN_IF_ERROR(CheckHeads());
  KERAS_SASA_RETURN_IF_ERROR(buffers.CheckRank(0, 4, "image"));
  const Dimensions image = buffers.OperandShape(0);
  const int64_t channels = image[3];
  if (channels == 0) return InvalidCall("the image has no channels");
  shape = {image[0], Axis(0, image[1]), Axis(1, image[2]),
           attributes_.num_heads, attributes_.filters / attributes_.num_heads};
  KERAS_SASA_RETURN_IF_ERROR(CheckSizes());
  const Dimensions kernel = {channels, attributes_.filters};
  Projection& projection = inputs.projection;
  projection.image = buffers.OperandMap(0);
  projection.channels = channels;
  buffers.Skip(1);
  KERAS_SASA_RETURN_IF_ERROR(
      buffers.ReadOperand(kernel, "query_kernel", &projection.query_kernel));
  if (content) {
    KERAS_SASA_RETURN_IF_ERROR(
        buffers.ReadOperand(kernel, "key_kernel", &projection.key_kernel));
  }
  KERAS_SASA_RETURN_IF_ERROR(
      buffers.ReadOperand(kernel, "value_kernel", &projection.value_kernel));
  if (query_bias) {
    KERAS_SASA_RETURN_IF_ERROR(buffers.ReadOperand(
        {attributes_.filters}, "query_bias", &projection.query_bias));
  }
  return ReadPosition();
}

ffi::Error WindowArguments::CheckWindow() const {
  const WindowAttributes& a = attributes_;
  KERAS_SASA_RETURN_IF_ERROR(CheckPair("kernel_size", a.kernel_size));
  KERAS_SASA_RETURN_IF_ERROR(CheckPair("strides", a.strides));
  KERAS_SASA_RETURN_IF_ERROR(CheckPair("dilation_rate", a.dilation_rate));
  if (a.kernel_size[0] % 2 == 0 || a.kernel_size[1] % 2 == 0) {
    return InvalidCall("`kernel_size` must be odd");
  }
  const int64_t limit = int64_t{1} << 24;
  for (int i = 0; i < 2; ++i) {
    if (a.strides[i] > 1 &&
        (a.dilation_rate[0] > 1 || a.dilation_rate[1] > 1)) {
      return InvalidCall("`strides` and `dilation_rate` cannot be combined");
    }
    if (a.kernel_size[i] > limit || a.strides[i] > limit ||
        a.dilation_rate[i] > limit) {
      return InvalidCall("the window is too large");
    }
  }
  if (a.padding != "same" && a.padding != "valid") {
    return InvalidCall("`padding` must be \"same\" or \"valid\"");
  }
  if (a.border != "mask" && a.border != "shift") {
    return InvalidCall("`border` must be \"mask\" or \"shift\"");
  }
  if (a.border == "shift" &&
      (a.padding != "same" || a.strides[0] > 1 || a.strides[1] > 1)) {
    return InvalidCall(
        "windows that shift take `strides` of 1 and the padding \"same\"");
  }
  if (a.relative &&
      (a.position_bias || a.border == "shift" || a.scale != 1.0f)) {
    return InvalidCall(
        "`relative` can be combined neither with `position_bias` and `scale` "
        "nor with windows that shift");
  }
  return ffi::Error::Success();
}

// Windows that shift must fit into the image.
ffi::Error WindowArguments::CheckSizes() const {
  for (const WindowAxis* axis : {&shape.rows, &shape.columns}) {
    if (axis->shifts && !empty() &&
        axis->keys < axis->kernel * axis->dilation) {
      return InvalidCall("the image is smaller than a window that shifts");
    }
  }
  return ffi::Error::Success();
}

ffi::Error WindowArguments::CheckHeads() const {
  const int64_t heads = attributes_.num_heads;
  const int64_t filters = attributes_.filters;
  if (heads < 1 || filters < 1 || filters % heads != 0 ||
      (attributes_.relative && filters / heads % 2 != 0)) {
    return InvalidCall(
        "`filters` must be a positive multiple of `num_heads`, an even one "
        "with relative positions");
  }
  return ffi::Error::Success();
}

// The gradients of two maps must not be written to the same channels.
ffi::Error WindowArguments::CheckOverlap() const {
  const ffi::Span<const int64_t>& places = attributes_.places;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < i; ++j) {
      const int64_t distance = places[2 * i + 1] - places[2 * j + 1];
      if (places[2 * i] == places[2 * j] && distance < attributes_.filters &&
          -distance < attributes_.filters) {
        return InvalidCall("query, key and value overlap in a source");
      }
    }
  }
  return ffi::Error::Success();
}

ffi::Error WindowArguments::ReadPosition() {
  inputs.scale = attributes_.scale;
  if (attributes_.relative) return ReadEmbeddings();
  if (!attributes_.position_bias) return ffi::Error::Success();
  return buffers.ReadOperand(
      {shape.heads, shape.rows.offsets(), shape.columns.offsets()},
      "position_bias", &inputs.position_bias);
}

ffi::Error WindowArguments::ReadEmbeddings() {
  const float** embeddings[] = {&inputs.row_embedding,
                                &inputs.column_embedding};
  for (int i = 0; i < 2; ++i) {
    KERAS_SASA_RETURN_IF_ERROR(buffers.ReadOperand(
        {attributes_.kernel_size[i], shape.heads, shape.head_width / 2},
        "embedding", embeddings[i]));
  }
  return ffi::Error::Success();
}

WindowAxis WindowArguments::Axis(int number, int64_t size) const {
  WindowAxis axis{};
  axis.keys = size;
  axis.kernel = attributes_.kernel_size[number];
  axis.stride = attributes_.strides[number];
  axis.dilation = attributes_.dilation_rate[number];
  axis.shifts = attributes_.border == "shift";
  axis.first_query =
      attributes_.padding == "valid" ? axis.dilation * (axis.kernel / 2) : 0;
  const int64_t span = size - 2 * axis.first_query;
  axis.queries = span <= 0 ? 0 : (span + axis.stride - 1) / axis.stride;
  return axis;
}

Map<const void> WindowArguments::MapAt(int number) const {
  return FromChannel(buffers.OperandMap(attributes_.places[number]),
                     attributes_.places[number + 1]);
}

}  // namespace keras_sasa
