// First hits of 16 rays with a solid, in its own frame: distance in lengths of the direction, and a normal of any
// length.
#pragma once

#include <cmath>

#include "../simd/lanes.h"
#include "render_solids.h"

namespace sds3d {
namespace SDS3D_ISA {

static constexpr float NEVER = INFINITY, TINY = 1e-9f;
static constexpr int TRACE_STEPS = 40;
static constexpr float TRACE_END = 1e-7f, TRACE_HIT = 1e-2f;

struct Vectors {
  alignas(64) float at[3][SOLID_LANES];
};

struct Hits {
  alignas(64) float distance[SOLID_LANES];
  Vectors normal;
  alignas(64) int32_t inside[SOLID_LANES];  // 1: a cup's inside
};

// Half-spaces n.p <= 1 of the convex shapes other than the box.
static constexpr float PYRAMID[5][3] = {{2, 0, 1}, {-2, 0, 1}, {0, 2, 1}, {0, -2, 1}, {0, 0, -1}};
static constexpr float ROOF[5][3] = {{2, 0, 1}, {-2, 0, 1}, {0, 1, 0}, {0, -1, 0}, {0, 0, -1}};

static inline float max_zero(float x) { return x > 0.0f ? x : 0.0f; }
static inline float away_from_zero(float x) { return std::fabs(x) < TINY ? TINY : x; }

static inline void hit_ball(const float* o, const Vectors& d, Hits* hits) {
  const float c = o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1.0f;
  for (int k = 0; k < SOLID_LANES; ++k) {
    const float x = d.at[0][k], y = d.at[1][k], z = d.at[2][k];
    const float a = x * x + y * y + z * z, b = o[0] * x + o[1] * y + o[2] * z, root = b * b - a * c;
    const float distance = (-b - std::sqrt(max_zero(root))) / a;
    hits->distance[k] = (root > 0.0f) & (distance > 0.0f) ? distance : NEVER;
    for (int i = 0; i < 3; ++i) hits->normal.at[i][k] = o[i] + d.at[i][k] * distance;
  }
}

// Where rays enter and leave what is the inside of all half-spaces passed so far. One loop for each, over arrays: that
// is what the compiler makes vector code of.
struct Span {
  alignas(64) float enter[SOLID_LANES], leave[SOLID_LANES];

