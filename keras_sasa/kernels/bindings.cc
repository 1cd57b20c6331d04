// The mathematics of local_attention.h and block_attention.h as custom calls of
// XLA (typed FFI).
//
// Within windows. Maps come as "sources": tensors (batch, height, width,
// channels) that hold queries, keys or values, or several of them side by side,
// as one matrix product leaves them. `places` names source and first channel of
// each of the three; the source -1 means that there is none.
//
//   forward:  sources, [row_embedding, column_embedding]
//             -> output, [log_sum_exp]
//   backward: sources, [row_embedding, column_embedding], output_gradient,
//             log_sum_exp
//             -> gradients of sources, [of row_embedding, column_embedding]
//   projected: image, query_kernel, [key_kernel], value_kernel,
//             [row_embedding, column_embedding]
//             -> output
//
// The third makes queries, keys and values itself, by matrices (channels,
// filters), for a query at every pixel of the image.
//
// Within blocks, with operands as in block_attention.h:
//
//   block_forward:  image, logit_kernels, value_kernels -> output
//   block_pooled:   image, logit_kernels, value_kernels, scale, offset
//             -> the largest scale * output + offset of every block
//   block_backward: image, logit_kernels, value_kernels, output_gradient
//             -> gradients of the first three
//
// Operands after these are ignored: XLA passes shapes of results there.

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block_attention.h"
#include "local_attention.h"
#include "xla/ffi/api/ffi.h"

namespace keras_sasa {

// One for each instruction set that setup.py compiles; it defines which ones the
// compiler was able to.
namespace baseline {
extern const Level level;
extern const BlockLevel block_level;
}  // namespace baseline
#if defined(KERAS_SASA_HAS_X86_64_V3)
namespace x86_64_v3 {
extern const Level level;
extern const BlockLevel block_level;
}  // namespace x86_64_v3
#endif
#if defined(KERAS_SASA_HAS_X86_64_V4)
namespace x86_64_v4 {
extern const Level level;
extern const BlockLevel block_level;
}  // namespace x86_64_v4
#endif

namespace {

namespace ffi = xla::ffi;

// How long a call waits for the threads of the pool before it helps them.
constexpr std::chrono::microseconds kPatience{300};

// What this processor can run.
struct Best {
  const Level* windows = &baseline::level;
  const BlockLevel* blocks = &baseline::block_level;

  Best() {
#if defined(KERAS_SASA_HAS_X86_64_V3)
    if (runs_v3()) {
      windows = &x86_64_v3::level;
      blocks = &x86_64_v3::block_level;
    }
#endif
#if defined(KERAS_SASA_HAS_X86_64_V4)
    if (runs_v4()) {
      windows = &x86_64_v4::level;
      blocks = &x86_64_v4::block_level;
    }
#endif
  }

#if defined(__x86_64__)
  static bool runs_v3() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
  }
  static bool runs_v4() {
    return runs_v3() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") &&
           __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
  }
#endif
};

const Best& best() {
  static const Best result;
  return result;
}

// Runs `work(0)` ... `work(count - 1)` on the threads of the pool.
//
// This thread gives its processor to them. Did it take part at once, the
// threads it wakes would wait for a processor behind it, often for longer than
// the work takes. But it does take part if they do not come soon: all threads
// of the pool may be waiting as this one, which may be one of them. So it waits
// only for work that has begun.
template <typename Work>
void parallel_for(ffi::ThreadPool& pool, int64_t count, const Work& work) {
  struct State {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    int64_t started = 0;
    std::mutex mutex;
    std::condition_variable changed;
  };
  const int64_t threads = std::min<int64_t>(pool.num_threads(), count);
  if (threads < 2) {
    for (int64_t i = 0; i < count; ++i) work(i);
    return;
  }
  auto state = std::make_shared<State>();
  // `work` is used only for numbers below `count`, before this call ends.
  auto take = [state, count, &work] {
    int64_t done = 0;
    for (int64_t i; (i = state->next.fetch_add(1)) < count; ++done) work(i);
    std::lock_guard<std::mutex> lock(state->mutex);
    state->done += done;
    if (state->done == count) state->changed.notify_all();
  };
  for (int64_t i = 0; i < threads; ++i) {
    pool.Schedule([state, take, threads] {
      {
        std::lock_guard<std::mutex> lock(state->mutex);
        if (++state->started == threads) state->changed.notify_all();
      }
      take();
    });
  }
  std::unique_lock<std::mutex> lock(state->mutex);
  const bool all = state->changed.wait_for(lock, kPatience, [&] {
    return state->started == threads || state->done == count;
  });
  if (!all) {
    lock.unlock();
    take();
    lock.lock();
  }
  state->changed.wait(lock, [&] { return state->done == count; });
}

// Operands and results of a call, checked for their shapes.
class Buffers {
 public:
  Buffers(const ffi::RemainingArgs& arguments,
          const ffi::RemainingRets& results)
      : arguments_(arguments), results_(results) {}

