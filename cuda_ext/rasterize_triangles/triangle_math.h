// One triangle at one pixel, forward and backward: the same for CPU and CUDA.
#pragma once

#include "rasterize_triangles.h"

namespace sds3d {

// The corners of a face in one view, and the pixels whose centres its bounding box holds (none: x0 > x1 or y0 > y1).
struct Triangle {
  float x[3], y[3], inverse_z[3];
  int x0, x1, y0, y1;
};

// Not fminf and ceilf: without an instruction of their own they are calls, and take longer than all else here.
SDS3D_HD float least(float a, float b) { return a < b ? a : b; }
SDS3D_HD float most(float a, float b) { return a > b ? a : b; }

// Pixel centres lie at whole numbers and a half. Clamped as floats, because a corner may be farther away than an int
// holds; NaN gives the lower bound.
SDS3D_HD int first_centre(float low, int count) {
  const float at = least(most(low - 0.5f, 0.0f), float(count));
  const int whole = int(at);
  return whole + (float(whole) < at ? 1 : 0);
}
SDS3D_HD int last_centre(float high, int count) {
  const float at = least(most(high - 0.5f, -1.0f), float(count - 1));
  const int whole = int(at);
  return whole - (float(whole) > at ? 1 : 0);
}

SDS3D_HD Triangle triangle_at(const TriangleShape& shape, const TriangleInputs& in, int64_t view, int64_t face) {
  Triangle t;
  const int32_t* corners = in.faces + 3 * face;
  const float* points = in.points + view * shape.vertices * 3;
  float z[3];
  for (int i = 0; i < 3; ++i) {
    const float* p = points + 3 * int64_t(corners[i]);
    t.x[i] = p[0], t.y[i] = p[1], z[i] = p[2];
  }
  t.x0 = first_centre(least(t.x[0], least(t.x[1], t.x[2])), shape.width);
  t.x1 = last_centre(most(t.x[0], most(t.x[1], t.x[2])), shape.width);
  t.y0 = first_centre(least(t.y[0], least(t.y[1], t.y[2])), shape.height);
  t.y1 = last_centre(most(t.y[0], most(t.y[1], t.y[2])), shape.height);
  if (t.x0 > t.x1 || t.y0 > t.y1) return t;  // most faces of a fine mesh pass between the centres
  // A sum is finite if all its terms are (and of a size that an image can have).
  const bool finite = is_finite(t.x[0] + t.x[1] + t.x[2] + t.y[0] + t.y[1] + t.y[2] + z[0] + z[1] + z[2]);
  if (!finite || z[0] <= MIN_DEPTH || z[1] <= MIN_DEPTH || z[2] <= MIN_DEPTH) {
    t.x1 = t.x0 - 1;
    return t;
  }
  for (int i = 0; i < 3; ++i) t.inverse_z[i] = 1.0f / z[i];
  return t;
}

struct Coverage {
  float area[3];  // e_i of rasterize_triangles.h
  float total;    // their sum; 0: the pixel is not covered
  float over_depth;  // sum e_i / z_i; 1 / depth is this over `total`
};

SDS3D_HD Coverage coverage_at(const Triangle& t, float cx, float cy) {
  Coverage c;
  const float ax = t.x[0] - cx, bx = t.x[1] - cx, dx = t.x[2] - cx;
  const float ay = t.y[0] - cy, by = t.y[1] - cy, dy = t.y[2] - cy;
  const float e0 = bx * dy - by * dx, e1 = dx * ay - dy * ax, e2 = ax * by - ay * bx;
  c.area[0] = e0, c.area[1] = e1, c.area[2] = e2;
  // Without branches: which pixels of a box are covered cannot be foreseen.
  const bool inside = ((e0 >= 0.0f) & (e1 >= 0.0f) & (e2 >= 0.0f)) | ((e0 <= 0.0f) & (e1 <= 0.0f) & (e2 <= 0.0f));
  c.total = inside ? e0 + e1 + e2 : 0.0f;
  c.over_depth = e0 * t.inverse_z[0] + e1 * t.inverse_z[1] + e2 * t.inverse_z[2];
  return c;
}

// Writes one pixel of the results from the face that it sees.
SDS3D_HD void write_pixel(const TriangleShape& shape, const TriangleInputs& in, const TriangleOutputs& out,
                          int64_t view, int row, int column, int32_t face) {
  const int64_t at = view * shape.pixels() + int64_t(row) * shape.width + column;
  out.face[at] = face;
  if (face < 0) {
    for (int i = 0; i < 3; ++i) out.barycentric[3 * at + i] = 0.0f;
    out.depth[at] = INFINITY;
    return;
  }
  const Triangle t = triangle_at(shape, in, view, face);
  const Coverage c = coverage_at(t, float(column) + 0.5f, float(row) + 0.5f);
  const float inverse = 1.0f / c.over_depth;
  for (int i = 0; i < 3; ++i) out.barycentric[3 * at + i] = c.area[i] * t.inverse_z[i] * inverse;
  out.depth[at] = c.total * inverse;
}

// dL/d(x, y, z) of the three corners for dL/db of one pixel. The sum of the areas cancels: with q_i = e_i / z_i and
// Q = sum q_i,  dL/dq_i = (g_i - sum_j g_j b_j) / Q.
SDS3D_HD void pixel_gradient(const TriangleShape& shape, const TriangleInputs& in, int64_t view, int row, int column,
                             int32_t face, const float* grad, float result[3][3]) {
  const Triangle t = triangle_at(shape, in, view, face);
  const float cx = float(column) + 0.5f, cy = float(row) + 0.5f;
  const Coverage c = coverage_at(t, cx, cy);
  float q[3], sum = 0.0f, mean = 0.0f;
  for (int i = 0; i < 3; ++i) {
    q[i] = c.area[i] * t.inverse_z[i];
    sum += q[i];
    for (int k = 0; k < 3; ++k) result[i][k] = 0.0f;
  }
  const float inverse = 1.0f / sum;
  for (int i = 0; i < 3; ++i) mean += grad[i] * (q[i] * inverse);
  for (int i = 0; i < 3; ++i) {
    const int j = (i + 1) % 3, k = (i + 2) % 3;
    const float dq = (grad[i] - mean) * inverse, de = dq * t.inverse_z[i];
    result[i][2] -= dq * q[i] * t.inverse_z[i];
    result[j][0] += de * (t.y[k] - cy);
    result[j][1] -= de * (t.x[k] - cx);
    result[k][0] -= de * (t.y[j] - cy);
    result[k][1] += de * (t.x[j] - cx);
  }
}

}  // namespace sds3d
