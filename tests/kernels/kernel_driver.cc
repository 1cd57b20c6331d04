// Compares the kernel with loops over pixels in double precision, in value and
// gradient. tests/support/kernel_driver.py builds it with AddressSanitizer and
// UndefinedBehaviorSanitizer.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "keras_sasa/kernels/block/attention.h"
#include "keras_sasa/kernels/rows/normalization.h"
#include "keras_sasa/kernels/window/attention.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {
extern const WindowAttention window_attention;
extern const BlockAttention block_attention;
extern const RowFunctions row_functions;
}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

// In exponentials_driver.cc, which is compiled for every level.
int CheckExponentials();

namespace {

using keras_sasa::WindowAxis;
using keras_sasa::WindowInputs;
using keras_sasa::WindowShape;
using Numbers = std::vector<float>;

const keras_sasa::WindowAttention& kWindow =
    keras_sasa::KERAS_SASA_LEVEL::window_attention;
const keras_sasa::BlockAttention& kBlock =
    keras_sasa::KERAS_SASA_LEVEL::block_attention;
const keras_sasa::RowFunctions& kRows =
    keras_sasa::KERAS_SASA_LEVEL::row_functions;

struct Case {
  int64_t batch, height, width, heads, head_width;
  int64_t kernel[2] = {3, 3};
  int64_t stride[2] = {1, 1};
  int64_t dilation[2] = {1, 1};
  bool valid = false;
  bool relative = true;
  bool content = true;
  bool shifts = false;
  bool biased = false;
  float scale = 1.0f;
};

WindowAxis MakeAxis(const Case& c, int number) {
  WindowAxis a{};
  a.keys = number == 0 ? c.height : c.width;
  a.kernel = c.kernel[number];
  a.stride = c.stride[number];
  a.dilation = c.dilation[number];
  a.first_query = c.valid ? a.dilation * (a.kernel / 2) : 0;
  a.shifts = c.shifts;
  const int64_t span = a.keys - 2 * a.first_query;
  a.queries = span <= 0 ? 0 : (span + a.stride - 1) / a.stride;
  return a;
}

int failures = 0;

std::mt19937 generator(1);

Numbers Normal(int64_t size) {
  std::normal_distribution<float> distribution;
  Numbers numbers(size);
  for (float& number : numbers) number = distribution(generator);
  return numbers;
}

using Halves = std::vector<uint16_t>;
constexpr auto kBfloat16 = keras_sasa::ElementType::kBfloat16;
constexpr uint16_t kNanHalf = 0x7fff;

float Widen(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float number;
  std::memcpy(&number, &bits, sizeof(number));
  return number;
}

// The nearest bfloat16, and of two the even one.
uint16_t Round(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof(bits));
  const uint32_t upper = bits >> 16, lower = bits & 0xffff;
  if (std::isnan(number)) return kNanHalf;
  return upper + (lower > 0x8000 || (lower == 0x8000 && upper % 2 == 1));
}

// Rounds the numbers themselves, too.
Halves RoundAll(Numbers* numbers) {
  Halves halves;
  for (float& number : *numbers) {
    halves.push_back(Round(number));
    number = Widen(halves.back());
  }
  return halves;
}

struct Data {
  explicit Data(const Case& c)
      : shape{c.batch, MakeAxis(c, 0), MakeAxis(c, 1), c.heads, c.head_width} {
    const int64_t filters = shape.filters();
    keys = c.batch * c.height * c.width;
    queries = c.batch * shape.rows.queries * shape.columns.queries;
    half = c.head_width / 2;
    query = Normal(queries * filters);
    key = Normal(keys * filters);
    // Value and a neighbour it shares its pixels with.
    value = Normal(keys * (filters + 3));
    rows = Normal(shape.rows.kernel * c.heads * half);
    columns = Normal(shape.columns.kernel * c.heads * half);
    bias = Normal(c.heads * shape.rows.offsets() * shape.columns.offsets());
    upstream = Normal(queries * filters);
  }

  WindowInputs MakeInputs(const Case& c) const {
    const int64_t filters = shape.filters();
    return {{query.data(), filters},
            {c.content ? key.data() : nullptr, filters},
            {value.data() + 3, filters + 3},
            c.relative ? rows.data() : nullptr,
            c.relative ? columns.data() : nullptr,
            {},
            c.biased ? bias.data() : nullptr,
            c.scale};
  }

  WindowShape shape;
  int64_t keys, queries, half;
  Numbers query, key, value, rows, columns, bias, upstream;
};

struct Result {
  explicit Result(const Data& data)
      : output(data.query.size(), NAN),
        log_sum_exp(data.queries * data.shape.heads, NAN),
        query(data.query.size(), NAN),
        key(data.key.size(), NAN),
        value(data.value.size(), NAN),
        rows(data.rows.size(), NAN),
        columns(data.columns.size(), NAN),
        bias(data.bias.size(), NAN) {}
  Numbers output, log_sum_exp, query, key, value, rows, columns, bias;
};

