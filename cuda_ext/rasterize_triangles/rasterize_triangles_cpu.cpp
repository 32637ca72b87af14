// Triangles on the CPU: one pass finds the nearest face of each pixel, a second writes what is wanted of it, so that
// faces which others hide cost little.
#include <algorithm>

#include "triangle_math.h"

namespace sds3d {

void rasterize_triangles(const TriangleShape& shape, const TriangleInputs& in, const TriangleOutputs& out,
                         float* inverse_depth, int64_t view, int first_row, int end_row) {
  int32_t* nearest = out.face + view * shape.pixels();
  std::fill(inverse_depth + int64_t(first_row) * shape.width, inverse_depth + int64_t(end_row) * shape.width, 0.0f);
  std::fill(nearest + int64_t(first_row) * shape.width, nearest + int64_t(end_row) * shape.width, -1);
  for (int64_t face = 0; face < shape.faces; ++face) {
    const Triangle t = triangle_at(shape, in, view, face);
    const int y1 = std::min(t.y1, end_row - 1);
    for (int y = std::max(t.y0, first_row); y <= y1; ++y) {
      for (int x = t.x0; x <= t.x1; ++x) {
        const Coverage c = coverage_at(t, float(x) + 0.5f, float(y) + 0.5f);
        const int64_t at = int64_t(y) * shape.width + x;
        if (c.total == 0.0f) continue;
        const float here = c.over_depth / c.total;
        if (here > inverse_depth[at]) {
          inverse_depth[at] = here;
          nearest[at] = int32_t(face);
        }
      }
    }
  }
  for (int y = first_row; y < end_row; ++y) {
    for (int x = 0; x < shape.width; ++x) {
      write_pixel(shape, in, out, view, y, x, nearest[int64_t(y) * shape.width + x]);
    }
  }
}

void rasterize_triangles_backward(const TriangleShape& shape, const TriangleInputs& in, const int32_t* face,
                                  const float* grad_barycentric, float* grad_points, int64_t view) {
  float* grad = grad_points + view * shape.vertices * 3;
  for (int y = 0; y < shape.height; ++y) {
    for (int x = 0; x < shape.width; ++x) {
      const int64_t at = view * shape.pixels() + int64_t(y) * shape.width + x;
      if (face[at] < 0) continue;
      float result[3][3];
      pixel_gradient(shape, in, view, y, x, face[at], grad_barycentric + 3 * at, result);
      for (int i = 0; i < 3; ++i) {
        float* corner = grad + 3 * int64_t(in.faces[3 * int64_t(face[at]) + i]);
        for (int k = 0; k < 3; ++k) corner[k] += result[i][k];
      }
    }
  }
}

}  // namespace sds3d
