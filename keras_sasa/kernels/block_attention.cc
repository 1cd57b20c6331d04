// The mathematics of attention within blocks, written for vectors of lanes.
//
// Layout. A lane is one block, a vector as many blocks beside each other. Every
// array is (place in the block, channel, lane), so that all there is to compute
// are small products of matrices of vectors. A few pixels of a block ask at a
// time: their logits and weights stay in the nearest cache.
//
// An image has few channels, so that x_i' L x_j takes fewer products than the
// queries and keys that L comes from.

#include "block_attention.h"

#include <cmath>
#include <cstring>

#include "vectors.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {
namespace {

// Pixels that ask together.
constexpr int64_t kQueries = 16;

// Rows and columns of a product that are computed together, as many as there
// are registers for.
constexpr int kProductRows = 4;
#if defined(__AVX512VL__) || defined(__aarch64__)
constexpr int kProductColumns = 4;
#else
constexpr int kProductColumns = 2;
#endif

// Parts that add up the gradients of kernels, each on its own. Their number
// must not depend on that of the threads.
constexpr int64_t kMaxParts = 64;

// A matrix of vectors; how many floats lie between its rows and columns.
template <typename Float>
struct Matrix {
  Float* data;
  int64_t row, column;

  Float* at(int64_t i, int64_t j) const { return data + i * row + j * column; }
  Matrix transposed() const { return {data, column, row}; }
  operator Matrix<const float>() const { return {data, row, column}; }
};

template <int rows, int columns>
KERAS_SASA_NOINLINE void multiply_block(const float* a, int64_t a_row,
                                        int64_t a_column, const float* b,
                                        int64_t b_row, int64_t b_column,
                                        int64_t depth, float* c, int64_t c_row,
                                        int64_t c_column, bool add) {
  Vector sums[rows][columns];
  KERAS_SASA_UNROLL
  for (int i = 0; i < rows; ++i) {
    KERAS_SASA_UNROLL
    for (int j = 0; j < columns; ++j) {
      sums[i][j] = add ? load(c + i * c_row + j * c_column) : Vector{};
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vector left[rows];
    KERAS_SASA_UNROLL
    for (int i = 0; i < rows; ++i) left[i] = load(a + i * a_row);
    KERAS_SASA_UNROLL
    for (int j = 0; j < columns; ++j) {
      const Vector right = load(b + j * b_column);
      KERAS_SASA_UNROLL
      for (int i = 0; i < rows; ++i) sums[i][j] += left[i] * right;
    }
    a += a_column;
    b += b_row;
  }
  KERAS_SASA_UNROLL
  for (int i = 0; i < rows; ++i) {
    KERAS_SASA_UNROLL
    for (int j = 0; j < columns; ++j) {
      store(c + i * c_row + j * c_column, sums[i][j]);
    }
  }
}

template <int rows>
void multiply_rows(Matrix<const float> a, Matrix<const float> b, int64_t i,
                   int64_t columns, int64_t depth, Matrix<float> c, bool add) {
  int64_t j = 0;
  for (; j + kProductColumns <= columns; j += kProductColumns) {
    multiply_block<rows, kProductColumns>(a.at(i, 0), a.row, a.column,
                                          b.at(0, j), b.row, b.column, depth,
                                          c.at(i, j), c.row, c.column, add);
  }
  for (; j < columns; ++j) {
    multiply_block<rows, 1>(a.at(i, 0), a.row, a.column, b.at(0, j), b.row,
                            b.column, depth, c.at(i, j), c.row, c.column, add);
  }
}

// c = a b, or c += a b, lane by lane: `c` is (rows, columns), `a` (rows,
// depth).
void multiply(Matrix<const float> a, Matrix<const float> b, int64_t rows,
              int64_t columns, int64_t depth, Matrix<float> c,
              bool add = false) {
  int64_t i = 0;
  for (; i + kProductRows <= rows; i += kProductRows) {
    multiply_rows<kProductRows>(a, b, i, columns, depth, c, add);
  }
  for (; i < rows; ++i) multiply_rows<1>(a, b, i, columns, depth, c, add);
}

// A matrix of numbers that are the same in all lanes.
struct Numbers {
  const float* data;
  int64_t row, column;
};

template <int columns, bool add>
inline void project_columns(const float* input, Numbers numbers, int64_t depth,
                            float* output) {
  Vector sums[columns];
  KERAS_SASA_UNROLL
  for (int j = 0; j < columns; ++j) {
    sums[j] = add ? load(output + j * kLanes) : Vector{};
  }
  for (int64_t i = 0; i < depth; ++i) {
    const Vector left = load(input + i * kLanes);
    const float* number = numbers.data + i * numbers.row;
    KERAS_SASA_UNROLL
    for (int j = 0; j < columns; ++j) {
      sums[j] += left * number[j * numbers.column];
    }
  }
  KERAS_SASA_UNROLL
  for (int j = 0; j < columns; ++j) store(output + j * kLanes, sums[j]);
}

// output[j] (+)= sum_i input[i] * numbers[i][j].
template <bool add>
inline void project(const float* input, Numbers numbers, int64_t depth,
                    int64_t columns, float* output) {
  constexpr int kTogether = 8;
  int64_t j = 0;
  for (; j + kTogether <= columns; j += kTogether) {
    project_columns<kTogether, add>(input, numbers, depth, output + j * kLanes);
    numbers.data += kTogether * numbers.column;
  }
  for (; j < columns; ++j) {
    project_columns<1, add>(input, numbers, depth, output + j * kLanes);
    numbers.data += numbers.column;
  }
}

// sums[i][j] += a[i] * b[j].
inline void add_outer(const float* a, int64_t rows, const float* b,
                      int64_t columns, float* sums) {
  for (int64_t i = 0; i < rows; ++i) {
    const Vector left = load(a + i * kLanes);
    for (int64_t j = 0; j < columns; ++j, sums += kLanes) {
      store(sums, load(sums) + left * load(b + j * kLanes));
    }
  }
}

inline float sum_of_lanes(const float* lanes) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += lanes[i];
  return sum;
}

// The blocks of an image that one vector holds, and what both passes compute
// of them.
class Blocks {
 public:
  Blocks(const BlockShape& shape, const BlockInputs& inputs)
      : shape_(shape), inputs_(inputs) {
    places_.reserve(all_places());
  }