Result RunWindow(const Case& c, const Data& data, bool reverse) {
  Result result(data);
  const int64_t filters = data.shape.filters();
  const WindowInputs inputs = data.MakeInputs(c);
  auto forward = kWindow.forward(
      data.shape, inputs,
      {{result.output.data(), filters}, result.log_sum_exp.data()});
  for (int64_t i = 0; i < forward->count(); ++i) {
    forward->Run(reverse ? forward->count() - 1 - i : i);
  }
  auto backward = kWindow.backward(
      data.shape, inputs,
      {{data.upstream.data(), filters}, result.log_sum_exp.data()},
      {{result.query.data(), filters},
       {result.key.data(), filters},
       {result.value.data() + 3, filters + 3},
       result.rows.data(),
       result.columns.data(),
       result.bias.data()});
  for (int64_t i = 0; i < backward->count(); ++i) {
    backward->Run(reverse ? backward->count() - 1 - i : i);
  }
  backward->Finish();
  return result;
}

// `change`: what must not change the result.
constexpr char kOrder[] = "the order of the tasks changes";
void CheckSame(size_t number, const char* change, const Numbers& a,
               const Numbers& b) {
  if (!a.empty() && std::memcmp(a.data(), b.data(), a.size() * 4) != 0) {
    std::printf("case %zu: %s the result\n", number, change);
    ++failures;
  }
}

// A map in bfloat16 has the bits of the rounded one.
void CheckRounded(const char* name, size_t number, const Halves& result,
                  const Numbers& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::isnan(expected[i]) ? std::isnan(Widen(result[i]))
                                : result[i] == Round(expected[i])) {
      continue;
    }
    std::printf("case %zu: %s[%zu] is %g, expected %g\n", number, name, i,
                Widen(result[i]), expected[i]);
    ++failures;
    return;
  }
}

// All maps in bfloat16, computed as in float and rounded once.
void CheckBfloat16(size_t number, const Case& c, Data data) {
  const Halves query = RoundAll(&data.query), key = RoundAll(&data.key);
  const Halves value = RoundAll(&data.value);
  const Halves upstream = RoundAll(&data.upstream);
  const Result expected = RunWindow(c, data, false);
  Result same(data);
  Halves output(query.size(), kNanHalf), query_gradient = output;
  Halves key_gradient(key.size(), kNanHalf);
  Halves value_gradient(value.size(), kNanHalf);
  const int64_t filters = data.shape.filters();
  WindowInputs inputs = data.MakeInputs(c);
  inputs.query = {query.data(), filters, kBfloat16};
  if (c.content) inputs.key = {key.data(), filters, kBfloat16};
  inputs.value = {value.data() + 3, filters + 3, kBfloat16};
  const auto forward = kWindow.forward(
      data.shape, inputs,
      {{output.data(), filters, kBfloat16}, same.log_sum_exp.data()});
  for (int64_t i = 0; i < forward->count(); ++i) forward->Run(i);
  const auto backward = kWindow.backward(
      data.shape, inputs,
      {{upstream.data(), filters, kBfloat16}, same.log_sum_exp.data()},
      {{query_gradient.data(), filters, kBfloat16},
       {key_gradient.data(), filters, kBfloat16},
       {value_gradient.data() + 3, filters + 3, kBfloat16},
       same.rows.data(),
       same.columns.data(),
       same.bias.data()});
  for (int64_t i = 0; i < backward->count(); ++i) backward->Run(i);
  backward->Finish();
  CheckRounded("bfloat16 output", number, output, expected.output);
  CheckRounded("bfloat16 query", number, query_gradient, expected.query);
  CheckRounded("bfloat16 key", number, key_gradient, expected.key);
  CheckRounded("bfloat16 value", number, value_gradient, expected.value);
  const char* of = "maps of bfloat16 change";
  CheckSame(number, of, same.log_sum_exp, expected.log_sum_exp);
  CheckSame(number, of, same.rows, expected.rows);
  CheckSame(number, of, same.columns, expected.columns);
  if (c.biased) CheckSame(number, of, same.bias, expected.bias);
}

// With one key, the output is the value.
void CheckRounding() {
  const Case c{1, 1, 19, 1, 10, {1, 1}, {1, 1}, {1, 1}, false, false, false};
  Data data(c);
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> special = {
      NAN,   -NAN,        infinity,    -infinity,   0.0f,
      -0.0f, 1e-40f,      -1e-45f,     3.4e38f,     -3.4e38f,
      1e38f, 1 + 0x1p-8f, 1 + 0x3p-8f, 1 + 0x5p-9f, -1 - 0x7p-9f};
  data.value.resize(190);
  for (size_t i = 0; i < 190; ++i) data.value[i] = special[i % special.size()];
  WindowInputs inputs = data.MakeInputs(c);
  inputs.value = {data.value.data(), 10};
  Numbers output(190);
  Halves rounded(190, 1);
  const keras_sasa::Map<void> maps[] = {{output.data(), 10},
                                        {rounded.data(), 10, kBfloat16}};
  for (const keras_sasa::Map<void>& map : maps) {
    const auto forward = kWindow.forward(data.shape, inputs, {map, nullptr});
    for (int64_t i = 0; i < forward->count(); ++i) forward->Run(i);
  }
  CheckRounded("rounded value", 0, rounded, output);
}