  Span() {
    for (int k = 0; k < SOLID_LANES; ++k) enter[k] = -NEVER, leave[k] = NEVER;
  }
  void hits_of(Hits* hits) const {
    for (int k = 0; k < SOLID_LANES; ++k) {
      hits->distance[k] = (enter[k] < leave[k]) & (enter[k] > 0.0f) ? enter[k] : NEVER;
    }
  }
};

static inline void hit_box(const float* o, const Vectors& d, Hits* hits) {
  Span span;
  alignas(64) int32_t axis[SOLID_LANES] = {};
  alignas(64) float low[SOLID_LANES], high[SOLID_LANES];
  for (int i = 0; i < 3; ++i) {
    for (int k = 0; k < SOLID_LANES; ++k) {
      const float inverse = 1.0f / away_from_zero(d.at[i][k]);
      low[k] = (-1.0f - o[i]) * inverse, high[k] = (1.0f - o[i]) * inverse;
    }
    for (int k = 0; k < SOLID_LANES; ++k) {
      const float a = low[k], b = high[k];
      low[k] = a < b ? a : b, high[k] = a < b ? b : a;
    }
    for (int k = 0; k < SOLID_LANES; ++k) axis[k] = low[k] > span.enter[k] ? i : axis[k];
    for (int k = 0; k < SOLID_LANES; ++k) span.enter[k] = low[k] > span.enter[k] ? low[k] : span.enter[k];
    for (int k = 0; k < SOLID_LANES; ++k) span.leave[k] = high[k] < span.leave[k] ? high[k] : span.leave[k];
  }
  span.hits_of(hits);
  for (int i = 0; i < 3; ++i) {
    for (int k = 0; k < SOLID_LANES; ++k) {
      const float against = d.at[i][k] > 0.0f ? -1.0f : 1.0f;
      hits->normal.at[i][k] = axis[k] == i ? against : 0.0f;
    }
  }
}

static inline void hit_convex(const float (&planes)[5][3], const float* o, const Vectors& d, Hits* hits) {
  Span span;
  alignas(64) float slope[SOLID_LANES], distance[SOLID_LANES];
  alignas(64) int32_t later[SOLID_LANES];
  for (const float(&n)[3] : planes) {
    const float above = 1.0f - (o[0] * n[0] + o[1] * n[1] + o[2] * n[2]);
    for (int k = 0; k < SOLID_LANES; ++k) {
      slope[k] = d.at[0][k] * n[0] + d.at[1][k] * n[1] + d.at[2][k] * n[2];
      distance[k] = above / away_from_zero(slope[k]);
    }
    for (int k = 0; k < SOLID_LANES; ++k) later[k] = int(slope[k] < 0.0f) & int(distance[k] > span.enter[k]);
    for (int k = 0; k < SOLID_LANES; ++k) span.enter[k] = later[k] != 0 ? distance[k] : span.enter[k];
    for (int k = 0; k < SOLID_LANES; ++k) {
      const int sooner = int(slope[k] >= 0.0f) & int(distance[k] < span.leave[k]);
      span.leave[k] = sooner != 0 ? distance[k] : span.leave[k];
    }
    for (int i = 0; i < 3; ++i) {
      for (int k = 0; k < SOLID_LANES; ++k) hits->normal.at[i][k] = later[k] != 0 ? n[i] : hits->normal.at[i][k];
    }
  }
  span.hits_of(hits);
}

static inline void keep(bool closer, float distance, float x, float y, float z, int k, Hits* hits) {
  const float t = hits->distance[k], nx = hits->normal.at[0][k], ny = hits->normal.at[1][k], nz = hits->normal.at[2][k];
  closer = closer & (distance < t);
  hits->distance[k] = closer ? distance : t;
  hits->normal.at[0][k] = closer ? x : nx;
  hits->normal.at[1][k] = closer ? y : ny;
  hits->normal.at[2][k] = closer ? z : nz;
}

// x^2 + y^2 = (middle + slope z)^2 between z = -1 and z = 1, with its caps; a cup lacks the upper one.
static inline void hit_frustum(const SolidRow& row, bool open, const float* o, const Vectors& d, Hits* hits) {
  const float middle = (row.bottom + row.top) / 2.0f, slope = (row.top - row.bottom) / 2.0f;
  const float radius_o = middle + slope * o[2], c = o[0] * o[0] + o[1] * o[1] - radius_o * radius_o;
  const auto& [dx, dy, dz] = d.at;
  for (int k = 0; k < SOLID_LANES; ++k) hits->distance[k] = NEVER;
  for (const float side : {-1.0f, 1.0f}) {
    for (int k = 0; k < SOLID_LANES; ++k) {
      const float x = dx[k], y = dy[k], z = dz[k], radius_d = slope * z;
      const float a = away_from_zero(x * x + y * y - radius_d * radius_d);
      const float b = o[0] * x + o[1] * y - radius_o * radius_d, root = b * b - a * c;
      const float t = (-b + side * std::sqrt(max_zero(root))) / a, pz = o[2] + z * t, radius = middle + slope * pz;
      const bool wall = (root > 0.0f) & (t > 0.0f) & (std::fabs(pz) <= 1.0f) & (radius > 0.0f);
      keep(wall, t, o[0] + x * t, o[1] + y * t, -slope * radius, k, hits);
    }
  }
  for (const float level : {-1.0f, 1.0f}) {
    if (level > 0.0f && open) break;
    const float radius = level < 0.0f ? row.bottom : row.top, squared = radius * radius;
    for (int k = 0; k < SOLID_LANES; ++k) {
      const float t = (level - o[2]) / away_from_zero(dz[k]), x = o[0] + dx[k] * t, y = o[1] + dy[k] * t;
      keep((t > 0.0f) & (x * x + y * y <= squared), t, 0.0f, 0.0f, level, k, hits);
    }
  }
  if (!open) return;
  auto& [nx, ny, nz] = hits->normal.at;
  for (int k = 0; k < SOLID_LANES; ++k) {  // a thin wall is seen from both sides
    const bool inside = nx[k] * dx[k] + ny[k] * dy[k] + nz[k] * dz[k] > 0.0f;
    const float sign = inside ? -1.0f : 1.0f;
    hits->inside[k] = inside ? 1 : 0;
    nx[k] *= sign, ny[k] *= sign, nz[k] *= sign;
  }
}

// Sphere tracing of the torus' exact distance, between the hits of its ball.
static inline void hit_ring(float tube, const float* o, const Vectors& d, Hits* hits) {
  alignas(64) float along[SOLID_LANES], far[SOLID_LANES], length[SOLID_LANES], gap[SOLID_LANES];
  Vectors u;
  const float c = o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - (1.0f + tube) * (1.0f + tube);
  int passing = 0;
  for (int k = 0; k < SOLID_LANES; ++k) {
    const float x = d.at[0][k], y = d.at[1][k], z = d.at[2][k];
    length[k] = std::sqrt(x * x + y * y + z * z);
    for (int i = 0; i < 3; ++i) u.at[i][k] = d.at[i][k] / length[k];
    const float b = o[0] * u.at[0][k] + o[1] * u.at[1][k] + o[2] * u.at[2][k], root = b * b - c;
    const float spread = std::sqrt(max_zero(root));
    const bool passes = (root > 0.0f) & (-b - spread > 0.0f);
    along[k] = passes ? -b - spread : 0.0f;
    far[k] = passes ? -b + spread : -1.0f;
    passing |= passes ? 1 : 0;
  }
  for (int k = 0; k < SOLID_LANES; ++k) hits->distance[k] = NEVER;
  if (passing == 0) return;
  for (int step = 0; step <= TRACE_STEPS; ++step) {
    int moving = 0;
    for (int k = 0; k < SOLID_LANES; ++k) {
      const float x = o[0] + u.at[0][k] * along[k], y = o[1] + u.at[1][k] * along[k], z = o[2] + u.at[2][k] * along[k];
      const float flat = std::sqrt(x * x + y * y) - 1.0f;
      gap[k] = std::sqrt(flat * flat + z * z) - tube;
      moving |= (gap[k] > TRACE_END) & (along[k] < far[k]) ? 1 : 0;
    }
    if (moving == 0 || step == TRACE_STEPS) break;
    for (int k = 0; k < SOLID_LANES; ++k) along[k] += gap[k];
  }
  for (int k = 0; k < SOLID_LANES; ++k) {
    const float x = o[0] + u.at[0][k] * along[k], y = o[1] + u.at[1][k] * along[k], z = o[2] + u.at[2][k] * along[k];
    const float inverse = 1.0f / std::sqrt(x * x + y * y);
    hits->distance[k] = (gap[k] < TRACE_HIT) & (along[k] < far[k]) ? along[k] / length[k] : NEVER;
    hits->normal.at[0][k] = x - x * inverse;
    hits->normal.at[1][k] = y - y * inverse;
    hits->normal.at[2][k] = z;
  }
}

// False if none of the rays hits.
static bool hit_solid(const SolidRow& row, const float* o, const Vectors& d, Hits* hits) {
  for (int k = 0; k < SOLID_LANES; ++k) hits->inside[k] = 0;
  switch (SolidKind(int(row.shape))) {
    case SolidKind::BALL:
      hit_ball(o, d, hits);
      break;
    case SolidKind::BOX:
      hit_box(o, d, hits);
      break;
    case SolidKind::FRUSTUM:
      hit_frustum(row, false, o, d, hits);
      break;
    case SolidKind::CUP:
      hit_frustum(row, true, o, d, hits);
      break;
    case SolidKind::RING:
      hit_ring(row.tube, o, d, hits);
      break;
    case SolidKind::PYRAMID:
      hit_convex(PYRAMID, o, d, hits);
      break;
    case SolidKind::ROOF:
      hit_convex(ROOF, o, d, hits);
      break;
  }
  int found = 0;
  for (int k = 0; k < SOLID_LANES; ++k) found |= hits->distance[k] < NEVER ? 1 : 0;
  return found != 0;
}

}  // namespace SDS3D_ISA
}  // namespace sds3d
