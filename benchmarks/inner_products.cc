// Times the inner products of the kernel alone, in one thread, with operands
// that stay in the caches. `cycles` are the clock cycles of a multiply-add of
// vectors, and `limit` is what the processor needs at least. Both are measured:
// see `ClockRate` and `CyclesOfMultiplyAdd`. FLOPS is the rate of products and
// sums. It needs google-benchmark (libbenchmark-dev on Debian). From the root
// of the repository:
//
//   mkdir -p build
//   g++ -std=c++17 -O3 -march=native -fno-math-errno -fno-trapping-math \
//     -I. benchmarks/inner_products.cc keras_sasa/kernels/base/*.cc \
//     keras_sasa/kernels/window/*.cc -lbenchmark -pthread \
//     -o build/inner_products
//   build/inner_products
//
// Other values of -march measure the other instruction sets.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <random>
#include <vector>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/exponentials.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/block/lane_matrices.h"
#include "keras_sasa/kernels/window/pixel_products.h"
#include "keras_sasa/kernels/window/softmax.h"
#include "keras_sasa/kernels/window/tap_products.h"
#include "keras_sasa/kernels/window/tile_sizes.h"
#include "keras_sasa/kernels/window/weighted_sums.h"

namespace {

using namespace keras_sasa::KERAS_SASA_LEVEL;

// A window of 7 x 7 keys. As in the kernel, the keys that a vector of queries
// sees in a row are in one cache line a channel if they fit, otherwise around
// an aligned vector.
constexpr int64_t kWindow = 7;
constexpr bool kCentered = kLanes + kWindow - 1 > kCacheLineFloats;
constexpr int64_t kKeyFloats = kCentered ? 3 * kLanes : kCacheLineFloats;
constexpr int64_t kFirstKey = kCentered ? kLanes - kWindow / 2 : 0;

class Floats {
 public:
  explicit Floats(int64_t size) {
    std::mt19937 generator(1);
    std::normal_distribution<float> distribution;
    float* numbers = memory_.Reserve(size);
    for (int64_t i = 0; i < size; ++i) numbers[i] = distribution(generator);
  }
  float* data() const { return memory_.data(); }