  // Next operand, of the shape `expected`.
  ffi::Error next(const std::vector<int64_t>& expected, const char* name,
                  const float** result) {
    if (ffi::Error error = need(next_, expected, name); error.failure())
      return error;
    *result = data(next_++);
    return ffi::Error::Success();
  }

  // Result `number`, of the shape `expected`.
  ffi::Error result(size_t number, const std::vector<int64_t>& expected,
                    const char* name, float** data) const {
    auto buffer = results_.get<ffi::AnyBuffer>(number);
    if (!buffer.has_value() ||
        (*buffer)->element_type() != ffi::DataType::F32 ||
        dimensions(**buffer) != expected) {
      return invalid(std::string(name) + " must be a float32 result of shape " +
                     text(expected));
    }
    *data = static_cast<float*>((*buffer)->untyped_data());
    return ffi::Error::Success();
  }

  std::vector<int64_t> argument_shape(int64_t number) const {
    return dimensions(argument(number));
  }
  size_t results() const { return results_.size(); }

  static ffi::Error invalid(const std::string& message) {
    return ffi::Error(ffi::ErrorCode::kInvalidArgument,
                      "keras_sasa kernel: " + message + ".");
  }

 protected:
  ffi::AnyBuffer argument(int64_t number) const {
    return *arguments_.get<ffi::AnyBuffer>(number);
  }
  const float* data(int64_t number) const {
    return static_cast<const float*>(argument(number).untyped_data());
  }
  static std::vector<int64_t> dimensions(const ffi::AnyBuffer& buffer) {
    return {buffer.dimensions().begin(), buffer.dimensions().end()};
  }
  static std::string text(const std::vector<int64_t>& sizes) {
    std::string result = "(";
    for (size_t i = 0; i < sizes.size(); ++i) {
      result += (i > 0 ? ", " : "") + std::to_string(sizes[i]);
    }
    return result + ")";
  }

  ffi::Error need(int64_t number, size_t rank, const char* name) const {
    if (number >= static_cast<int64_t>(arguments_.size())) {
      return invalid(std::string("an operand is missing: ") + name);
    }
    auto buffer = arguments_.get<ffi::AnyBuffer>(number);
    if (!buffer.has_value() || buffer->element_type() != ffi::DataType::F32 ||
        buffer->dimensions().size() != rank) {
      return invalid(std::string(name) + " must be float32 of rank " +
                     std::to_string(rank));
    }
    return ffi::Error::Success();
  }
  ffi::Error need(int64_t number, const std::vector<int64_t>& expected,
                  const char* name) const {
    if (ffi::Error error = need(number, expected.size(), name); error.failure())
      return error;
    if (dimensions(argument(number)) != expected) {
      return invalid(std::string(name) + " has the shape " +
                     text(dimensions(argument(number))) + " and not " +
                     text(expected));
    }
    return ffi::Error::Success();
  }

  const ffi::RemainingArgs& arguments_;
  const ffi::RemainingRets& results_;
  int64_t next_ = 0;
};

// What calls within windows have in common: reads operands and checks that they
// fit.
class WindowCall : public Buffers {
 public:
  using Buffers::Buffers;

  struct Attributes {
    int64_t sources, filters, num_heads, relative;
    ffi::Span<const int64_t> places, kernel_size, strides, dilation_rate;
    std::string_view padding;
  };