struct Expected {
  std::vector<double> output, query, key, value, rows, columns, bias;
};

// The pixel of a key of a window, and the number of its offset from the query.
struct Place {
  int64_t pixel, offset;
};

Place KeyAt(const WindowAxis& a, int64_t query, int64_t slot) {
  if (!a.shifts) {
    return {
        a.first_query + query * a.stride + (slot - a.kernel / 2) * a.dilation,
        slot};
  }
  // Of all windows of pixels at equal distances, the one whose middle is
  // nearest to the query.
  int64_t first = query % a.dilation, best = first;
  for (; first + (a.kernel - 1) * a.dilation < a.keys; first += a.dilation) {
    const int64_t middle = a.kernel / 2 * a.dilation;
    if (std::abs(first + middle - query) < std::abs(best + middle - query)) {
      best = first;
    }
  }
  const int64_t pixel = best + slot * a.dilation;
  return {pixel, (pixel - query) / a.dilation + a.kernel - 1};
}

Expected Loops(const Case& c, const Data& data) {
  const WindowShape& s = data.shape;
  const int64_t filters = s.filters(), width = s.head_width, half = data.half;
  Expected e;
  e.output.assign(data.query.size(), 0);
  e.query.assign(data.query.size(), 0);
  e.key.assign(data.key.size(), 0);
  e.value.assign(data.value.size(), 0);
  e.rows.assign(data.rows.size(), 0);
  e.columns.assign(data.columns.size(), 0);
  e.bias.assign(data.bias.size(), 0);
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t i = 0; i < s.rows.queries; ++i)
      for (int64_t j = 0; j < s.columns.queries; ++j)
        for (int64_t h = 0; h < s.heads; ++h) {
          const int64_t q =
              ((b * s.rows.queries + i) * s.columns.queries + j) * filters +
              h * width;
          struct Key {
            int64_t place, value, row, column, bias;
            double logit, weight, product;
          };
          std::vector<Key> window;
          double largest = -std::numeric_limits<double>::infinity();
          for (int64_t y = 0; y < s.rows.kernel; ++y)
            for (int64_t x = 0; x < s.columns.kernel; ++x) {
              const Place vertical = KeyAt(s.rows, i, y);
              const Place horizontal = KeyAt(s.columns, j, x);
              const int64_t row = vertical.pixel, column = horizontal.pixel;
              if (row < 0 || row >= s.rows.keys || column < 0 ||
                  column >= s.columns.keys)
                continue;
              const int64_t pixel =
                  (b * s.rows.keys + row) * s.columns.keys + column;
              Key key{pixel * filters + h * width,
                      pixel * (filters + 3) + 3 + h * width,
                      (y * s.heads + h) * half,
                      (x * s.heads + h) * half,
                      (h * s.rows.offsets() + vertical.offset) *
                              s.columns.offsets() +
                          horizontal.offset,
                      0,
                      0,
                      0};
              if (c.biased) key.logit = data.bias[key.bias];
              for (int64_t d = 0; d < width; ++d) {
                double k = c.content ? c.scale * data.key[key.place + d] : 0;
                if (c.relative)
                  k += d < half ? data.rows[key.row + d]
                                : data.columns[key.column + d - half];
                key.logit += data.query[q + d] * k;
                key.product += static_cast<double>(data.upstream[q + d]) *
                               data.value[key.value + d];
              }
              largest = std::fmax(largest, key.logit);
              window.push_back(key);
            }
          double sum = 0, mean = 0;
          for (Key& key : window) sum += std::exp(key.logit - largest);
          for (Key& key : window) {
            key.weight = std::exp(key.logit - largest) / sum;
            mean += key.weight * key.product;
          }
          for (const Key& key : window) {
            const double gradient = key.weight * (key.product - mean);
            e.bias[key.bias] += gradient;
            for (int64_t d = 0; d < width; ++d) {
              e.output[q + d] += key.weight * data.value[key.value + d];
              e.value[key.value + d] += key.weight * data.upstream[q + d];
              if (c.content) {
                e.query[q + d] += gradient * c.scale * data.key[key.place + d];
                e.key[key.place + d] += gradient * c.scale * data.query[q + d];
              }
              if (c.relative && d < half) {
                e.query[q + d] += gradient * data.rows[key.row + d];
                e.rows[key.row + d] += gradient * data.query[q + d];
              } else if (c.relative) {
                e.query[q + d] +=
                    gradient * data.columns[key.column + d - half];
                e.columns[key.column + d - half] +=
                    gradient * data.query[q + d];
              }
            }
          }
        }
  return e;
}

// `scale` is that of the terms that add up to the numbers.
void Check(const char* name, size_t number, const Numbers& result,
           const std::vector<double>& expected, double scale = 1) {
  for (double value : expected) scale = std::fmax(scale, std::fabs(value));
  for (size_t i = 0; i < expected.size(); ++i) {
    if (!(std::fabs(result[i] - expected[i]) <= 1e-5 * scale)) {
      std::printf("case %zu: %s[%zu] is %g, expected %g\n", number, name, i,
                  result[i], expected[i]);
      ++failures;
      return;
    }
  }
}

void CheckCase(size_t number, const Case& c) {
  const Data data(c);
  const Result result = RunWindow(c, data, false);
  const Result reverse = RunWindow(c, data, true);
  const Expected expected = Loops(c, data);
  Check("output", number, result.output, expected.output);
  Check("query", number, result.query, expected.query);
  // The floats of the neighbour are not touched.
  Numbers value = result.value;
  for (size_t i = 0; i < value.size(); ++i) {
    const bool neighbour =
        static_cast<int64_t>(i) % (data.shape.filters() + 3) < 3;
    if (neighbour != static_cast<bool>(std::isnan(value[i]))) {
      std::printf("case %zu: value[%zu] is %g\n", number, i, value[i]);
      ++failures;
      break;
    }
    if (neighbour) value[i] = 0;
  }
  Check("value", number, value, expected.value);
  if (c.content) Check("key", number, result.key, expected.key);
  if (c.relative) {
    const double terms = std::sqrt(static_cast<double>(data.queries));
    Check("rows", number, result.rows, expected.rows, terms);
    Check("columns", number, result.columns, expected.columns, terms);
  }
  if (c.biased) {
    const double terms = std::sqrt(static_cast<double>(data.queries));
    Check("bias", number, result.bias, expected.bias, terms);
    CheckSame(number, kOrder, result.bias, reverse.bias);
  }
  CheckSame(number, kOrder, result.output, reverse.output);
  CheckSame(number, kOrder, result.query, reverse.query);
  CheckSame(number, kOrder, result.key, reverse.key);
  CheckSame(number, kOrder, result.rows, reverse.rows);
  CheckBfloat16(number, c, data);
}

// The steps behind attention, whose output without them is `attended`.
void CheckEpilogue(size_t number, const WindowShape& shape,
                   const WindowInputs& inputs,
                   const std::vector<double>& attended, bool average) {
  const int64_t filters = shape.filters(), pool = average ? 2 : 1;
  const int64_t height = shape.rows.queries, width = shape.columns.queries;
  const int64_t rows = (height + pool - 1) / pool;
  const int64_t columns = (width + pool - 1) / pool;
  const Numbers scale = Normal(filters), offset = Normal(filters);
  const bool relu = number % 2 == 0;
  std::vector<double> expected(shape.batch * rows * columns * filters);
  for (size_t place = 0; place < expected.size(); ++place) {
    const int64_t filter = place % filters;
    const int64_t column = place / filters % columns;
    const int64_t row = place / filters / columns % rows;
    const int64_t image = place / filters / columns / rows;
    double sum = 0;
    int count = 0;
    for (int64_t i = row * pool; i < row * pool + pool && i < height; ++i)
      for (int64_t j = column * pool; j < column * pool + pool && j < width;
           ++j) {
        sum += attended[((image * height + i) * width + j) * filters + filter];
        ++count;
      }
    sum = sum / count * scale[filter] + offset[filter];
    expected[place] = relu ? std::fmax(sum, 0) : sum;
  }
  Numbers output(expected.size(), NAN);
  Halves halves(expected.size(), kNanHalf);
  const keras_sasa::Map<void> maps[] = {{output.data(), filters},
                                        {halves.data(), filters, kBfloat16}};
  for (const keras_sasa::Map<void>& map : maps) {
    const auto forward = kWindow.forward(
        shape, inputs,
        {map, nullptr, {scale.data(), offset.data(), relu, average}});
    for (int64_t i = 0; i < forward->count(); ++i) forward->Run(i);
  }
  Check(average ? "averaged" : "scaled", number, output, expected);
  CheckRounded("bfloat16 output of steps", number, halves, output);
}

