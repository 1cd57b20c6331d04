// The blocks of an image that one vector holds: a lane is a block, a vector as
// many blocks beside each other. Arrays are [place in the
// block][channel][lane].

#ifndef KERAS_SASA_KERNELS_BLOCK_LANE_BLOCKS_H_
#define KERAS_SASA_KERNELS_BLOCK_LANE_BLOCKS_H_

#include <cstdint>

#include "keras_sasa/kernels/base/aligned_array.h"
#include "keras_sasa/kernels/base/compiler.h"
#include "keras_sasa/kernels/base/integers.h"
#include "keras_sasa/kernels/base/squares.h"
#include "keras_sasa/kernels/base/vectors.h"
#include "keras_sasa/kernels/block/attention.h"

namespace keras_sasa {
namespace KERAS_SASA_LEVEL {

// A pixel of every block.
struct Place {
  Bits mask;      // Which of the blocks have it: the first
  int64_t lanes;  // `lanes` of them.
  int64_t pixel;  // Its number in the batch, in the first block.
};

class LaneBlocks {
 public:
  explicit LaneBlocks(const BlockShape& shape) : shape_(shape) {
    places_.Reserve(all_places());
  }

  int64_t all_places() const { return shape_.size * shape_.size; }

  // Moves to the blocks from `first_block` on of a row of blocks, and reads
  // their pixels.
  void MoveTo(const float* image, int64_t number, int64_t row,
              int64_t first_block, float* pixels) {
    const int64_t size = shape_.size;
    const int64_t channels = shape_.channels;
    const int64_t rows = Min(size, shape_.height - row * size);
    count = Min(kLanes, shape_.block_columns() - first_block);
    places = rows * size;
    cut_off = (first_block + kLanes) * size > shape_.width;
    for (int64_t i = 0; i < places; ++i) {
      Place& place = places_.data()[i];
      const int64_t column = first_block * size + i % size;
      place.pixel =
          (number * shape_.height + row * size + i / size) * shape_.width +
          column;
      place.lanes = Max(0, Min(kLanes, CeilDiv(shape_.width - column, size)));
      for (int lane = 0; lane < kLanes; ++lane) {
        place.mask[lane] = lane < place.lanes ? -1 : 0;
      }
      float* to = pixels + i * channels * kLanes;
      const float* from = image + place.pixel * channels;
      for (int lane = 0; lane < kLanes; ++lane) {
        for (int64_t channel = 0; channel < channels; ++channel) {
          to[channel * kLanes + lane] =
              lane < place.lanes ? from[lane * size * channels + channel]
                                 : 0.0f;
        }
      }
    }
  }

  const Place& place(int64_t number) const { return places_[number]; }

  // Writes the vectors [channel][lane] of a place to its pixels in `map`, as
  // channels of a head in a map of `filters`.
  void Scatter(int64_t number, const float* vectors, int64_t head_width,
               float* map, int64_t filters) const {
    const Place& place = places_[number];
    const int64_t lane_stride = shape_.size * filters;
    map += place.pixel * filters;
    int64_t channel = 0;
    for (; channel + kSide <= head_width; channel += kSide) {
      for (int64_t first = 0; first < place.lanes; first += kSide) {
        Side square[kSide];
        KERAS_SASA_UNROLL
        for (int i = 0; i < kSide; ++i) {
          square[i] = LoadSide(vectors + (channel + i) * kLanes + first);
        }
        Transpose(square);
        const int64_t lanes = Min(kSide, place.lanes - first);
        for (int64_t lane = 0; lane < lanes; ++lane) {
          StoreSide(map + (first + lane) * lane_stride + channel, square[lane]);
        }
      }
    }
    for (; channel < head_width; ++channel) {
      for (int64_t lane = 0; lane < place.lanes; ++lane) {
        map[lane * lane_stride + channel] = vectors[channel * kLanes + lane];
      }
    }
  }

  // The inverse; zero where a pixel is outside the image.
  void Gather(int64_t number, const float* map, int64_t filters,
              int64_t head_width, float* vectors) const {
    const Place& place = places_[number];
    const int64_t lane_stride = shape_.size * filters;
    map += place.pixel * filters;
    int64_t channel = 0;
    for (; channel + kSide <= head_width; channel += kSide) {
      for (int64_t first = 0; first < kLanes; first += kSide) {
        Side square[kSide] = {};
        const int64_t lanes = Min(kSide, place.lanes - first);
        for (int64_t lane = 0; lane < lanes; ++lane) {
          square[lane] = LoadSide(map + (first + lane) * lane_stride + channel);
        }
        Transpose(square);
        KERAS_SASA_UNROLL
        for (int i = 0; i < kSide; ++i) {
          StoreSide(vectors + (channel + i) * kLanes + first, square[i]);
        }
      }
    }
    for (; channel < head_width; ++channel) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        vectors[channel * kLanes + lane] =
            lane < place.lanes ? map[lane * lane_stride + channel] : 0.0f;
      }
    }
  }

  int64_t count;   // Lanes that hold a block.
  int64_t places;  // Pixels of a block that are in rows inside the image.
  bool cut_off;    // Whether some `Place::mask` is false somewhere.

 private:
  const BlockShape& shape_;
  AlignedArray<Place> places_;
};

}  // namespace KERAS_SASA_LEVEL
}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BLOCK_LANE_BLOCKS_H_
