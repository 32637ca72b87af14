// Samples along rays where an occupancy grid says that something may be seen: kernel interface. float32, contiguous.
//
//   interval k of a ray begins at t_k = start + k step, k < max_samples; its middle m = t_k + step / 2
//   kept: m < far, the cell of o + m d is in the grid and occupied,
//         and sum over the kept before it of least(cell) ((t + step) - t) < most_depth
//
// `least` is a lower bound of the density in each cell, so what lies behind `most_depth` cannot be seen. Axes: R rays,
// S samples, a grid of X x Y x Z cells.
#pragma once

#include "../common.h"

namespace sds3d {

struct MarchShape {
  int64_t rays;
  int cells[3];
  float step;
  int64_t max_samples;
  double most_depth;
};

struct MarchInputs {
  const float* origins;     // [R, 3]
  const float* directions;  // [R, 3]
  const float* starts;      // [R]
  const float* far;         // [R]
  const bool* binaries;     // [X, Y, Z]
  const float* aabb;        // [6]: low corner, high corner
  const float* least;       // [X, Y, Z], or nullptr: all 0
};

// Bit k % 64 of word k / 64 tells whether interval k is kept.
struct MarchFound {
  int64_t words;    // of a ray
  int64_t* counts;  // [R]
  uint64_t* kept;   // [R, words]
};

struct MarchSamples {
  const int64_t* offsets;  // [R + 1], sums of the counts
  int64_t* ray_indices;    // [S]
  float* t_starts;         // [S]
  float* points;           // [S, 3], at the middles
};

// CPU, rays [begin, end): which intervals are kept, and then the samples.
void march_count(const MarchShape& shape, const MarchInputs& in, const MarchFound& found, int64_t begin, int64_t end);
void march_fill(const MarchShape& shape, const MarchInputs& in, const MarchFound& found, const MarchSamples& out,
                int64_t begin, int64_t end);

}  // namespace sds3d