  // Memory, in floats.
  int64_t image_size() const { return all_places() * shape_.channels * kLanes; }
  int64_t value_size() const {
    return all_places() * shape_.head_width * kLanes;
  }
  int64_t weight_size() const { return kQueries * all_places() * kLanes; }
  int64_t all_places() const { return shape_.size * shape_.size; }

  // Goes to the blocks from `first_block` on of a row of blocks, and reads
  // them.
  void go_to(int64_t image, int64_t row, int64_t first_block, float* pixels) {
    const int64_t size = shape_.size;
    const int64_t channels = shape_.channels;
    const int64_t rows = min(size, shape_.height - row * size);
    pixels_ = pixels;
    count = min(kLanes, shape_.block_columns() - first_block);
    places = rows * size;
    cut_off = (first_block + kLanes) * size > shape_.width;
    for (int64_t i = 0; i < places; ++i) {
      Place& place = places_.data()[i];
      const int64_t column = first_block * size + i % size;
      place.pixel =
          (image * shape_.height + row * size + i / size) * shape_.width +
          column;
      place.lanes = max(0, min(kLanes, ceil_div(shape_.width - column, size)));
      for (int lane = 0; lane < kLanes; ++lane) {
        place.mask[lane] = lane < place.lanes ? -1 : 0;
      }
      float* to = pixels + i * channels * kLanes;
      const float* from = inputs_.image + place.pixel * channels;
      for (int lane = 0; lane < kLanes; ++lane) {
        for (int64_t channel = 0; channel < channels; ++channel) {
          to[channel * kLanes + lane] =
              lane < place.lanes ? from[lane * size * channels + channel]
                                 : 0.0f;
        }
      }
    }
  }

  // A pixel of every block.
  struct Place {
    Bits mask;      // Which of the blocks have it; these are the first
    int64_t lanes;  // `lanes` of them.
    int64_t pixel;  // Its number in the batch, in the first block.
  };
  const Place& place(int64_t number) const { return places_[number]; }
  // Pixels from one block to the next.
  int64_t step() const { return shape_.size; }

  // Pixels times the logit kernel of the head, for logits in base 2.
  void project_queries(int64_t head, float* queries) const {
    const int64_t channels = shape_.channels;
    const Numbers kernel = {inputs_.logit_kernels + head * channels * channels,
                            channels, 1};
    for (int64_t i = 0; i < places * channels; i += channels) {
      float* to = queries + i * kLanes;
      project<false>(pixels_ + i * kLanes, kernel, channels, channels, to);
      for (int64_t j = 0; j < channels; ++j) {
        store(to + j * kLanes, load(to + j * kLanes) * kLog2E);
      }
    }
  }