 private:
  AlignedArray<float> memory_;
};

// Rows of keys or values, as a pointer each.
std::vector<const float*> Rows(const Floats& keys, int64_t channels) {
  std::vector<const float*> rows;
  for (int64_t row = 0; row < kWindow; ++row) {
    rows.push_back(keys.data() + row * channels * kKeyFloats + kFirstKey);
  }
  return rows;
}

// The fastest of many calls, in seconds.
template <typename Function>
double FastestSeconds(Function function) {
  using Clock = std::chrono::steady_clock;
  double fastest = 1;
  for (int i = 0; i < 200; ++i) {
    const Clock::time_point start = Clock::now();
    function();
    const std::chrono::duration<double> time = Clock::now() - start;
    fastest = std::min(fastest, time.count());
  }
  return fastest;
}

// Clock cycles per second. An integer addition that waits for the one before
// takes one cycle on every processor.
double ClockRate() {
  constexpr int kAdditions = 100000;
  const double seconds = FastestSeconds([] {
    int64_t sum = 0;
    for (int i = 0; i < kAdditions; i += 20) {
      KERAS_SASA_UNROLL
      for (int j = 0; j < 20; ++j) {
        ++sum;
        asm volatile("" : "+r"(sum));
      }
    }
  });
  return kAdditions / seconds;
}

// Clock cycles of a multiply-add of vectors whose operands are in registers and
// do not wait for each other.
double CyclesOfMultiplyAdd() {
  constexpr int kSums = 12, kRounds = 2000;
  const double seconds = FastestSeconds([] {
    Vector a{}, b{}, sums[kSums]{};
    for (int i = 0; i < kRounds; ++i) {
      a = InRegister(a);
      b = InRegister(b);
      KERAS_SASA_UNROLL
      for (int j = 0; j < kSums; ++j) sums[j] = InRegister(sums[j] + a * b);
    }
    for (Vector sum : sums) benchmark::DoNotOptimize(sum);
  });
  return seconds * ClockRate() / (kSums * kRounds);
}

void SetRates(benchmark::State& state, int64_t multiply_adds) {
  using benchmark::Counter;
  static const double clock_rate = ClockRate();
  static const double limit = CyclesOfMultiplyAdd();
  state.counters["FLOPS"] =
      Counter(2.0 * multiply_adds * kLanes, Counter::kIsIterationInvariantRate);
  state.counters["cycles"] =
      Counter(multiply_adds / clock_rate,
              Counter::kIsIterationInvariantRate | Counter::kInvert);
  state.counters["limit"] = Counter(limit);
}

// Arguments: rows of queries, channels of a head.
void BM_TapProducts(benchmark::State& state) {
  const int64_t rows = state.range(0), channels = state.range(1);
  const Floats queries(rows * channels * kLanes);
  const Floats keys(kWindow * channels * kKeyFloats);
  const Floats zeros(kWindow * kLanes);
  const Floats output(rows * kWindow * kWindow * kLanes);
  const std::vector<const float*> pointers = Rows(keys, channels);
  TapProducts p{};
  p.query = queries.data();
  p.query_row_stride = channels * kLanes;
  p.query_channel_stride = kLanes;
  p.steps = kWindow;
  p.keys = pointers.data();
  p.key_tap_stride = 1;
  p.centered = kCentered;
  p.key_channel_stride = kKeyFloats;
  p.channels = channels;
  p.row_bias = p.tap_bias = zeros.data();
  p.output = output.data();
  p.output_row_stride = kWindow * kWindow * kLanes;
  p.output_step_stride = kWindow * kLanes;
  p.tap_bias_tap_stride = p.output_tap_stride = kLanes;
  const TileSizes taps(kWindow, kTileTaps);
  for (auto _ : state) {
    ComputeTapProducts(p, rows, taps);
    benchmark::ClobberMemory();
  }
  SetRates(state, rows * kWindow * kWindow * channels);
}
BENCHMARK(BM_TapProducts)->ArgsProduct({{1, 2, 3}, {8, 16, 64}});

// Arguments: rows of queries, channels of a head, whether keys are masked.
void BM_WeightedSums(benchmark::State& state) {
  const int64_t rows = state.range(0), channels = state.range(1);
  const Floats weights(rows * kWindow * kWindow * kLanes);
  const Floats values(kWindow * channels * kKeyFloats);
  const Floats output(rows * channels * kLanes);
  const std::vector<const float*> pointers = Rows(values, channels);
  std::vector<const float*> weight_pointers;
  for (int64_t row = 0; row < kWindow; ++row) {
    weight_pointers.push_back(weights.data() + row * kWindow * kLanes);
  }
  AlignedArray<Bits> masks;
  const WeightedSpan span{0, rows, kWindow, weight_pointers.data(),
                          pointers.data()};
  WeightedSums s{};
  s.spans = &span;
  s.span_count = 1;
  s.weight_row_stride = kWindow * kWindow * kLanes;
  s.weight_tap_stride = kLanes;
  s.value_channel_stride = kKeyFloats;
  s.value_tap_stride = 1;
  s.taps = kWindow;
  s.output = output.data();
  s.output_row_stride = channels * kLanes;
  s.masks = state.range(2) ? masks.ReserveZeros(kWindow) : nullptr;
  s.mask_tap_stride = 1;
  for (auto _ : state) {
    ComputeWeightedSums(s, rows, channels);
    benchmark::ClobberMemory();
  }
  SetRates(state, rows * kWindow * kWindow * channels);
}
BENCHMARK(BM_WeightedSums)->ArgsProduct({{1, 2, 3}, {8, 16, 64}, {0, 1}});

// Arguments: pixels, channels of the image and of the result.
void BM_PixelProducts(benchmark::State& state) {
  const int64_t count = state.range(0), channels = state.range(1);
  const Floats pixels(count * channels);
  const Floats matrix(channels * channels);
  const Floats output(count * channels);
  PixelProducts p{};
  p.pixels = pixels.data();
  p.pixel_stride = channels;
  p.count = count;
  p.channels = channels;
  p.matrix = matrix.data();
  p.matrix_stride = channels;
  p.columns = channels;
  p.output = output.data();
  p.output_stride = channels;
  for (auto _ : state) {
    ComputePixelProducts(p);
    benchmark::ClobberMemory();
  }
  SetRates(state, count * channels * channels / kLanes);
}
BENCHMARK(BM_PixelProducts)->ArgsProduct({{14, 56}, {64, 256}});

// Argument: columns of the second matrix, as wide as a head of the stem.
void BM_LaneProducts(benchmark::State& state) {
  const int64_t rows = 16, depth = 16, columns = state.range(0);
  const Floats a(rows * depth * kLanes), b(depth * columns * kLanes);
  const Floats c(rows * columns * kLanes);
  for (auto _ : state) {
    MultiplyLanes({a.data(), depth * kLanes, kLanes},
                  {b.data(), columns * kLanes, kLanes}, rows, columns, depth,
                  {c.data(), columns * kLanes, kLanes});
    benchmark::ClobberMemory();
  }
  SetRates(state, rows * columns * depth);
}
BENCHMARK(BM_LaneProducts)->Arg(8)->Arg(16)->Arg(64);

// `items_per_second` counts exponentials.
void BM_Exp2(benchmark::State& state) {
  const int64_t size = 64 * kLanes;
  const Floats input(size), output(size);
  for (auto _ : state) {
    const Vector lowest = Broadcast(kLowestExponent);
    for (int64_t i = 0; i < size; i += kLanes) {
      Store(output.data() + i, Exp2(Load(input.data() + i), lowest));
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * size);
}
BENCHMARK(BM_Exp2);

// `items_per_second` counts logits. Each pass takes the weights of the one
// before as its logits.
void BM_Softmax(benchmark::State& state) {
  const int64_t count = kWindow * kWindow;
  const Floats logits(count * kLanes);
  Vector largest, total;
  SoftmaxLogits s{};
  s.logits = logits.data();
  s.rows = s.taps = kWindow;
  for (auto _ : state) {
    ComputeSoftmax<kWindow, true>(s, &largest, &total);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * count * kLanes);
}
BENCHMARK(BM_Softmax);

}  // namespace

BENCHMARK_MAIN();