// Maps that the kernel projects from an image itself, and nothing else.
void CheckProjected(size_t number, const Case& c, int64_t channels) {
  Data data(c);
  const int64_t filters = data.shape.filters();
  Numbers image = Normal(data.keys * channels);
  const Halves halves = RoundAll(&image);
  Numbers kernels[3], queries(data.keys * filters);
  for (int map = 0; map < 3; ++map) {
    Numbers& kernel = kernels[map] = Normal(channels * filters);
    for (float& weight : kernel) {
      weight /= std::sqrt(static_cast<float>(channels));
    }
    for (int64_t pixel = 0; pixel < data.keys; ++pixel)
      for (int64_t filter = 0; filter < filters; ++filter) {
        double sum = 0;
        for (int64_t i = 0; i < channels; ++i) {
          sum += static_cast<double>(image[pixel * channels + i]) *
                 kernel[i * filters + filter];
        }
        const int64_t place = pixel * filters + filter;
        if (map == 0) queries[place] = sum;
        if (map == 1) data.key[place] = sum;
        if (map == 2) data.value[pixel * (filters + 3) + 3 + filter] = sum;
      }
  }
  float* to = data.query.data();
  const WindowAxis &rows = data.shape.rows, &columns = data.shape.columns;
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t i = 0; i < rows.queries; ++i)
      for (int64_t j = 0; j < columns.queries; ++j) {
        const int64_t row = rows.first_query + i * rows.stride;
        const int64_t column = columns.first_query + j * columns.stride;
        const int64_t pixel = (b * c.height + row) * c.width + column;
        std::memcpy(to, &queries[pixel * filters], filters * sizeof(float));
        to += filters;
      }
  WindowInputs inputs = data.MakeInputs(c);
  inputs.query = inputs.key = inputs.value = {};
  inputs.projection = {{image.data(), channels},
                       channels,
                       kernels[0].data(),
                       c.content ? kernels[1].data() : nullptr,
                       kernels[2].data()};
  Numbers outputs[3];
  for (int run = 0; run < 3; ++run) {
    const bool reverse = run == 1;
    if (run == 2) {
      inputs.projection.image = {halves.data(), channels, kBfloat16};
    }
    Numbers& output = outputs[run];
    output.assign(data.query.size(), NAN);
    auto forward = kWindow.forward(data.shape, inputs,
                                   {{output.data(), filters}, nullptr});
    const int64_t tasks = forward->count();
    for (int64_t i = 0; i < tasks; ++i) {
      forward->Run(reverse ? tasks - 1 - i : i);
    }
  }
  const Expected expected = Loops(c, data);
  Check("projected", number, outputs[0], expected.output);
  CheckSame(number, kOrder, outputs[0], outputs[1]);
  CheckSame(number, "an image of bfloat16 changes", outputs[0], outputs[2]);
  for (bool average : {false, true}) {
    if (average && c.dilation[0] > 1) continue;
    CheckEpilogue(number, data.shape, inputs, expected.output, average);
  }
}

// One pixel whose own logits are not finite; those of its block are.
void CheckNanInBlocks() {
  const keras_sasa::BlockShape shape = {1, 4, 8, 1, 4, 1, 2};
  Numbers image = Normal(32);
  for (float& number : image) number = -std::fabs(number);
  image[9] = 1e20f;
  const Numbers logit_kernels = {1e20f}, value_kernels = Normal(32);
  const Numbers scale(2, 1.0f), offset(2, 0.0f);
  Numbers output(64), pooled(4);
  for (float* to : {output.data(), pooled.data()}) {
    const bool is_pooled = to == pooled.data();
    const auto forward = kBlock.forward(
        shape, {image.data(), logit_kernels.data(), value_kernels.data()},
        {to, is_pooled ? scale.data() : nullptr, offset.data()});
    for (int64_t i = 0; i < forward->count(); ++i) forward->Run(i);
  }
  int found = 0;
  for (float number : output) found += std::isnan(number);
  if (found != 2 || !std::isnan(pooled[0]) || std::isnan(pooled[2])) {
    std::printf("%d NaN in blocks, pooled %g\n", found, pooled[0]);
    ++failures;
  }
}

// A NaN reaches the queries that see it and no others.
void CheckNan() {
  const Case c{1, 6, 7, 2, 4, {3, 5}};
  Data data(c);
  const int64_t filters = data.shape.filters();
  const int64_t row = 2, column = 6;
  data.value[(row * c.width + column) * (filters + 3) + 3] = NAN;
  const Result result = RunWindow(c, data, false);
  for (int64_t i = 0; i < c.height; ++i)
    for (int64_t j = 0; j < c.width; ++j)
      for (int64_t channel = 0; channel < filters; ++channel) {
        const bool sees =
            channel == 0 && std::abs(i - row) <= 1 && std::abs(j - column) <= 2;
        const bool found =
            std::isnan(result.output[(i * c.width + j) * filters + channel]);
        // Its logits' gradients are NaN, so those of the whole head are.
        const bool gradient =
            std::isnan(result.query[(i * c.width + j) * filters + channel]);
        const bool head =
            channel < 4 && std::abs(i - row) <= 1 && std::abs(j - column) <= 2;
        if (sees != found || head != gradient) {
          std::printf("NaN at the wrong place %d %d %d\n", int(i), int(j),
                      int(channel));
          ++failures;
          return;
        }
      }
}