  Numbers value_kernel(int64_t head, int64_t place) const {
    return {inputs_.value_kernels + place * shape_.channels * shape_.filters() +
                head * shape_.head_width,
            shape_.filters(), 1};
  }

  void project_values(int64_t head, float* values) const {
    const int64_t channels = shape_.channels;
    for (int64_t place = 0; place < places; ++place) {
      project<false>(pixels_ + place * channels * kLanes,
                     value_kernel(head, place), channels, shape_.head_width,
                     values + place * shape_.head_width * kLanes);
    }
  }

  // exp2(logit - largest logit) of the queries from `first` on, and the inverse
  // of their sums.
  void attend(const float* queries, int64_t first, int64_t query_count,
              float* weights, float* factors) const {
    const int64_t channels = shape_.channels;
    const int64_t pixel_stride = channels * kLanes;
    multiply({queries + first * pixel_stride, pixel_stride, kLanes},
             {pixels_, kLanes, pixel_stride}, query_count, places, channels,
             {weights, places * kLanes, kLanes});
    const Vector lowest = all(kLowestExponent);
    for (int64_t query = 0; query < query_count; ++query) {
      float* logits = weights + query * places * kLanes;
      if (cut_off) {
        for (int64_t key = 0; key < places; ++key) {
          store(logits + key * kLanes,
                select(places_[key].mask, load(logits + key * kLanes),
                       all(kMaskedLogit)));
        }
      }
      Vector largest = load(logits);
      for (int64_t key = 1; key < places; ++key) {
        largest = larger(load(logits + key * kLanes), largest);
      }
      Vector sum{};
      for (int64_t key = 0; key < places; ++key) {
        const Vector weight =
            exp2(load(logits + key * kLanes) - largest, lowest);
        store(logits + key * kLanes, weight);
        sum += weight;
      }
      store(factors + query * kLanes, 1.0f / sum);
    }
  }

  int64_t count;   // Blocks that there are, of the lanes of a vector;
  int64_t places;  // pixels of one, in rows inside the image.
  bool cut_off;    // Whether `mask` is false somewhere.

 private:
  const BlockShape& shape_;
  const BlockInputs& inputs_;
  const float* pixels_ = nullptr;
  Array<Place> places_;
};

// Writes vectors (channel, lane) to `map`, the channels of a head of a map of
// `filters` at the pixels of a place.
void scatter(const Blocks& blocks, int64_t number, const float* vectors,
             int64_t head_width, float* map, int64_t filters) {
  const Blocks::Place& place = blocks.place(number);
  const int64_t step = blocks.step() * filters;
  map += place.pixel * filters;
  int64_t channel = 0;
  for (; channel + kSide <= head_width; channel += kSide) {
    for (int64_t first = 0; first < place.lanes; first += kSide) {
      Side square[kSide];
      KERAS_SASA_UNROLL
      for (int i = 0; i < kSide; ++i) {
        square[i] = load_side(vectors + (channel + i) * kLanes + first);
      }
      transpose(square);
      const int64_t lanes = min(kSide, place.lanes - first);
      for (int64_t lane = 0; lane < lanes; ++lane) {
        store_side(map + (first + lane) * step + channel, square[lane]);
      }
    }
  }
  for (; channel < head_width; ++channel) {
    for (int64_t lane = 0; lane < place.lanes; ++lane) {
      map[lane * step + channel] = vectors[channel * kLanes + lane];
    }
  }
}

// The inverse; zero where a pixel is outside the image.
void gather(const Blocks& blocks, int64_t number, const float* map,
            int64_t filters, int64_t head_width, float* vectors) {
  const Blocks::Place& place = blocks.place(number);
  const int64_t step = blocks.step() * filters;
  map += place.pixel * filters;
  int64_t channel = 0;
  for (; channel + kSide <= head_width; channel += kSide) {
    for (int64_t first = 0; first < kLanes; first += kSide) {
      Side square[kSide] = {};
      const int64_t lanes = min(kSide, place.lanes - first);
      for (int64_t lane = 0; lane < lanes; ++lane) {
        square[lane] = load_side(map + (first + lane) * step + channel);
      }
      transpose(square);
      KERAS_SASA_UNROLL
      for (int i = 0; i < kSide; ++i) {
        store_side(vectors + (channel + i) * kLanes + first, square[i]);
      }
    }
  }
  for (; channel < head_width; ++channel) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      vectors[channel * kLanes + lane] =
          lane < place.lanes ? map[lane * step + channel] : 0.0f;
    }
  }
}

