// How thick a solid is at points of its surface, told by rays.
#include <algorithm>
#include <cmath>

#include "remesh.h"

namespace sds3d {

void thickness(const SurfaceTree& tree, const Vec* points, const Vec* normals, double* out, int64_t begin,
               int64_t end) {
  constexpr int DEEP = 7, ACROSS = 8;
  constexpr double TILT = 0.35;  // tangent of the cone's half angle, about 20 degrees
  for (int64_t i = begin; i < end; ++i) {
    const Vec in = -1.0 * normals[i];
    const Vec side = unit(cross(in, std::abs(in.x) < 0.6 ? Vec{1, 0, 0} : Vec{0, 1, 0})), up = cross(in, side);
    const auto around = [&](int ray, int rays) {
      const double angle = 2 * M_PI * ray / rays;
      return std::cos(angle) * side + std::sin(angle) * up;
    };
    double found[ACROSS];
    for (int ray = 0; ray < DEEP; ++ray) {
      const Vec direction = ray == 0 ? in : unit(in + TILT * around(ray, DEEP - 1));
      found[ray] = tree.ray(points[i], direction, 0);
    }
    std::nth_element(found, found + DEEP / 2, found + DEEP);
    const double depth = found[DEEP / 2];
    if (std::isfinite(depth)) {
      const Vec middle = points[i] + 0.5 * depth * in;
      for (int ray = 0; ray < ACROSS; ++ray) found[ray] = tree.ray(middle, around(ray, ACROSS), 0);
      std::nth_element(found, found + 1, found + ACROSS);
      out[i] = std::max(depth, 2 * found[1]);
    } else {
      out[i] = depth;
    }
  }
}

}  // namespace sds3d