struct BlockCase {
  int64_t batch, height, width, channels, size, heads, head_width;
};

// Attention within blocks: output, pooled output and gradients.
void CheckBlocks(size_t number, const BlockCase& c) {
  const keras_sasa::BlockShape shape = {
      c.batch, c.height, c.width, c.channels, c.size, c.heads, c.head_width};
  const int64_t filters = shape.filters(), channels = c.channels;
  const int64_t pixels = c.batch * c.height * c.width;
  const int64_t blocks = c.batch * shape.block_rows() * shape.block_columns();
  const Numbers image = Normal(pixels * channels);
  const Numbers logit_kernels = Normal(c.heads * channels * channels);
  const Numbers value_kernels = Normal(c.size * c.size * channels * filters);
  const Numbers upstream = Normal(pixels * filters);
  const Numbers scale = Normal(filters), offset = Normal(filters);
  const keras_sasa::BlockInputs inputs = {image.data(), logit_kernels.data(),
                                          value_kernels.data()};
  struct BlockResult {
    Numbers output, pooled, image, logit_kernels, value_kernels;
  } results[2];
  for (int reverse = 0; reverse < 2; ++reverse) {
    BlockResult& result = results[reverse];
    result = {Numbers(pixels * filters, NAN), Numbers(blocks * filters, NAN),
              Numbers(image.size(), NAN), Numbers(logit_kernels.size(), NAN),
              Numbers(value_kernels.size(), NAN)};
    const auto run_all = [reverse](const auto& call) {
      const int64_t tasks = call->count();
      for (int64_t i = 0; i < tasks; ++i) {
        call->Run(reverse ? tasks - 1 - i : i);
      }
    };
    run_all(kBlock.forward(shape, inputs,
                           {result.output.data(), nullptr, nullptr}));
    run_all(kBlock.forward(
        shape, inputs, {result.pooled.data(), scale.data(), offset.data()}));
    const auto backward =
        kBlock.backward(shape, inputs, upstream.data(),
                        {result.image.data(), result.logit_kernels.data(),
                         result.value_kernels.data()});
    run_all(backward);
    backward->Finish();
  }

  using Doubles = std::vector<double>;
  Doubles output(pixels * filters), image_gradient(image.size());
  Doubles logit_gradient(logit_kernels.size());
  Doubles value_gradient(value_kernels.size());
  Doubles pooled(blocks * filters, -std::numeric_limits<double>::infinity());
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t i = 0; i < c.height; ++i)
      for (int64_t j = 0; j < c.width; ++j)
        for (int64_t h = 0; h < c.heads; ++h) {
          const int64_t query = (b * c.height + i) * c.width + j;
          const float* x = image.data() + query * channels;
          const float* kernel = logit_kernels.data() + h * channels * channels;
          struct Key {
            int64_t pixel, place;
            double logit, weight, product;
          };
          std::vector<Key> block;
          double largest = -std::numeric_limits<double>::infinity();
          for (int64_t row = 0; row < c.size; ++row)
            for (int64_t column = 0; column < c.size; ++column) {
              const int64_t y = i / c.size * c.size + row;
              const int64_t z = j / c.size * c.size + column;
              if (y >= c.height || z >= c.width) continue;
              Key key{(b * c.height + y) * c.width + z, row * c.size + column,
                      0, 0, 0};
              for (int64_t m = 0; m < channels; ++m)
                for (int64_t n = 0; n < channels; ++n)
                  key.logit += static_cast<double>(x[m]) *
                               kernel[m * channels + n] *
                               image[key.pixel * channels + n];
              largest = std::fmax(largest, key.logit);
              block.push_back(key);
            }
          double sum = 0, mean = 0;
          for (Key& key : block) sum += std::exp(key.logit - largest);
          for (Key& key : block) {
            key.weight = std::exp(key.logit - largest) / sum;
            for (int64_t d = 0; d < c.head_width; ++d) {
              const int64_t filter = h * c.head_width + d;
              double value = 0;
              for (int64_t m = 0; m < channels; ++m) {
                const int64_t place =
                    (key.place * channels + m) * filters + filter;
                const double gradient =
                    key.weight * upstream[query * filters + filter];
                value += static_cast<double>(value_kernels[place]) *
                         image[key.pixel * channels + m];
                value_gradient[place] +=
                    gradient * image[key.pixel * channels + m];
                image_gradient[key.pixel * channels + m] +=
                    gradient * value_kernels[place];
              }
              output[query * filters + filter] += key.weight * value;
              key.product += value * upstream[query * filters + filter];
            }
            mean += key.weight * key.product;
          }
          for (const Key& key : block) {
            const double gradient = key.weight * (key.product - mean);
            const float* other = image.data() + key.pixel * channels;
            for (int64_t m = 0; m < channels; ++m)
              for (int64_t n = 0; n < channels; ++n) {
                const int64_t place = m * channels + n;
                logit_gradient[h * channels * channels + place] +=
                    gradient * x[m] * other[n];
                image_gradient[query * channels + m] +=
                    gradient * kernel[place] * other[n];
                image_gradient[key.pixel * channels + n] +=
                    gradient * kernel[place] * x[m];
              }
          }
          const int64_t pool =
              (b * shape.block_rows() + i / c.size) * shape.block_columns() +
              j / c.size;
          for (int64_t d = 0; d < c.head_width; ++d) {
            const int64_t filter = h * c.head_width + d;
            double& to = pooled[pool * filters + filter];
            to =
                std::fmax(to, scale[filter] * output[query * filters + filter] +
                                  offset[filter]);
          }
        }
  const BlockResult& result = results[0];
  const double terms = std::sqrt(static_cast<double>(pixels));
  Check("block output", number, result.output, output);
  Check("pooled", number, result.pooled, pooled);
  Check("image", number, result.image, image_gradient);
  Check("logit_kernels", number, result.logit_kernels, logit_gradient, terms);
  Check("value_kernels", number, result.value_kernels, value_gradient, terms);
  CheckSame(number, kOrder, result.output, results[1].output);
  CheckSame(number, kOrder, result.pooled, results[1].pooled);
  CheckSame(number, kOrder, result.image, results[1].image);
  CheckSame(number, kOrder, result.logit_kernels, results[1].logit_kernels);
  CheckSame(number, kOrder, result.value_kernels, results[1].value_kernels);
}