// An array of vectors that a task needs, as many floats.
struct Part {
  float** data;
  int64_t size;
};

// Memory of a thread, kept from call to call.
float* scratch(int64_t floats) {
  static thread_local Array<float> memory;
  return memory.reserve(floats);
}

template <int count>
void allocate(const Part (&parts)[count]) {
  int64_t size = 0;
  for (const Part& part : parts) size += part.size;
  float* next = scratch(size);
  for (const Part& part : parts) {
    *part.data = next;
    next += part.size;
  }
}

// A task is one row of blocks of one image.
class ForwardTasks : public Tasks {
 public:
  ForwardTasks(const BlockShape& shape, const BlockInputs& inputs,
               const BlockOutputs& outputs)
      : shape_(shape), inputs_(inputs), outputs_(outputs) {}

  int64_t tasks() const override { return shape_.rows(); }

  void run(int64_t task) const override {
    Blocks blocks(shape_, inputs_);
    const int64_t width = shape_.head_width;
    const bool pooled = outputs_.scale != nullptr;
    float *pixels, *queries, *values, *weights, *factors, *sums, *largest;
    allocate({{&pixels, blocks.image_size()},
              {&queries, blocks.image_size()},
              {&values, blocks.value_size()},
              {&weights, blocks.weight_size()},
              {&factors, kQueries * kLanes},
              {&sums, kQueries * width * kLanes},
              {&largest, width * kLanes}});
    for (int64_t block = 0; block < shape_.block_columns(); block += kLanes) {
      blocks.go_to(task / shape_.block_rows(), task % shape_.block_rows(),
                   block, pixels);
      for (int64_t head = 0; head < shape_.heads; ++head) {
        blocks.project_queries(head, queries);
        blocks.project_values(head, values);
        for (int64_t channel = 0; pooled && channel < width; ++channel) {
          store(largest + channel * kLanes, all(-INFINITY));
        }
        for (int64_t first = 0; first < blocks.places; first += kQueries) {
          const int64_t count = min(kQueries, blocks.places - first);
          blocks.attend(queries, first, count, weights, factors);
          multiply({weights, blocks.places * kLanes, kLanes},
                   {values, width * kLanes, kLanes}, count, width,
                   blocks.places, {sums, width * kLanes, kLanes});
          if (pooled) {
            pool(blocks, first, count, head, factors, sums, largest);
            continue;
          }
          for (int64_t query = 0; query < count; ++query) {
            float* sum = sums + query * width * kLanes;
            const Vector factor = load(factors + query * kLanes);
            for (int64_t channel = 0; channel < width; ++channel) {
              float* number = sum + channel * kLanes;
              store(number, load(number) * factor);
            }
            scatter(blocks, first + query, sum, width,
                    outputs_.output + head * width, shape_.filters());
          }
        }
        if (!pooled) continue;
        float* output =
            outputs_.output +
            (task * shape_.block_columns() + block) * shape_.filters() +
            head * width;
        for (int lane = 0; lane < blocks.count; ++lane) {
          for (int64_t channel = 0; channel < width; ++channel) {
            output[lane * shape_.filters() + channel] =
                largest[channel * kLanes + lane];
          }
        }
      }
    }
  }

 private:
  // Normalizes the outputs of the pixels from `first` on, and keeps the
  // largest.
  void pool(const Blocks& blocks, int64_t first, int64_t count, int64_t head,
            const float* factors, const float* sums, float* largest) const {
    const int64_t width = shape_.head_width;
    for (int64_t channel = 0; channel < width; ++channel) {
      const Vector scale = all(outputs_.scale[head * width + channel]);
      const Vector offset = all(outputs_.offset[head * width + channel]);
      Vector most = load(largest + channel * kLanes);
      Bits undefined = most != most;
      for (int64_t query = 0; query < count; ++query) {
        Vector number = load(sums + (query * width + channel) * kLanes) *
                            load(factors + query * kLanes) * scale +
                        offset;
        if (blocks.cut_off) {
          number = select(blocks.place(first + query).mask, number, most);
        }
        most = larger(most, number);
        undefined |= number != number;
      }
      store(largest + channel * kLanes, select(undefined, all(NAN), most));
    }
  }

  const BlockShape shape_;
  const BlockInputs inputs_;
  const BlockOutputs outputs_;
};

