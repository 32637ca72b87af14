// Solids on the CPU. Included once per instruction set by solids_{baseline,avx2}.cpp.
//
// Row of samples by row, 16 neighbouring rays at a time. The loops over lanes have no branches: the compiler makes
// vector code of them. A solid is tried only within the box of its corners on the screen.
#pragma once

#include <algorithm>
#include <cmath>

#include "../simd/lanes.h"  // for SDS3D_ISA
#include "hit_solids.h"
#include "paint_solids.h"

namespace sds3d {
namespace SDS3D_ISA {

// A solid as one view sees it: directions in its frame are corner + x * right + y * down at sample (x, y) + 1/2.
struct SolidInView {
  const SolidRow* row;
  float origin[3], corner[3], right[3], down[3];
  float normal_to_world[3][3];
  int x0, x1, y0, y1;  // samples that may show it: [x0, x1) by [y0, y1)
};
static_assert(sizeof(SolidInView) <= PREPARED_NUMBERS * sizeof(float));

// The rays of a view on a grid of samples.
struct SampleGrid {
  int width, height;
  float origin[3], corner[3], right[3], down[3];
};

static SampleGrid sample_grid(const SolidShape& shape, const SolidInputs& in, int64_t view, int samples) {
  const float *pose = in.camera_to_world + 16 * view, *inverse = in.to_camera + 9 * view;
  SampleGrid grid = {shape.width * samples, shape.height * samples, {}, {}, {}, {}};
  for (int i = 0; i < 3; ++i) {
    float ray[3] = {};  // of a pixel to the right, one down, and the upper left corner of the image
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 3; ++k) ray[k] += pose[4 * i + j] * inverse[3 * j + k];
    }
    grid.origin[i] = pose[4 * i + 3];
    grid.right[i] = ray[0] / float(samples), grid.down[i] = ray[1] / float(samples);
    grid.corner[i] = ray[2] + 0.5f * (grid.right[i] + grid.down[i]);
  }
  return grid;
}

// Samples within the box of the solid's corners on the screen; all where a corner is behind the camera.
static void bound(const SampleGrid& grid, const float (&rotation)[3][3], SolidInView* solid) {
  const SolidRow& row = *solid->row;
  const SolidKind kind = SolidKind(int(row.shape));
  float reach[3] = {1.0f, 1.0f, 1.0f};
  if (kind == SolidKind::RING) reach[0] = reach[1] = 1.0f + row.tube, reach[2] = row.tube;
  if (kind == SolidKind::FRUSTUM || kind == SolidKind::CUP) reach[0] = reach[1] = std::max(row.bottom, row.top);
  // p - origin = z (corner + x right + y down): solved by the cross products of the three.
  float across[3][3], volume = 0.0f;
  const float* sides[3] = {grid.right, grid.down, grid.corner};
  for (int i = 0; i < 3; ++i) {
    const float *a = sides[(i + 1) % 3], *b = sides[(i + 2) % 3];
    for (int k = 0; k < 3; ++k) across[i][k] = a[(k + 1) % 3] * b[(k + 2) % 3] - a[(k + 2) % 3] * b[(k + 1) % 3];
  }
  for (int k = 0; k < 3; ++k) volume += across[2][k] * grid.corner[k];
  float low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
  bool in_front = true;
  for (int corner = 0; corner < 8; ++corner) {
    float seen[3] = {};
    for (int i = 0; i < 3; ++i) {
      float p = row.center[i] - grid.origin[i];
      for (int j = 0; j < 3; ++j) p += rotation[i][j] * row.size[j] * ((corner >> j & 1) ? reach[j] : -reach[j]);
      for (int k = 0; k < 3; ++k) seen[k] += across[k][i] * p / volume;
    }
    in_front = in_front && seen[2] > 1e-3f;
    for (int k = 0; k < 2; ++k) {
      const float at = seen[k] / seen[2];
      low[k] = std::min(low[k], at), high[k] = std::max(high[k], at);
    }
  }
  const float sizes[2] = {float(grid.width), float(grid.height)};
  int begin[2], end[2];
  for (int k = 0; k < 2; ++k) {
    begin[k] = in_front ? int(std::clamp(std::floor(low[k]) - 1.0f, 0.0f, sizes[k])) : 0;
    end[k] = in_front ? int(std::clamp(std::ceil(high[k]) + 2.0f, 0.0f, sizes[k])) : int(sizes[k]);
  }
  solid->x0 = begin[0], solid->x1 = end[0], solid->y0 = begin[1], solid->y1 = end[1];
}