// Numbers around `level`, whose mean would cancel without care.
void CheckRows(size_t number, int64_t rows, int64_t channels, float level) {
  Numbers inputs = Normal(rows * channels);
  for (float& value : inputs) value = value / 8 + level;
  const Numbers scale = Normal(channels), offset = Normal(channels);
  Numbers results[2];
  for (bool reverse : {false, true}) {
    results[reverse].assign(inputs.size(), NAN);
    const auto tasks =
        kRows.normalize({rows, channels, inputs.data(), scale.data(),
                         offset.data(), 1e-3f, results[reverse].data()});
    for (int64_t i = 0; i < tasks->count(); ++i) {
      tasks->Run(reverse ? tasks->count() - 1 - i : i);
    }
  }
  CheckSame(number, kOrder, results[0], results[1]);
  std::vector<double> expected;
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = inputs.data() + row * channels;
    double mean = 0, variance = 0;
    for (int64_t c = 0; c < channels; ++c) mean += from[c];
    mean /= channels;
    for (int64_t c = 0; c < channels; ++c) {
      variance += (from[c] - mean) * (from[c] - mean);
    }
    const double factor = 1 / std::sqrt(variance / channels + 1e-3f);
    for (int64_t c = 0; c < channels; ++c) {
      expected.push_back((from[c] - mean) * factor * scale[c] + offset[c]);
    }
  }
  Check("normalized rows", number, results[0], expected);
}

int64_t Pick(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(generator);
}

}  // namespace