// A task is some rows of blocks of all images, and adds up the gradients of the
// kernels in a part of its own.
class BackwardTasks : public Tasks {
 public:
  BackwardTasks(const BlockShape& shape, const BlockInputs& inputs,
                const float* output_gradient, const BlockGradients& gradients)
      : shape_(shape),
        inputs_(inputs),
        output_gradient_(output_gradient),
        gradients_(gradients),
        rows_(shape.rows()),
        rows_of_task_(max(1, ceil_div(rows_, kMaxParts))) {
    kernels_.reserve(tasks() * (logit_size() + value_size()));
  }

  int64_t tasks() const override { return ceil_div(rows_, rows_of_task_); }

  void run(int64_t task) const override {
    Blocks blocks(shape_, inputs_);
    const int64_t width = shape_.head_width;
    const int64_t channels = shape_.channels;
    const int64_t places = blocks.all_places();
    Memory m{};
    allocate({{&m.pixels, blocks.image_size()},
              {&m.image, blocks.image_size()},
              {&m.queries, blocks.image_size()},
              {&m.keys, blocks.image_size()},
              {&m.values, blocks.value_size()},
              {&m.value_gradients, blocks.value_size()},
              {&m.weights, blocks.weight_size()},
              {&m.products, blocks.weight_size()},
              {&m.factors, kQueries * kLanes},
              {&m.upstream, kQueries * width * kLanes},
              {&m.seen, kQueries * channels * kLanes},
              {&m.logit_kernels, logit_size() * kLanes},
              {&m.value_kernels, value_size() * kLanes}});
    std::memset(m.logit_kernels, 0, logit_size() * kLanes * sizeof(float));
    std::memset(m.value_kernels, 0, value_size() * kLanes * sizeof(float));

    const int64_t end = min(rows_, (task + 1) * rows_of_task_);
    for (int64_t row = task * rows_of_task_; row < end; ++row) {
      for (int64_t block = 0; block < shape_.block_columns(); block += kLanes) {
        blocks.go_to(row / shape_.block_rows(), row % shape_.block_rows(),
                     block, m.pixels);
        std::memset(m.image, 0, blocks.image_size() * sizeof(float));
        for (int64_t head = 0; head < shape_.heads; ++head) {
          differentiate(blocks, head, m);
        }
        for (int64_t place = 0; place < blocks.places; ++place) {
          scatter(blocks, place, m.image + place * channels * kLanes, channels,
                  gradients_.image, channels);
        }
      }
    }
    // (head, channel, channel), then (head, place, channel, head width).
    float* to = kernels_.data() + task * (logit_size() + value_size());
    for (int64_t i = 0; i < logit_size(); ++i) {
      *to++ = sum_of_lanes(m.logit_kernels + i * kLanes);
    }
    const int64_t block = channels * width;
    for (int64_t head = 0; head < shape_.heads; ++head) {
      for (int64_t i = 0; i < places * block; ++i) {
        *to++ = sum_of_lanes(m.value_kernels +
                             (head * places * block + i) * kLanes);
      }
    }
  }

  void finish() const override {
    const int64_t width = shape_.head_width;
    for (int64_t i = 0; i < logit_size(); ++i) {
      gradients_.logit_kernels[i] = sum_of_parts(i);
    }
    // From heads first to heads beside each other.
    const int64_t matrices = value_size() / shape_.filters();
    for (int64_t i = 0; i < value_size(); ++i) {
      const int64_t head = i / (matrices * width);
      const int64_t matrix = i / width % matrices;
      gradients_
          .value_kernels[matrix * shape_.filters() + head * width + i % width] =
          sum_of_parts(logit_size() + i);
    }
  }

 private:
  struct Memory {
    float *pixels, *image;  // (place, channel, lane), and its gradient.
    float *queries, *keys;  // Of the head; what queries bring to keys.
    float *values, *value_gradients;
    float *weights, *products;  // Of kQueries pixels: (query, key, lane).
    float *factors, *upstream;
    float* seen;  // Pixels weighted by the gradients of their logits.
    float *logit_kernels, *value_kernels;
  };

  int64_t logit_size() const {
    return shape_.heads * shape_.channels * shape_.channels;
  }
  int64_t value_size() const {
    return shape_.size * shape_.size * shape_.channels * shape_.filters();
  }

  float sum_of_parts(int64_t number) const {
    double sum = 0;
    for (int64_t part = 0; part < tasks(); ++part) {
      sum += kernels_[part * (logit_size() + value_size()) + number];
    }
    return static_cast<float>(sum);
  }

