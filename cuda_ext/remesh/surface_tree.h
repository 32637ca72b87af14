// A tree of boxes over triangles: the nearest point of a surface, and where a ray meets it first. Segments are
// triangles whose last two corners are one. Float64, no torch.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

namespace sds3d {

struct Vec {
  double x = 0, y = 0, z = 0;
  double operator[](int axis) const { return axis == 0 ? x : axis == 1 ? y : z; }
};
inline Vec operator+(Vec a, Vec b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
inline Vec operator-(Vec a, Vec b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
inline Vec operator*(double s, Vec a) { return {s * a.x, s * a.y, s * a.z}; }
inline double dot(Vec a, Vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
inline Vec cross(Vec a, Vec b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
inline double norm(Vec a) { return std::sqrt(dot(a, a)); }
inline Vec unit(Vec a) {
  const double length = norm(a);
  return length > 0 ? (1 / length) * a : Vec{};
}
inline Vec normal_of(Vec a, Vec b, Vec c) { return cross(b - a, c - a); }  // twice the area long

using Triangle = std::array<int32_t, 3>;

// Weights of the corners at the point of a triangle nearest to p: Ericson, Real-Time Collision Detection, 5.1.5.
inline std::array<double, 3> nearest_weights(Vec p, Vec a, Vec b, Vec c) {
  const Vec ab = b - a, ac = c - a, ap = p - a, bp = p - b, cp = p - c;
  const double d1 = dot(ab, ap), d2 = dot(ac, ap), d3 = dot(ab, bp), d4 = dot(ac, bp), d5 = dot(ab, cp),
               d6 = dot(ac, cp);
  if (d1 <= 0 && d2 <= 0) return {1, 0, 0};
  if (d3 >= 0 && d4 <= d3) return {0, 1, 0};
  const double vc = d1 * d4 - d3 * d2;
  if (vc <= 0 && d1 >= 0 && d3 <= 0) return {1 - d1 / (d1 - d3), d1 / (d1 - d3), 0};
  if (d6 >= 0 && d5 <= d6) return {0, 0, 1};
  const double vb = d5 * d2 - d1 * d6;
  if (vb <= 0 && d2 >= 0 && d6 <= 0) return {1 - d2 / (d2 - d6), 0, d2 / (d2 - d6)};
  const double va = d3 * d6 - d5 * d4, along = d4 - d3, rest = d5 - d6;
  if (va <= 0 && along >= 0 && rest >= 0) return {0, rest / (along + rest), along / (along + rest)};
  const double sum = va + vb + vc;
  return {va / sum, vb / sum, vc / sum};
}

class SurfaceTree {
 public:
  struct Nearest {
    int32_t triangle = -1;
    double distance2 = std::numeric_limits<double>::infinity();
    Vec point;
    std::array<double, 3> weights;
  };

  SurfaceTree(std::vector<Vec> points, std::vector<Triangle> triangles)
      : points_(std::move(points)), triangles_(std::move(triangles)), order_(triangles_.size()) {
    std::iota(order_.begin(), order_.end(), 0);
    if (!order_.empty()) build(0, int32_t(order_.size()));
  }

  const Triangle& triangle(int32_t index) const { return triangles_[index]; }

  // The nearest point among the triangles that `accept(triangle)` takes, nearer than what `best` holds already.
  template <class Accept>
  void nearest(Vec p, const Accept& accept, Nearest* best) const {
    if (nodes_.empty()) return;
    int32_t stack[64];
    int depth = 0;
    stack[depth++] = 0;
    while (depth > 0) {
      const Node& node = nodes_[stack[--depth]];
      if (node.distance2(p) >= best->distance2) continue;
      if (node.right < 0) {
        for (int32_t k = node.first; k < node.first + node.count; ++k) {
          if (accept(order_[k])) try_triangle(p, order_[k], best);
        }
        continue;
      }
      const int32_t left = int32_t(&node - nodes_.data()) + 1, right = node.right;
      const bool left_first = nodes_[left].distance2(p) <= nodes_[right].distance2(p);
      stack[depth++] = left_first ? right : left;
      stack[depth++] = left_first ? left : right;
    }
  }

  void try_triangle(Vec p, int32_t index, Nearest* best) const {
    const Triangle& t = triangles_[index];
    const Vec a = points_[t[0]], b = points_[t[1]], c = points_[t[2]];
    const auto w = nearest_weights(p, a, b, c);
    const Vec q = w[0] * a + w[1] * b + w[2] * c;
    const double distance2 = dot(p - q, p - q);
    if (distance2 < best->distance2) *best = {index, distance2, q, w};
  }

  // Distance along the unit vector `direction` to the first triangle that faces along it, beyond `least`; infinite if
  // there is none.
  double ray(Vec origin, Vec direction, double least) const {
    double best = std::numeric_limits<double>::infinity();
    if (nodes_.empty()) return best;
    const Vec inverse = {1 / direction.x, 1 / direction.y, 1 / direction.z};
    int32_t stack[64];
    int depth = 0;
    stack[depth++] = 0;
    while (depth > 0) {
      const int32_t at = stack[--depth];
      const Node& node = nodes_[at];
      if (!node.meets(origin, inverse, best)) continue;
      if (node.right >= 0) {
        stack[depth++] = node.right;
        stack[depth++] = at + 1;
        continue;
      }
      for (int32_t k = node.first; k < node.first + node.count; ++k) {
        const Triangle& t = triangles_[order_[k]];
        const Vec a = points_[t[0]], ab = points_[t[1]] - a, ac = points_[t[2]] - a;
        const double facing = dot(cross(ab, ac), direction);
        if (facing <= 0) continue;
        const Vec to = a - origin, across = cross(to, direction);
        const double u = dot(ac, across), v = -dot(ab, across), distance = dot(cross(ab, ac), to) / facing;
        if (u >= 0 && v >= 0 && u + v <= facing && distance > least) best = std::min(best, distance);
      }
    }
    return best;
  }

 private:
  struct Node {
    double low[3], high[3];
    int32_t first, count, right;  // the left child follows its parent; right is -1 at a leaf

    double distance2(Vec p) const {
      double sum = 0;
      for (int axis = 0; axis < 3; ++axis) {
        const double d = std::max({low[axis] - p[axis], 0.0, p[axis] - high[axis]});
        sum += d * d;
      }
      return sum;
    }
    bool meets(Vec origin, Vec inverse, double limit) const {
      double begin = 0, end = limit;
      for (int axis = 0; axis < 3; ++axis) {
        const double a = (low[axis] - origin[axis]) * inverse[axis], b = (high[axis] - origin[axis]) * inverse[axis];
        begin = std::max(begin, std::min(a, b));  // a NaN, of a ray within a side, changes nothing
        end = std::min(end, std::max(a, b));
      }
      return begin <= end;
    }
  };

  void build(int32_t first, int32_t count) {
    constexpr int32_t LEAF = 4;
    Node node{{1e300, 1e300, 1e300}, {-1e300, -1e300, -1e300}, first, count, -1};
    for (int32_t k = first; k < first + count; ++k) {
      for (int32_t corner : triangles_[order_[k]]) {
        for (int axis = 0; axis < 3; ++axis) {
          node.low[axis] = std::min(node.low[axis], points_[corner][axis]);
          node.high[axis] = std::max(node.high[axis], points_[corner][axis]);
        }
      }
    }
    const int32_t at = int32_t(nodes_.size());
    nodes_.push_back(node);
    if (count <= LEAF) return;
    int axis = 0;
    for (int other = 1; other < 3; ++other) {
      if (node.high[other] - node.low[other] > node.high[axis] - node.low[axis]) axis = other;
    }
    const auto middle = [&](int32_t index) {
      const Triangle& t = triangles_[index];
      return points_[t[0]][axis] + points_[t[1]][axis] + points_[t[2]][axis];
    };
    const auto begin = order_.begin() + first;
    std::nth_element(begin, begin + count / 2, begin + count, [&](int32_t a, int32_t b) {
      const double p = middle(a), q = middle(b);
      return p != q ? p < q : a < b;
    });
    build(first, count / 2);
    nodes_[at].right = int32_t(nodes_.size());
    build(first + count / 2, count - count / 2);
  }

  std::vector<Vec> points_;
  std::vector<Triangle> triangles_;
  std::vector<int32_t> order_;
  std::vector<Node> nodes_;
};

}  // namespace sds3d
