#include "keras_sasa/kernels/rows/normalization.h"

#include <cstring>

#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/squares.h"
#include "keras_sasa/kernels/base/vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {
namespace {

// A task has about as many numbers: to wake a thread takes as long as to
// normalize half of them.
constexpr int64_t kNumbersPerTask = int64_t{1} << 16;

// The numbers of a row, as vectors. The last one may be a part of a vector.
class Channels {
 public:
  explicit Channels(int64_t count)
      : whole_(count / kLanes * kLanes), rest_(count - whole_) {
    for (int i = 0; i < kLanes; ++i) inside_[i] = i < rest_ ? -1 : 0;
  }

  // Calls `visit(channel, load, keep)` for all vectors: `load` reads one, with
  // zeros after the end of the row, and `keep` makes zeros of these lanes.
  template <typename Visit>
  KERAS_SASA_ALWAYS_INLINE void ForEach(const Visit& visit) const {
    for (int64_t channel = 0; channel < whole_; channel += kLanes) {
      visit(
          channel, [](const float* from) { return Load(from); },
          [](Vector value) { return value; });
    }
    if (rest_ == 0) return;
    visit(
        whole_, [this](const float* from) { return LoadRest(from); },
        [this](Vector value) { return ZeroUnless(inside_, value); });
  }

  KERAS_SASA_ALWAYS_INLINE void StoreAt(int64_t channel, float* to,
                                        Vector value) const {
    if (channel < whole_) {
      Store(to, value);
    } else {
      std::memcpy(to, &value, rest_ * sizeof(float));
    }
  }

 private:
  Vector LoadRest(const float* from) const {
    Vector value{};
    std::memcpy(&value, from, rest_ * sizeof(float));
    return value;
  }

  int64_t whole_;
  int64_t rest_;
  Bits inside_;
};

// Adds up the lanes of a vector for each of `kSide` rows.
inline Side SumsOfRows(const Vector (&sums)[kSide]) {
  Side square[kSide];
  KERAS_SASA_UNROLL
  for (int i = 0; i < kSide; ++i) {
    const float* lanes = reinterpret_cast<const float*>(&sums[i]);
    square[i] = LoadSide(lanes);
    for (int j = kSide; j < kLanes; j += kSide)
      square[i] += LoadSide(lanes + j);
  }
  Transpose(square);
  Side sum = square[0];
  KERAS_SASA_UNROLL
  for (int i = 1; i < kSide; ++i) sum += square[i];
  return sum;
}

class Normalization : public Tasks {
 public:
  explicit Normalization(const RowNormalization& call)
      : call_(call),
        channels_(call.channels),
        rows_per_task_(RoundUp(
            Max(kNumbersPerTask / Max(call.channels, 1), kSide), kSide)) {}

  int64_t count() const override { return CeilDiv(call_.rows, rows_per_task_); }

  void Run(int64_t task) const override {
    const int64_t end = Min((task + 1) * rows_per_task_, call_.rows);
    for (int64_t row = task * rows_per_task_; row < end; row += kSide) {
      Normalize(row, static_cast<int>(Min(kSide, end - row)));
    }
  }

 private:
  // Normalizes up to `kSide` rows.
  void Normalize(int64_t row, int count) const {
    const int64_t channels = call_.channels;
    const float* inputs = call_.inputs + row * channels;
    float* output = call_.output + row * channels;
    const float share = 1.0f / static_cast<float>(channels);
    Vector sums[kSide] = {};
    for (int i = 0; i < count; ++i) {
      const float* from = inputs + i * channels;
      channels_.ForEach([&](int64_t channel, const auto& load, const auto&) {
        sums[i] += load(from + channel);
      });
    }
    const Side mean = SumsOfRows(sums) * share;
    // The mean is rounded. What it misses is the mean of the differences, which
    // counts where the numbers are far from zero.
    Vector differences[kSide] = {};
    Vector squares[kSide] = {};
    for (int i = 0; i < count; ++i) {
      const float* from = inputs + i * channels;
      Vector sum{}, squares_sum{};
      channels_.ForEach(
          [&](int64_t channel, const auto& load, const auto& keep) {
            const Vector difference = keep(load(from + channel) - mean[i]);
            sum += difference;
            squares_sum += difference * difference;
          });
      differences[i] = sum;
      squares[i] = squares_sum;
    }
    const Side rest = SumsOfRows(differences) * share;
    const Side variance = SumsOfRows(squares) * share - rest * rest;
    for (int i = 0; i < count; ++i) {
      // NaN stays NaN.
      const float positive = variance[i] < 0 ? 0 : variance[i];
      const float factor = 1.0f / __builtin_sqrtf(positive + call_.epsilon);
      const float* from = inputs + i * channels;
      float* to = output + i * channels;
      channels_.ForEach([&](int64_t channel, const auto& load, const auto&) {
        const Vector difference = load(from + channel) - mean[i] - rest[i];
        channels_.StoreAt(channel, to + channel,
                          difference * factor * load(call_.scale + channel) +
                              load(call_.offset + channel));
      });
    }
  }

  RowNormalization call_;
  Channels channels_;
  int64_t rows_per_task_;
};

std::unique_ptr<Tasks> MakeNormalization(const RowNormalization& call) {
  return std::unique_ptr<Tasks>(new Normalization(call));
}

}  // namespace

extern const RowFunctions row_functions;
const RowFunctions row_functions = {MakeNormalization};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa
