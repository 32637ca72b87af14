// Where a point lies within a level and which entries its corners have: the same for CPU and CUDA.
#pragma once

#include "hash_encode.h"

namespace sds3d {

constexpr uint32_t PRIME_Y = 2654435761u, PRIME_Z = 805459861u;  // section 3 of the paper; x has 1

struct Place {
  int32_t low;   // corner of the cell
  float above;   // [0, 1] within the cell; NaN where the point is
  float inside;  // 1 where the point is not clamped, else 0
};

// Of one coordinate.
SDS3D_HD Place place_of(float p, int32_t cells) {
  const float clamped = p < 0.0f ? 0.0f : (p > 1.0f ? 1.0f : p);  // NaN stays
  const float at = clamped * float(cells);
  const float safe = at >= 0.0f ? at : 0.0f;  // a NaN must not become an integer
  const int32_t whole = int32_t(safe);
  const int32_t low = whole < cells - 1 ? whole : cells - 1;
  return {low, at - float(low), p >= 0.0f && p <= 1.0f ? 1.0f : 0.0f};
}

// Entry of a corner within its level. 32-bit arithmetic wraps, and the low bits are those of the wide product.
SDS3D_HD uint32_t corner_entry(const HashLevel& level, int32_t x, int32_t y, int32_t z) {
  if (level.mask != 0) return (uint32_t(x) ^ uint32_t(y) * PRIME_Y ^ uint32_t(z) * PRIME_Z) & level.mask;
  const uint32_t side = uint32_t(level.cells) + 1u;
  return (uint32_t(x) * side + uint32_t(y)) * side + uint32_t(z);
}

// Adds the gradient to a point from one level; value[k] = <upstream, entry of corner k>, bit 2 of k: x, bit 1: y, bit
// 0: z.
SDS3D_HD void add_point_gradient(const float* value, const Place& px, const Place& py, const Place& pz, float cells,
                                 float* sum) {
  const float x = px.above, y = py.above, z = pz.above, x0 = 1.0f - x, y0 = 1.0f - y, z0 = 1.0f - z;
  const float dx = y0 * (z0 * (value[4] - value[0]) + z * (value[5] - value[1])) +
                   y * (z0 * (value[6] - value[2]) + z * (value[7] - value[3]));
  const float dy = x0 * (z0 * (value[2] - value[0]) + z * (value[3] - value[1])) +
                   x * (z0 * (value[6] - value[4]) + z * (value[7] - value[5]));
  const float dz = x0 * (y0 * (value[1] - value[0]) + y * (value[3] - value[2])) +
                   x * (y0 * (value[5] - value[4]) + y * (value[7] - value[6]));
  sum[0] += dx * cells * px.inside;
  sum[1] += dy * cells * py.inside;
  sum[2] += dz * cells * pz.inside;
}

}  // namespace sds3d