  ffi::Error read(const Attributes& attributes) {
    attributes_ = attributes;
    if (ffi::Error error = check_window(); error.failure()) return error;
    if (attributes.sources < 1 || attributes.places.size() != 6) {
      return invalid("`sources` or `places` is wrong");
    }
    if (ffi::Error error = check_heads(); error.failure()) return error;
    const int64_t filters = attributes.filters;
    for (int64_t i = 0; i < attributes.sources; ++i) {
      if (ffi::Error error = need(i, 4, "source"); error.failure())
        return error;
    }
    std::array<std::vector<int64_t>, 3> sizes;
    const char* names[] = {"query", "key", "value"};
    for (int i = 0; i < 3; ++i) {
      const int64_t source = attributes.places[2 * i];
      const int64_t channel = attributes.places[2 * i + 1];
      if (source == -1 && i == 1) continue;
      if (source < 0 || source >= attributes.sources || channel < 0) {
        return invalid(std::string("no such source for ") + names[i]);
      }
      sizes[i] = dimensions(argument(source));
      if (channel > sizes[i][3] - filters) {
        return invalid(std::string(names[i]) +
                       " has fewer channels than `filters`");
      }
    }
    // The gradients of two maps must not be written to one place.
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < i; ++j) {
        const int64_t distance =
            attributes.places[2 * i + 1] - attributes.places[2 * j + 1];
        if (attributes.places[2 * i] == attributes.places[2 * j] &&
            distance < filters && -distance < filters) {
          return invalid("query, key and value overlap in a source");
        }
      }
    }
    const std::vector<int64_t>&query = sizes[0], &key = sizes[1],
          &value = sizes[2];
    if (!key.empty() &&
        !std::equal(key.begin(), key.begin() + 3, value.begin())) {
      return invalid("key and value differ in batch, height or width");
    }
    if (query[0] != value[0]) return invalid("query and value differ in batch");
    shape = {query[0], axis(0, value[1]), axis(1, value[2]),
             attributes.num_heads, filters / attributes.num_heads};
    if (shape.rows.queries != query[1] || shape.columns.queries != query[2]) {
      return invalid("query does not have the height and width of the output");
    }
    inputs.query = place(0);
    if (attributes.places[2] >= 0) inputs.key = place(2);
    inputs.value = place(4);
    next_ = attributes.sources;
    return read_embeddings();
  }

  // The same for a call that projects.
  ffi::Error read_projected(const Attributes& attributes, bool content) {
    attributes_ = attributes;
    if (ffi::Error error = check_window(); error.failure()) return error;
    if (ffi::Error error = check_heads(); error.failure()) return error;
    if (ffi::Error error = need(0, 4, "image"); error.failure()) return error;
    const std::vector<int64_t> image = dimensions(argument(0));
    if (image[3] == 0) return invalid("the image has no channels");
    shape = {image[0], axis(0, image[1]), axis(1, image[2]),
             attributes.num_heads, attributes.filters / attributes.num_heads};
    const std::vector<int64_t> expected = {image[3], attributes.filters};
    Projection& projection = inputs.projection;
    projection.image = {data(0), image[3]};
    projection.channels = image[3];
    next_ = 1;
    if (ffi::Error error =
            next(expected, "query_kernel", &projection.query_kernel);
        error.failure())
      return error;
    if (content) {
      if (ffi::Error error =
              next(expected, "key_kernel", &projection.key_kernel);
          error.failure())
        return error;
    }
    if (ffi::Error error =
            next(expected, "value_kernel", &projection.value_kernel);
        error.failure())
      return error;
    return read_embeddings();
  }

  std::vector<int64_t> output_shape() const {
    return {shape.batch, shape.rows.queries, shape.columns.queries,
            shape.filters()};
  }
  std::vector<int64_t> log_sum_exp_shape() const {
    return {shape.batch, shape.heads, shape.rows.queries,
            shape.columns.queries};
  }
  const Attributes& attributes() const { return attributes_; }

  Shape shape{};
  Inputs inputs{};

 private:
  ffi::Error check_window() const {
    const Attributes& attributes = attributes_;
    const auto pair = [](const char* name, ffi::Span<const int64_t> values) {
      return values.size() == 2 && values[0] >= 1 && values[1] >= 1
                 ? ""
                 : std::string("`") + name + "` must be two positive integers";
    };
    for (const std::string& message :
         {pair("kernel_size", attributes.kernel_size),
          pair("strides", attributes.strides),
          pair("dilation_rate", attributes.dilation_rate)}) {
      if (!message.empty()) return invalid(message);
    }
    if (attributes.kernel_size[0] % 2 == 0 ||
        attributes.kernel_size[1] % 2 == 0) {
      return invalid("`kernel_size` must be odd");
    }
    const int64_t limit = int64_t{1} << 24;
    for (int i = 0; i < 2; ++i) {
      if (attributes.strides[i] > 1 && (attributes.dilation_rate[0] > 1 ||
                                        attributes.dilation_rate[1] > 1)) {
        return invalid("`strides` and `dilation_rate` cannot be combined");
      }
      if (attributes.kernel_size[i] > limit || attributes.strides[i] > limit ||
          attributes.dilation_rate[i] > limit) {
        return invalid("the window is too large");
      }
    }
    if (attributes.padding != "same" && attributes.padding != "valid") {
      return invalid("`padding` must be \"same\" or \"valid\"");
    }
    return ffi::Error::Success();
  }

  ffi::Error check_heads() const {
    const Attributes& attributes = attributes_;
    const int64_t heads = attributes.num_heads;
    const int64_t filters = attributes.filters;
    if (heads < 1 || filters < 1 || filters % heads != 0 ||
        (attributes.relative && filters / heads % 2 != 0)) {
      return invalid(
          "`filters` must be a positive multiple of `num_heads`, an even one "
          "with relative positions");
    }
    return ffi::Error::Success();
  }

  ffi::Error read_embeddings() {
    const Attributes& attributes = attributes_;
    const int64_t heads = attributes.num_heads;
    if (attributes.relative) {
      const float* embeddings[2];
      for (int i = 0; i < 2; ++i) {
        const std::vector<int64_t> expected = {attributes.kernel_size[i], heads,
                                               attributes.filters / heads / 2};
        if (ffi::Error error = need(next_, expected, "embedding");
            error.failure())
          return error;
        embeddings[i] = data(next_++);
      }
      inputs.row_embedding = embeddings[0];
      inputs.column_embedding = embeddings[1];
    }
    return ffi::Error::Success();
  }

  Axis axis(int number, int64_t size) const {
    Axis result{};
    result.keys = size;
    result.kernel = attributes_.kernel_size[number];
    result.stride = attributes_.strides[number];
    result.dilation = attributes_.dilation_rate[number];
    result.first_query = attributes_.padding == "valid"
                             ? result.dilation * (result.kernel / 2)
                             : 0;
    const int64_t span = size - 2 * result.first_query;
    result.queries = span <= 0 ? 0 : (span + result.stride - 1) / result.stride;
    return result;
  }

  Map<const float> place(int number) const {
    const int64_t source = attributes_.places[number];
    return {data(source) + attributes_.places[number + 1],
            dimensions(argument(source))[3]};
  }

  Attributes attributes_{};
};

