// Triangles on the CPU. Included once per instruction set by triangles_{baseline,avx2,avx512}.cpp.
//
// Most faces of a fine mesh are about as large as a pixel, so rows of pixels would leave vectors empty: corners are
// read for a block of faces at a time, and of a face's box up to 16 pixels, of several rows, are looked at together.
// The loops without branches are those that the compiler makes vector code of.
#pragma once

#include <algorithm>

#include "../simd/lanes.h"
#include "triangle_math.h"

namespace sds3d {
namespace SDS3D_ISA {

constexpr int BLOCK = 64;  // faces or pixels
constexpr int LOOK = 16;   // pixels of a box looked at together

// Of pixel k of a box that is `width` wide: its row and its column.
struct BoxTable {
  int32_t row[LOOK + 1][LOOK], column[LOOK + 1][LOOK];
};

constexpr BoxTable make_box_table() {
  BoxTable table = {};
  for (int width = 1; width <= LOOK; ++width) {
    for (int k = 0; k < LOOK; ++k) table.row[width][k] = k / width, table.column[width][k] = k % width;
  }
  return table;
}

static constexpr BoxTable BOX = make_box_table();

struct TriangleBlock {
  alignas(64) float x[3][BLOCK], y[3][BLOCK], z[3][BLOCK];

  void load(const float* points, const int32_t* corners, int j) {
    for (int i = 0; i < 3; ++i) {
      const float* p = points + 3 * int64_t(corners[i]);
      x[i][j] = p[0], y[i][j] = p[1], z[i][j] = p[2];
    }
  }

  Triangle at(const TriangleShape& shape, int j) const {
    const float xs[3] = {x[0][j], x[1][j], x[2][j]}, ys[3] = {y[0][j], y[1][j], y[2][j]};
    const float zs[3] = {z[0][j], z[1][j], z[2][j]};
    return make_triangle(shape, xs, ys, zs);
  }
};

// Draws the part of a face in rows up to y1 where it is nearer than what is there.
static inline void draw(const TriangleShape& shape, const TriangleOutputs& out, const Triangle& t, int y0, int y1,
                        int32_t face) {
  const int span = std::min(t.x1 - t.x0 + 1, LOOK), rows = LOOK / span;
  alignas(64) float depth[LOOK], barycentric[3][LOOK];
  alignas(64) int32_t at[LOOK];
  uint8_t nearer[LOOK];
  for (int y = y0; y <= y1; y += rows) {
    for (int x = t.x0; x <= t.x1; x += span) {
      for (int k = 0; k < LOOK; ++k) {
        const int row = y + BOX.row[span][k], column = x + BOX.column[span][k];
        const Sample s = sample_at(t, float(column) + 0.5f, float(row) + 0.5f);
        for (int i = 0; i < 3; ++i) barycentric[i][k] = s.barycentric[i];
        depth[k] = s.depth;
        at[k] = row * shape.width + column;
      }
      const int count = std::min(rows, y1 - y + 1) * std::min(span, t.x1 - x + 1);
      int found = 0;
      for (int k = 0; k < count; ++k) {
        nearer[found] = uint8_t(k);
        found += depth[k] < out.depth[at[k]] ? 1 : 0;
      }
      for (int n = 0; n < found; ++n) {
        const int k = nearer[n];
        out.depth[at[k]] = depth[k];
        out.face[at[k]] = face;
        for (int i = 0; i < 3; ++i) out.barycentric[3 * int64_t(at[k]) + i] = barycentric[i][k];
      }
    }
  }
}

static void rasterize(const TriangleShape& shape_, const TriangleInputs& in, const TriangleOutputs& all, int64_t view,
                      int first_row, int end_row) {
  const TriangleShape shape = shape_;  // a copy, so that no store can change it
  const TriangleOutputs out = {all.face + view * shape.pixels(), all.barycentric + 3 * view * shape.pixels(),
                               all.depth + view * shape.pixels()};
  const int64_t begin = int64_t(first_row) * shape.width, end = int64_t(end_row) * shape.width;
  std::fill(out.face + begin, out.face + end, -1);
  std::fill(out.barycentric + 3 * begin, out.barycentric + 3 * end, 0.0f);
  std::fill(out.depth + begin, out.depth + end, INFINITY);
  const float* points = in.points + 3 * view * shape.vertices;
  TriangleBlock corners = {};
  alignas(64) float inverse_z[3][BLOCK];
  alignas(64) int x0[BLOCK], x1[BLOCK], y0[BLOCK], y1[BLOCK];
  for (int64_t first = 0; first < shape.faces; first += BLOCK) {
    const int count = int(std::min<int64_t>(shape.faces - first, BLOCK));
    for (int j = 0; j < count; ++j) corners.load(points, in.faces + 3 * (first + j), j);
    for (int j = 0; j < BLOCK; ++j) {
      const Triangle t = corners.at(shape, j);
      for (int i = 0; i < 3; ++i) inverse_z[i][j] = t.inverse_z[i];
      x0[j] = t.x0, x1[j] = t.x1;
      y0[j] = std::max(t.y0, first_row), y1[j] = std::min(t.y1, end_row - 1);
    }
    uint8_t drawn[BLOCK];
    int found = 0;
    for (int j = 0; j < count; ++j) {
      drawn[found] = uint8_t(j);
      found += (x0[j] <= x1[j]) & (y0[j] <= y1[j]);
    }
    for (int n = 0; n < found; ++n) {
      const int j = drawn[n];
      Triangle t;
      for (int i = 0; i < 3; ++i) t.x[i] = corners.x[i][j], t.y[i] = corners.y[i][j], t.inverse_z[i] = inverse_z[i][j];
      t.x0 = x0[j], t.x1 = x1[j];
      draw(shape, out, t, y0[j], y1[j], int32_t(first + j));
    }
  }
}

// Pixels that see a face, a block at a time.
struct PixelBlock {
  TriangleBlock corners;
  alignas(64) float cx[BLOCK], cy[BLOCK], grad[3][BLOCK], result[9][BLOCK];
  const int32_t* vertex[BLOCK];

  void add_to(const TriangleShape& shape, float* grad_points, int count) {
    for (int j = 0; j < BLOCK; ++j) {
      const float upstream[3] = {grad[0][j], grad[1][j], grad[2][j]};
      float r[3][3];
      pixel_gradient(corners.at(shape, j), cx[j], cy[j], upstream, r);
      for (int i = 0; i < 9; ++i) result[i][j] = r[i / 3][i % 3];
    }
    for (int j = 0; j < count; ++j) {
      for (int i = 0; i < 9; ++i) grad_points[3 * int64_t(vertex[j][i / 3]) + i % 3] += result[i][j];
    }
  }
};

static void rasterize_backward(const TriangleShape& shape_, const TriangleInputs& in, const int32_t* face,
                               const float* grad_barycentric, float* grad_points, int64_t view) {
  const TriangleShape shape = shape_;
  const float* points = in.points + 3 * view * shape.vertices;
  PixelBlock block = {};
  int count = 0;
  for (int y = 0; y < shape.height; ++y) {
    for (int x = 0; x < shape.width; ++x) {
      const int64_t at = view * shape.pixels() + int64_t(y) * shape.width + x;
      if (face[at] < 0) continue;
      block.vertex[count] = in.faces + 3 * int64_t(face[at]);
      block.corners.load(points, block.vertex[count], count);
      block.cx[count] = float(x) + 0.5f, block.cy[count] = float(y) + 0.5f;
      for (int i = 0; i < 3; ++i) block.grad[i][count] = grad_barycentric[3 * at + i];
      if (++count < BLOCK) continue;
      block.add_to(shape, grad_points + 3 * view * shape.vertices, count);
      count = 0;
    }
  }
  block.add_to(shape, grad_points + 3 * view * shape.vertices, count);
}

}  // namespace SDS3D_ISA
}  // namespace sds3d
