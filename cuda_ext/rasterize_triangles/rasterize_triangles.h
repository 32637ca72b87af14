// A z-buffer for triangles: the face that each pixel's centre sees, with perspective-correct barycentrics.
//
// Points are (x, y, z): pixels from the upper left corner, and depth along the camera's z. With the corners p_i seen
// from the pixel's centre c,
//   e_i = cross(p_j - c, p_k - c)     (i, j, k cyclic: twice the area opposite corner i, signed)
//   b_i = (e_i / z_i) / sum_j (e_j / z_j),    1 / depth = sum_j (e_j / z_j) / sum_j e_j
// A face covers the pixel if all e_i have one sign, 0 included: front and back faces alike. e_i of an edge that two
// faces share differs in nothing but its sign, so no pixel falls between them. The nearest face wins; of equally near
// ones that with the lower index.
#pragma once

#include "../common.h"

namespace sds3d {

constexpr float MIN_DEPTH = 1e-6f;  // a face with a corner nearer than this, or behind the camera, is left out

struct TriangleShape {
  int64_t views, vertices, faces;
  int height, width;

  SDS3D_SHAPE_FN int64_t pixels() const { return int64_t(height) * width; }
};

struct TriangleInputs {
  const float* points;   // [B, V, 3]
  const int32_t* faces;  // [F, 3], each in [0, V)
};

struct TriangleOutputs {
  int32_t* face;       // [B, H, W], -1 where there is none
  float* barycentric;  // [B, H, W, 3], 0 where there is none
  float* depth;        // [B, H, W], infinite where there is none
};

// CPU; compiled once per instruction set. AVX-512 gains nothing over AVX2 here: most boxes hold a few pixels.
struct TriangleKernels {
  // Rows [first_row, end_row) of one view.
  void (*forward)(const TriangleShape&, const TriangleInputs&, const TriangleOutputs&, int64_t view, int first_row,
                  int end_row);
  // Adds the gradient of one view's barycentrics [B, H, W, 3] to that of its points [B, V, 3].
  void (*backward)(const TriangleShape&, const TriangleInputs&, const int32_t* face, const float* grad_barycentric,
                   float* grad_points, int64_t view);
};
extern const TriangleKernels TRIANGLE_KERNELS_BASELINE, TRIANGLE_KERNELS_AVX2;

}  // namespace sds3d