// Makes tasks and runs them. Memory that runs out is an error of the call, not
// of the process.
template <typename Make>
ffi::Error run_tasks(ffi::ThreadPool& pool, const Make& make) {
  try {
    const std::unique_ptr<Tasks> tasks = make();
    std::atomic<bool> failed{false};
    parallel_for(pool, tasks->tasks(), [&](int64_t task) {
      try {
        tasks->run(task);
      } catch (const std::bad_alloc&) {
        failed = true;
      }
    });
    if (!failed) {
      tasks->finish();
      return ffi::Error::Success();
    }
  } catch (const std::bad_alloc&) {
  }
  return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                    "keras_sasa kernel: out of memory.");
}

// The forward pass of what a call has read, to its results.
ffi::Error attend(ffi::ThreadPool& pool, const WindowCall& call) {
  Outputs outputs{};
  outputs.output.pixel_stride = call.shape.filters();
  if (ffi::Error error =
          call.result(0, call.output_shape(), "output", &outputs.output.data);
      error.failure())
    return error;
  if (call.results() > 1) {
    if (ffi::Error error = call.result(1, call.log_sum_exp_shape(),
                                       "log_sum_exp", &outputs.log_sum_exp);
        error.failure())
      return error;
  }
  if (call.shape.batch == 0 || call.shape.rows.queries == 0 ||
      call.shape.columns.queries == 0) {
    return ffi::Error::Success();
  }
  return run_tasks(pool, [&] {
    return best().windows->forward(call.shape, call.inputs, outputs);
  });
}