static SolidInView place(const SampleGrid& grid, const SolidRow* row) {
  const float cz = std::cos(row->yaw), sz = std::sin(row->yaw), cy = std::cos(row->pitch), sy = std::sin(row->pitch);
  const float cx = std::cos(row->roll), sx = std::sin(row->roll);
  const float rotation[3][3] = {{cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx},
                                {sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx},
                                {-sy, cy * sx, cy * cx}};
  SolidInView solid = {};
  solid.row = row;
  for (int j = 0; j < 3; ++j) {
    for (int i = 0; i < 3; ++i) {
      const float turn = rotation[i][j] / row->size[j];
      solid.origin[j] += turn * (grid.origin[i] - row->center[i]);
      solid.corner[j] += turn * grid.corner[i];
      solid.right[j] += turn * grid.right[i];
      solid.down[j] += turn * grid.down[i];
      solid.normal_to_world[i][j] = turn;
    }
  }
  bound(grid, rotation, &solid);
  return solid;
}

static inline void directions(const float* corner, const float* right, const float* down, int x, int y, Vectors* out) {
  for (int i = 0; i < 3; ++i) {
    const float start = corner[i] + float(y) * down[i];
    for (int k = 0; k < SOLID_LANES; ++k) out->at[i][k] = start + float(x + k) * right[i];
  }
}

// Working memory for one row of samples, and the sums of the colours of a row of pixels.
struct SampleRow {
  float *distance, *normal[3], *sum[4];
  int32_t* part;
};

// First hits of the row: distance, normal in the solid's frame, and part.
static void hit_row(const SampleGrid& grid, const SolidInView* solids, int count, int y, const SampleRow& row) {
  const int padded = (grid.width + SOLID_LANES - 1) / SOLID_LANES * SOLID_LANES;
  std::fill(row.distance, row.distance + padded, NEVER);
  std::fill(row.part, row.part + padded, -1);
  for (int s = 0; s < count; ++s) {
    const SolidInView& solid = solids[s];
    if (y < solid.y0 || y >= solid.y1) continue;
    for (int x = solid.x0 / SOLID_LANES * SOLID_LANES; x < solid.x1; x += SOLID_LANES) {
      Vectors d;
      directions(solid.corner, solid.right, solid.down, x, y, &d);
      Hits hits;
      if (!hit_solid(*solid.row, solid.origin, d, &hits)) continue;
      for (int k = 0; k < SOLID_LANES; ++k) {
        const bool closer = hits.distance[k] < row.distance[x + k];
        row.distance[x + k] = closer ? hits.distance[k] : row.distance[x + k];
        row.part[x + k] = closer ? 2 * s + hits.inside[k] : row.part[x + k];
        for (int i = 0; i < 3; ++i) row.normal[i][x + k] = closer ? hits.normal.at[i][k] : row.normal[i][x + k];
      }
    }
  }
}

// Adds the colours of 16 samples that show `part` or the inside of the same solid.
static void add_colors(const SampleGrid& grid, const SolidInView& solid, const float* dots, int part, int x, int y,
                       const SampleRow& row) {
  Vectors d, points, normals, colors;
  directions(grid.corner, grid.right, grid.down, x, y, &d);
  for (int i = 0; i < 3; ++i) {
    for (int k = 0; k < SOLID_LANES; ++k) {
      points.at[i][k] = grid.origin[i] + d.at[i][k] * row.distance[x + k];
      normals.at[i][k] = solid.normal_to_world[i][0] * row.normal[0][x + k] +
                         solid.normal_to_world[i][1] * row.normal[1][x + k] +
                         solid.normal_to_world[i][2] * row.normal[2][x + k];
    }
  }
  normalize(&normals);
  paint(*solid.row, dots, points, normals, &colors);
  for (int k = 0; k < SOLID_LANES; ++k) {
    const bool shown = row.part[x + k] >> 1 == part >> 1;
    for (int i = 0; i < 3; ++i) row.sum[i][x + k] += shown ? colors.at[i][k] : 0.0f;
    row.sum[3][x + k] += shown ? 1.0f : 0.0f;
  }
}