int main() {
  std::vector<Case> cases = {
      {2, 5, 6, 2, 4},
      {1, 1, 1, 1, 2, {1, 1}},
      {1, 1, 1, 1, 2, {7, 7}},
      {1, 7, 7, 8, 8, {7, 7}},
      {8, 7, 7, 8, 2, {7, 7}},
      {2, 14, 14, 4, 16, {7, 7}},
      {1, 20, 28, 2, 8, {7, 7}},
      {1, 9, 33, 1, 24, {5, 3}},
      {1, 33, 3, 3, 6, {3, 5}},
      {1, 4, 5, 2, 12, {15, 15}},
      {1, 17, 18, 1, 4, {1, 9}},
      {2, 9, 10, 2, 4, {3, 3}, {2, 2}},
      {1, 11, 8, 2, 4, {5, 5}, {2, 3}},
      {1, 11, 13, 2, 4, {3, 3}, {5, 4}},
      {1, 12, 13, 2, 10, {3, 3}, {1, 2}},
      {1, 11, 12, 2, 4, {3, 3}, {1, 1}, {2, 3}},
      {2, 7, 9, 2, 4, {3, 3}, {1, 1}, {2, 2}},
      {1, 7, 5, 2, 4, {5, 5}, {1, 1}, {4, 4}},
      {1, 9, 9, 2, 4, {3, 5}, {1, 1}, {1, 1}, true},
      {1, 11, 12, 2, 4, {3, 5}, {2, 2}, {1, 1}, true},
      {1, 13, 12, 2, 4, {3, 3}, {1, 1}, {3, 2}, true},
      {2, 6, 7, 2, 4, {3, 3}, {1, 1}, {1, 1}, false, false, true},
      {2, 6, 7, 2, 4, {3, 3}, {1, 1}, {1, 1}, false, true, false},
      {2, 6, 7, 2, 4, {3, 3}, {1, 1}, {1, 1}, false, false, false},
      {2, 6, 7, 3, 3, {3, 3}, {1, 1}, {1, 1}, false, false, true},
      {1, 6, 7, 5, 1, {3, 3}, {1, 1}, {1, 1}, false, false, true},
      {0, 6, 7, 2, 4},
      {1, 2, 2, 1, 2, {3, 3}, {1, 1}, {1, 1}, true},
  };
  // Windows that shift, as in the levels of a network and at other sizes.
  Case shifting[] = {
      {1, 7, 7, 4, 32, {7, 7}},
      {1, 14, 14, 2, 32, {7, 7}},
      {1, 9, 28, 4, 8, {7, 7}},
      {1, 8, 56, 2, 8, {7, 7}},
      {1, 21, 22, 2, 4, {7, 7}, {1, 1}, {3, 2}},
      {2, 12, 13, 1, 6, {11, 11}},
      {1, 13, 80, 1, 4, {13, 3}},
      {2, 3, 5, 2, 3, {3, 5}},
      {1, 6, 4, 2, 4, {1, 1}},
      {0, 6, 7, 2, 4},
  };
  for (Case& c : shifting) {
    c.relative = false;
    c.shifts = c.biased = true;
    c.scale = 0.7f;
    cases.push_back(c);
  }
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    CheckCase(i, c);
    for (int64_t channels : {1, 5, 8, 70, 600}) CheckProjected(i, c, channels);
  }
  // And whatever comes.
  for (size_t i = 0; i < 150; ++i) {
    Case c{Pick(1, 3), Pick(1, 12), Pick(1, 20), Pick(1, 4), 2 * Pick(1, 9)};
    for (int a = 0; a < 2; ++a) {
      c.kernel[a] = 2 * Pick(0, 4) + 1;
      if (i % 3 == 1) c.stride[a] = Pick(1, 4);
      if (i % 3 == 2) c.dilation[a] = Pick(1, 3);
    }
    c.valid = Pick(0, 3) == 0;
    c.content = Pick(0, 4) > 0;
    c.relative = Pick(0, 4) > 0;
    CheckCase(1000 + i, c);
    CheckProjected(1000 + i, c, Pick(1, 40));
  }
  for (size_t i = 0; i < 60; ++i) {
    Case c{Pick(1, 2), 0, 0, Pick(1, 4), Pick(1, 9)};
    c.shifts = Pick(0, 4) > 0;
    c.biased = Pick(0, 4) > 0;
    c.scale = Pick(-2, 4) / 4.0f;
    c.relative = false;
    for (int a = 0; a < 2; ++a) {
      c.kernel[a] = 2 * Pick(0, 4) + 1;
      if (c.shifts) c.dilation[a] = Pick(1, 3);
      if (!c.shifts && i % 2 == 0) c.stride[a] = Pick(1, 3);
    }
    c.height = c.kernel[0] * c.dilation[0] + Pick(0, 5);
    c.width = c.kernel[1] * c.dilation[1] + Pick(0, 20);
    CheckCase(1200 + i, c);
    CheckProjected(1200 + i, c, Pick(1, 40));
  }
  const std::vector<BlockCase> block_cases = {
      {2, 8, 32, 3, 4, 4, 16}, {1, 1, 1, 1, 1, 1, 1},   {1, 5, 7, 3, 4, 2, 4},
      {1, 2, 3, 3, 4, 2, 4},   {3, 21, 70, 3, 4, 1, 9}, {1, 11, 40, 2, 5, 2, 3},
      {0, 8, 8, 3, 4, 2, 4},   {2, 8, 0, 3, 4, 2, 4},   {70, 4, 4, 1, 2, 1, 8},
      {1, 9, 6, 7, 3, 2, 10},
  };
  for (size_t i = 0; i < block_cases.size(); ++i) {
    CheckBlocks(2000 + i, block_cases[i]);
  }
  for (size_t i = 0; i < 60; ++i) {
    CheckBlocks(3000 + i, {Pick(1, 3), Pick(1, 14), Pick(1, 50), Pick(1, 5),
                           Pick(1, 6), Pick(1, 4), Pick(1, 18)});
  }
  size_t rows_number = 4000;
  for (int64_t channels : {1, 3, 16, 50, 64, 512}) {
    for (int64_t rows : {0, 1, 7, 8, 30}) {
      CheckRows(rows_number++, rows, channels, rows == 7 ? 1000 : 1);
    }
  }
  CheckRows(rows_number, 1500, 96, 0);  // In several tasks.
  failures += CheckExponentials();
  CheckRounding();
  CheckNan();
  CheckNanInBlocks();
  std::printf("%d failures\n", failures);
  return failures != 0;
}