ffi::Error forward(ffi::ThreadPool pool, ffi::RemainingArgs arguments,
                   ffi::RemainingRets results, int64_t sources,
                   ffi::Span<const int64_t> places, int64_t filters,
                   int64_t num_heads, ffi::Span<const int64_t> kernel_size,
                   ffi::Span<const int64_t> strides,
                   ffi::Span<const int64_t> dilation_rate,
                   std::string_view padding, int64_t relative) {
  WindowCall call(arguments, results);
  if (ffi::Error error =
          call.read({sources, filters, num_heads, relative, places, kernel_size,
                     strides, dilation_rate, padding});
      error.failure())
    return error;
  return attend(pool, call);
}

ffi::Error projected(ffi::ThreadPool pool, ffi::RemainingArgs arguments,
                     ffi::RemainingRets results, int64_t filters,
                     int64_t num_heads, ffi::Span<const int64_t> kernel_size,
                     ffi::Span<const int64_t> dilation_rate, int64_t content,
                     int64_t relative) {
  WindowCall call(arguments, results);
  const int64_t once[] = {1, 1};
  if (ffi::Error error = call.read_projected({0,
                                              filters,
                                              num_heads,
                                              relative,
                                              {},
                                              kernel_size,
                                              ffi::Span<const int64_t>(once, 2),
                                              dilation_rate,
                                              "same"},
                                             content != 0);
      error.failure())
    return error;
  return attend(pool, call);
}

ffi::Error backward(ffi::ThreadPool pool, ffi::RemainingArgs arguments,
                    ffi::RemainingRets results, int64_t sources,
                    ffi::Span<const int64_t> places, int64_t filters,
                    int64_t num_heads, ffi::Span<const int64_t> kernel_size,
                    ffi::Span<const int64_t> strides,
                    ffi::Span<const int64_t> dilation_rate,
                    std::string_view padding, int64_t relative) {
  WindowCall call(arguments, results);
  if (ffi::Error error =
          call.read({sources, filters, num_heads, relative, places, kernel_size,
                     strides, dilation_rate, padding});
      error.failure())
    return error;
  Upstream upstream{};
  upstream.output_gradient.pixel_stride = filters;
  if (ffi::Error error = call.next(call.output_shape(), "output_gradient",
                                   &upstream.output_gradient.data);
      error.failure())
    return error;
  if (ffi::Error error = call.next(call.log_sum_exp_shape(), "log_sum_exp",
                                   &upstream.log_sum_exp);
      error.failure())
    return error;

  Gradients gradients{};
  Map<float>* maps[] = {&gradients.query, &gradients.key, &gradients.value};
  for (int64_t i = 0; i < sources; ++i) {
    const std::vector<int64_t> expected = call.argument_shape(i);
    float* data = nullptr;
    if (ffi::Error error =
            call.result(i, expected, "gradient of a source", &data);
        error.failure())
      return error;
    int64_t channels = 0;
    for (int map = 0; map < 3; ++map) {
      if (places[2 * map] != i) continue;
      *maps[map] = {data + places[2 * map + 1], expected[3]};
      channels += filters;
    }
    // Channels that nothing reads, and maps that no window covers.
    const int64_t size = expected[0] * expected[1] * expected[2] * expected[3];
    if (size > 0 && (channels != expected[3] || call.shape.rows.queries == 0 ||
                     call.shape.columns.queries == 0)) {
      std::memset(data, 0, size * sizeof(float));
    }
  }
  if (relative) {
    float** embeddings[] = {&gradients.row_embedding,
                            &gradients.column_embedding};
    for (int i = 0; i < 2; ++i) {
      const std::vector<int64_t> expected = call.argument_shape(sources + i);
      if (ffi::Error error = call.result(
              sources + i, expected, "gradient of an embedding", embeddings[i]);
          error.failure())
        return error;
      const int64_t size = expected[0] * expected[1] * expected[2];
      if (size > 0) std::memset(*embeddings[i], 0, size * sizeof(float));
    }
  }
  if (call.shape.batch == 0 || call.shape.rows.queries == 0 ||
      call.shape.columns.queries == 0) {
    return ffi::Error::Success();
  }
  return run_tasks(pool, [&] {
    return best().windows->backward(call.shape, call.inputs, upstream,
                                    gradients);
  });
}