  // With p a weight and g the product of the value and the gradient of the
  // output, the gradient of the logit is p * (g - sum of all p * g).
  void differentiate(const Blocks& blocks, int64_t head,
                     const Memory& m) const {
    const int64_t width = shape_.head_width;
    const int64_t channels = shape_.channels;
    const int64_t places = blocks.places;
    const int64_t pixel = channels * kLanes;
    const int64_t value = width * kLanes;
    const Matrix<float> weights = {m.weights, places * kLanes, kLanes};
    const Matrix<float> products = {m.products, places * kLanes, kLanes};
    const Matrix<float> values = {m.values, value, kLanes};
    const Matrix<float> upstream = {m.upstream, value, kLanes};
    const Matrix<float> pixels = {m.pixels, pixel, kLanes};
    const Matrix<float> value_gradients = {m.value_gradients, value, kLanes};
    const Matrix<float> keys = {m.keys, pixel, kLanes};
    const Matrix<float> seen = {m.seen, pixel, kLanes};
    const float* kernel = inputs_.logit_kernels + head * channels * channels;
    float* kernel_gradient =
        m.logit_kernels + head * channels * channels * kLanes;
    blocks.project_queries(head, m.queries);
    blocks.project_values(head, m.values);
    for (int64_t first = 0; first < places; first += kQueries) {
      const int64_t count = min(kQueries, places - first);
      const bool add = first > 0;
      blocks.attend(m.queries, first, count, m.weights, m.factors);
      for (int64_t query = 0; query < count; ++query) {
        gather(blocks, first + query, output_gradient_ + head * width,
               shape_.filters(), width, m.upstream + query * value);
      }
      multiply(upstream, values.transposed(), count, places, width, products);
      for (int64_t query = 0; query < count; ++query) {
        float* row = m.weights + query * places * kLanes;
        float* gradients = m.products + query * places * kLanes;
        const Vector factor = load(m.factors + query * kLanes);
        Vector total{};
        for (int64_t i = 0; i < places * kLanes; i += kLanes) {
          const Vector weight = load(row + i) * factor;
          store(row + i, weight);
          total += weight * load(gradients + i);
        }
        for (int64_t i = 0; i < places * kLanes; i += kLanes) {
          store(gradients + i, load(row + i) * (load(gradients + i) - total));
        }
      }
      multiply(weights.transposed(), upstream, places, width, count,
               value_gradients, add);
      multiply(products, pixels, count, channels, places, seen);
      multiply(products.transposed(),
               {m.queries + first * pixel, pixel, kLanes}, places, channels,
               count, keys, add);
      for (int64_t query = 0; query < count; ++query) {
        const int64_t place = (first + query) * pixel;
        const float* sum = m.seen + query * pixel;
        add_outer(m.pixels + place, channels, sum, channels, kernel_gradient);
        project<true>(sum, {kernel, 1, channels}, channels, channels,
                      m.image + place);
      }
    }
    for (int64_t place = 0; place < places; ++place) {
      const float* gradient = m.value_gradients + place * value;
      const Numbers matrix = blocks.value_kernel(head, place);
      project<true>(gradient, {matrix.data, matrix.column, matrix.row}, width,
                    channels, m.image + place * pixel);
      add_outer(m.pixels + place * pixel, channels, gradient, width,
                m.value_kernels +
                    (head * blocks.all_places() + place) * channels * value);
    }
    // The queries were those of logits in base 2.
    for (int64_t i = 0; i < places * pixel; i += kLanes) {
      store(m.image + i, load(m.image + i) + load(m.keys + i) * kLn2);
    }
  }

  const BlockShape shape_;
  const BlockInputs inputs_;
  const float* const output_gradient_;
  const BlockGradients gradients_;
  const int64_t rows_, rows_of_task_;
  Array<float> kernels_;
};

std::unique_ptr<Tasks> forward(const BlockShape& shape,
                               const BlockInputs& inputs,
                               const BlockOutputs& outputs) {
  return std::unique_ptr<Tasks>(new ForwardTasks(shape, inputs, outputs));
}

std::unique_ptr<Tasks> backward(const BlockShape& shape,
                                const BlockInputs& inputs,
                                const float* output_gradient,
                                const BlockGradients& gradients) {
  return std::unique_ptr<Tasks>(
      new BackwardTasks(shape, inputs, output_gradient, gradients));
}

}  // namespace

extern const BlockLevel block_level;
const BlockLevel block_level = {forward, backward};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa
