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
  return whole + int(float(whole) < at);
}
SDS3D_HD int last_centre(float high, int count) {
  const float at = least(most(high - 0.5f, -1.0f), float(count - 1));
  const int whole = int(at);
  return whole - int(float(whole) > at);
}

// A face that cannot be drawn (a corner behind the camera, or nowhere) has an empty box. Without branches.
SDS3D_HD Triangle make_triangle(const TriangleShape& shape, const float* x, const float* y, const float* z) {
  Triangle t;
  for (int i = 0; i < 3; ++i) t.x[i] = x[i], t.y[i] = y[i], t.inverse_z[i] = 1.0f / z[i];
  // A sum is finite if all its terms are (and of a size that an image can have).
  const float sum = x[0] + x[1] + x[2] + y[0] + y[1] + y[2] + z[0] + z[1] + z[2];
  const bool drawn = is_finite(sum) & (z[0] > MIN_DEPTH) & (z[1] > MIN_DEPTH) & (z[2] > MIN_DEPTH);
  t.x0 = first_centre(least(x[0], least(x[1], x[2])), shape.width);
  const int x1 = last_centre(most(x[0], most(x[1], x[2])), shape.width);
  t.x1 = int(drawn) * (x1 + 1) - 1;  // of a choice compilers make a branch, and then no vector code
  t.y0 = first_centre(least(y[0], least(y[1], y[2])), shape.height);
  t.y1 = last_centre(most(y[0], most(y[1], y[2])), shape.height);
  return t;
}

SDS3D_HD Triangle triangle_at(const TriangleShape& shape, const TriangleInputs& in, int64_t view, int64_t face) {
  float x[3], y[3], z[3];
  for (int i = 0; i < 3; ++i) {
    const float* p = in.points + 3 * (view * shape.vertices + in.faces[3 * face + i]);
    x[i] = p[0], y[i] = p[1], z[i] = p[2];
  }
  return make_triangle(shape, x, y, z);
}

// e_i of rasterize_triangles.h for the pixel's centre.
SDS3D_HD void areas_at(const Triangle& t, float cx, float cy, float* area) {
  const float ax = t.x[0] - cx, bx = t.x[1] - cx, dx = t.x[2] - cx;
  const float ay = t.y[0] - cy, by = t.y[1] - cy, dy = t.y[2] - cy;
  area[0] = bx * dy - by * dx, area[1] = dx * ay - dy * ax, area[2] = ax * by - ay * bx;
}

struct Sample {
  float barycentric[3];
  float depth;  // infinite where the face does not cover the pixel; the others mean nothing then
};

// Without branches: which pixels of a box are covered cannot be foreseen.
SDS3D_HD Sample sample_at(const Triangle& t, float cx, float cy) {
  float e[3];
  areas_at(t, cx, cy, e);
  const bool inside =
      ((e[0] >= 0.0f) & (e[1] >= 0.0f) & (e[2] >= 0.0f)) | ((e[0] <= 0.0f) & (e[1] <= 0.0f) & (e[2] <= 0.0f));
  const float total = e[0] + e[1] + e[2];
  for (int i = 0; i < 3; ++i) e[i] *= t.inverse_z[i];
  const float inverse = 1.0f / (e[0] + e[1] + e[2]);
  Sample s;
  for (int i = 0; i < 3; ++i) s.barycentric[i] = e[i] * inverse;
  s.depth = inside & (total != 0.0f) ? total * inverse : INFINITY;
  return s;
}

// dL/d(x, y, z) of the three corners for dL/db of one pixel. The sum of the areas cancels: with q_i = e_i / z_i and
// Q = sum q_i,  dL/dq_i = (g_i - sum_j g_j b_j) / Q.
SDS3D_HD void pixel_gradient(const Triangle& t, float cx, float cy, const float* grad, float result[3][3]) {
  float q[3];
  areas_at(t, cx, cy, q);
  for (int i = 0; i < 3; ++i) q[i] *= t.inverse_z[i];
  const float inverse = 1.0f / (q[0] + q[1] + q[2]);
  const float mean = (grad[0] * q[0] + grad[1] * q[1] + grad[2] * q[2]) * inverse;
  float de[3];
  for (int i = 0; i < 3; ++i) {
    de[i] = (grad[i] - mean) * inverse * t.inverse_z[i];
    result[i][2] = -de[i] * q[i];
  }
  for (int i = 0; i < 3; ++i) {
    const int j = (i + 1) % 3, k = (i + 2) % 3;
    result[i][0] = de[k] * (t.y[j] - cy) - de[j] * (t.y[k] - cy);
    result[i][1] = de[j] * (t.x[k] - cx) - de[k] * (t.x[j] - cx);
  }
}

}  // namespace sds3d