// What calls within blocks have in common.
class BlockCall : public Buffers {
 public:
  using Buffers::Buffers;

  ffi::Error read(int64_t num_heads, int64_t block_size) {
    if (ffi::Error error = need(0, 4, "image"); error.failure()) return error;
    if (ffi::Error error = need(2, 3, "value_kernels"); error.failure())
      return error;
    const std::vector<int64_t> image = dimensions(argument(0));
    const int64_t filters = dimensions(argument(2))[2];
    if (image[3] == 0) return invalid("the image has no channels");
    if (num_heads < 1 || filters < 1 || filters % num_heads != 0) {
      return invalid("`filters` must be a positive multiple of `num_heads`");
    }
    if (block_size < 1 || block_size > int64_t{1} << 15) {
      return invalid("`block_size` must be from 1 to 32768");
    }
    shape = {image[0],   image[1],  image[2],           image[3],
             block_size, num_heads, filters / num_heads};
    if (ffi::Error error = next(image, "image", &inputs.image); error.failure())
      return error;
    if (ffi::Error error = next({num_heads, image[3], image[3]},
                                "logit_kernels", &inputs.logit_kernels);
        error.failure())
      return error;
    return next({block_size * block_size, image[3], filters}, "value_kernels",
                &inputs.value_kernels);
  }

  std::vector<int64_t> map_shape() const {
    return {shape.batch, shape.height, shape.width, shape.filters()};
  }
  std::vector<int64_t> pooled_shape() const {
    return {shape.batch, shape.block_rows(), shape.block_columns(),
            shape.filters()};
  }

  BlockShape shape{};
  BlockInputs inputs{};
};

ffi::Error attend_in_blocks(ffi::ThreadPool& pool,
                            const ffi::RemainingArgs& arguments,
                            const ffi::RemainingRets& results,
                            int64_t num_heads, int64_t block_size,
                            bool pooled) {
  BlockCall call(arguments, results);
  if (ffi::Error error = call.read(num_heads, block_size); error.failure())
    return error;
  BlockOutputs outputs{};
  if (pooled) {
    const std::vector<int64_t> filters = {call.shape.filters()};
    if (ffi::Error error = call.next(filters, "scale", &outputs.scale);
        error.failure())
      return error;
    if (ffi::Error error = call.next(filters, "offset", &outputs.offset);
        error.failure())
      return error;
  }
  if (ffi::Error error =
          call.result(0, pooled ? call.pooled_shape() : call.map_shape(),
                      "output", &outputs.output);
      error.failure())
    return error;
  return run_tasks(pool, [&] {
    return best().blocks->forward(call.shape, call.inputs, outputs);
  });
}

ffi::Error block_forward(ffi::ThreadPool pool, ffi::RemainingArgs arguments,
                         ffi::RemainingRets results, int64_t num_heads,
                         int64_t block_size) {
  return attend_in_blocks(pool, arguments, results, num_heads, block_size,
                          false);
}

ffi::Error block_pooled(ffi::ThreadPool pool, ffi::RemainingArgs arguments,
                        ffi::RemainingRets results, int64_t num_heads,
                        int64_t block_size) {
  return attend_in_blocks(pool, arguments, results, num_heads, block_size,
                          true);
}