static void color_row(const SampleGrid& grid, const SolidInView* solids, const float* dots, int y,
                      const SampleRow& row) {
  for (int x = 0; x < grid.width; x += SOLID_LANES) {
    const int32_t* parts = row.part + x;
    uint32_t left = 0;
    for (int k = 0; k < SOLID_LANES; ++k) left |= uint32_t(parts[k] >= 0) << k;
    while (left != 0) {
      const int part = parts[__builtin_ctz(left)];
      add_colors(grid, solids[part >> 1], dots, part, x, y, row);
      for (int k = 0; k < SOLID_LANES; ++k) left &= ~(uint32_t(parts[k] >> 1 == part >> 1) << k);
    }
  }
}

// Depth and part at the middles of a row of pixels.
static void keep_centers(const SampleGrid& grid, int y, const SampleRow& row, int step, int width, float* depth,
                         int32_t* part) {
  for (int x = 0; x < width; ++x) {
    const int at = x * step + step / 2;
    float squared = 0.0f, along = 0.0f;
    for (int i = 0; i < 3; ++i) {
      const float d = grid.corner[i] + float(y) * grid.down[i] + float(at) * grid.right[i];
      squared += d * d, along += d * grid.origin[i];
    }
    const float length = std::sqrt(squared);
    part[x] = row.part[at];
    depth[x] = part[x] < 0 ? 0.0f : row.distance[at] * length + along / length;
  }
}

static void render_solids(const SolidShape& shape_, const SolidInputs& in, const SolidOutputs& all, int64_t view,
                          float* scratch) {
  const SolidShape shape = shape_;
  const int64_t first = in.ranges[2 * view], pixels = int64_t(shape.height) * shape.width;
  const int count = int(in.ranges[2 * view + 1] - first), n = shape.samples;
  const int64_t padded = (int64_t(shape.width) * n + SOLID_LANES - 1) / SOLID_LANES * SOLID_LANES;
  SampleRow row;
  row.distance = scratch;
  for (int i = 0; i < 3; ++i) row.normal[i] = scratch + (1 + i) * padded;
  for (int i = 0; i < 4; ++i) row.sum[i] = scratch + (4 + i) * padded;
  row.part = reinterpret_cast<int32_t*>(scratch + 8 * padded);
  std::fill(row.normal[0], row.sum[0], 0.0f);
  SolidInView* solids = reinterpret_cast<SolidInView*>(scratch + SOLID_ROWS * padded);
  float *rgba = all.rgba + 4 * view * pixels, *depth = all.depth + view * pixels;
  int32_t* part = all.part + view * pixels;
  const SampleGrid grid = sample_grid(shape, in, view, n);
  for (int s = 0; s < count; ++s) solids[s] = place(grid, in.solids + first + s);
  for (int y = 0; y < shape.height; ++y) {
    std::fill(row.sum[0], row.sum[0] + 4 * padded, 0.0f);
    for (int j = 0; j < n; ++j) {
      hit_row(grid, solids, count, y * n + j, row);
      color_row(grid, solids, in.dots, y * n + j, row);
      if (n % 2 == 1 && j == n / 2)
        keep_centers(grid, y * n + j, row, n, shape.width, depth + y * shape.width, part + y * shape.width);
    }
    for (int x = 0; x < shape.width; ++x) {
      for (int i = 0; i < 4; ++i) {
        float sum = 0.0f;
        for (int k = 0; k < n; ++k) sum += row.sum[i][x * n + k];
        rgba[4 * (int64_t(y) * shape.width + x) + i] = sum / float(n * n);
      }
    }
  }
  if (n % 2 == 1) return;
  const SampleGrid centers = sample_grid(shape, in, view, 1);  // no sample of an even number is in the middle
  for (int s = 0; s < count; ++s) solids[s] = place(centers, in.solids + first + s);
  for (int y = 0; y < shape.height; ++y) {
    hit_row(centers, solids, count, y, row);
    keep_centers(centers, y, row, 1, shape.width, depth + y * shape.width, part + y * shape.width);
  }
}

}  // namespace SDS3D_ISA
}  // namespace sds3d
