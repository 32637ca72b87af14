// Multi-resolution hash encoding (Mueller et al. 2022): kernel interface. float32, row-major, contiguous.
//
//   place = clamp(p, 0, 1) cells_l,   low = min(floor(place), cells_l - 1)
//   out[l] = sum over the cell's 8 corners k of prod(1 - |place - k|) table[first_l + entry_l(k)]
//   entry_l(k): x-major where all (cells_l + 1)^3 corners fit into the level, else (x ^ 2654435761 y ^ 805459861 z) mod
//   size_l
//
// A point that is not a number is read in the level's first cells and answers with NaN. At a cell's border the gradient
// to the point is that of the cell above; outside the unit cube it is 0. Axes: P points, L levels, F features, K = L F.
#pragma once

#include "../common.h"

namespace sds3d {

constexpr int MAX_LEVELS = 32;
constexpr int MAX_FEATURES = 8;

struct HashLevel {
  int64_t first;  // row of the table
  int32_t cells;  // along a side
  uint32_t mask;  // entries - 1 where the level is hashed, else 0
};

struct HashShape {
  int64_t points;
  int levels, features;  // features: 1, 2, 4 or 8
  HashLevel level[MAX_LEVELS];
};

struct HashInputs {
  const float* points;  // [P, 3]
  const float* table;   // [E, F]
};

// CPU. Each fills or adds to its own part of the result, so that no order of threads reaches it.
struct HashKernels {
  // Points [begin, end), all levels; `out` is [P, L F].
  void (*forward)(const HashShape&, const HashInputs&, float* out, int64_t begin, int64_t end);
  // Adds all points' gradients to one level of `grad_table` [E, F]; `grad` is [P, L F].
  void (*table_gradient)(const HashShape&, const float* points, const float* grad, float* grad_table, int level);
  // Points [begin, end) of `grad_points` [P, 3], all levels.
  void (*point_gradient)(const HashShape&, const HashInputs&, const float* grad, float* grad_points, int64_t begin,
                         int64_t end);
};

extern const HashKernels HASH_KERNELS_BASELINE, HASH_KERNELS_AVX2, HASH_KERNELS_AVX512;

}  // namespace sds3d