ffi::Error block_backward(ffi::ThreadPool pool, ffi::RemainingArgs arguments,
                          ffi::RemainingRets results, int64_t num_heads,
                          int64_t block_size) {
  BlockCall call(arguments, results);
  if (ffi::Error error = call.read(num_heads, block_size); error.failure())
    return error;
  const float* output_gradient = nullptr;
  if (ffi::Error error =
          call.next(call.map_shape(), "output_gradient", &output_gradient);
      error.failure())
    return error;
  BlockGradients gradients{};
  float** places[] = {&gradients.image, &gradients.logit_kernels,
                      &gradients.value_kernels};
  for (int i = 0; i < 3; ++i) {
    if (ffi::Error error = call.result(i, call.argument_shape(i),
                                       "gradient of an operand", places[i]);
        error.failure())
      return error;
  }
  return run_tasks(pool, [&] {
    return best().blocks->backward(call.shape, call.inputs, output_gradient,
                                   gradients);
  });
}

template <typename Function>
auto binding(Function) {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .RemainingArgs()
      .RemainingRets()
      .Attr<int64_t>("sources")
      .Attr<ffi::Span<const int64_t>>("places")
      .Attr<int64_t>("filters")
      .Attr<int64_t>("num_heads")
      .Attr<ffi::Span<const int64_t>>("kernel_size")
      .Attr<ffi::Span<const int64_t>>("strides")
      .Attr<ffi::Span<const int64_t>>("dilation_rate")
      .Attr<std::string_view>("padding")
      .Attr<int64_t>("relative");
}

auto projected_binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .RemainingArgs()
      .RemainingRets()
      .Attr<int64_t>("filters")
      .Attr<int64_t>("num_heads")
      .Attr<ffi::Span<const int64_t>>("kernel_size")
      .Attr<ffi::Span<const int64_t>>("dilation_rate")
      .Attr<int64_t>("content")
      .Attr<int64_t>("relative");
}

auto block_binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .RemainingArgs()
      .RemainingRets()
      .Attr<int64_t>("num_heads")
      .Attr<int64_t>("block_size");
}

}  // namespace

// JAX looks these up; nothing else but the functions below is visible.
#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_sasa_forward, forward, binding(forward));
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_sasa_backward, backward, binding(backward));
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_sasa_projected, projected,
                              projected_binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_sasa_block_forward, block_forward,
                              block_binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_sasa_block_pooled, block_pooled,
                              block_binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_sasa_block_backward, block_backward,
                              block_binding());
#pragma GCC visibility pop

}  // namespace keras_sasa

// Registers all calls with the XLA that `api` belongs to. Returns null or what
// went wrong, which stays valid.
extern "C" __attribute__((visibility("default"))) const char*
keras_sasa_register(const XLA_FFI_Api* api) {
  static std::string message;
  const std::pair<const char*, XLA_FFI_Handler*> handlers[] = {
      {"keras_sasa_forward", keras_sasa::keras_sasa_forward},
      {"keras_sasa_backward", keras_sasa::keras_sasa_backward},
      {"keras_sasa_projected", keras_sasa::keras_sasa_projected},
      {"keras_sasa_block_forward", keras_sasa::keras_sasa_block_forward},
      {"keras_sasa_block_pooled", keras_sasa::keras_sasa_block_pooled},
      {"keras_sasa_block_backward", keras_sasa::keras_sasa_block_backward}};
  for (const auto& [name, handler] : handlers) {
    XLA_FFI_Error* error =
        xla::ffi::Ffi::RegisterStaticHandler(api, name, "Host", handler);
    if (error == nullptr) continue;
    XLA_FFI_Error_GetMessage_Args arguments{};
    arguments.struct_size = XLA_FFI_Error_GetMessage_Args_STRUCT_SIZE;
    arguments.error = error;
    api->XLA_FFI_Error_GetMessage(&arguments);
    message = arguments.message;
    XLA_FFI_Error_Destroy_Args destroy{};
    destroy.struct_size = XLA_FFI_Error_Destroy_Args_STRUCT_SIZE;
    destroy.error = error;
    api->XLA_FFI_Error_Destroy(&destroy);
    return message.c_str();
  }
  return nullptr;
}
