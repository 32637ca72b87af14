// A triangle mesh that can be changed: half-edges, walks around a vertex, and an edge that is split, flipped or
// collapsed. Half-edge 3 f + k runs from corner k of face f to the next one. Float64, no torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "surface_tree.h"

namespace sds3d {

enum Kind : uint8_t { FREE, LINE, CORNER };

class HalfEdges {
 protected:
  // `size`: of the edges that are wanted at each point.
  HalfEdges(const std::vector<Vec>& points, std::vector<double> size)
      : point_(points), kind_(points.size(), FREE), home_(points.size(), -1), size_(std::move(size)) {}

  static int32_t next(int32_t h) { return h % 3 == 2 ? h - 2 : h + 1; }
  static int32_t prev(int32_t h) { return h % 3 == 0 ? h + 2 : h - 1; }
  int32_t to(int32_t h) const { return origin_[next(h)]; }
  int32_t opposite(int32_t h) const { return origin_[prev(h)]; }
  bool alive(int32_t h) const { return origin_[h] >= 0; }
  // Each edge has one half-edge that stands for it.
  bool stands(int32_t h) const { return alive(h) && twin_[h] < h; }
  double length(int32_t h) const { return norm(point_[to(h)] - point_[origin_[h]]); }
  double target(int32_t h) const { return 0.5 * (size_[origin_[h]] + size_[to(h)]); }
  Vec normal(int32_t h) const { return normal_of(point_[origin_[h]], point_[to(h)], point_[opposite(h)]); }
  bool border(int32_t v) const { return twin_[out_[v]] < 0; }

  // Twins of half-edges; a point at which several fans of faces touch becomes one point for each.
  std::string connect(const std::vector<Triangle>& triangles) {
    const int64_t count = int64_t(triangles.size()) * 3, points = int64_t(point_.size());
    origin_.resize(count);
    for (int64_t h = 0; h < count; ++h) origin_[h] = triangles[h / 3][h % 3];
    twin_.assign(count, -1);
    line_.assign(count, -1);
    std::vector<int32_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    const auto key = [&](int32_t h) {
      const int64_t a = origin_[h], b = to(h);
      return std::min(a, b) * points + std::max(a, b);
    };
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      const int64_t p = key(a), q = key(b);
      return p != q ? p < q : a < b;
    });
    for (int64_t k = 0; k < count;) {
      int64_t end = k + 1;
      while (end < count && key(order[end]) == key(order[k])) ++end;
      const int32_t a = order[k], b = order[k + (end - k > 1 ? 1 : 0)];
      std::ostringstream edge;
      edge << "the edge between vertices " << std::min(origin_[a], to(a)) << " and " << std::max(origin_[a], to(a));
      if (end - k > 2) return edge.str() + " has " + std::to_string(end - k) + " faces";
      if (end - k == 2) {
        if (origin_[a] == origin_[b]) return edge.str() + " is walked twice in the same direction";
        twin_[a] = b, twin_[b] = a;
      }
      k = end;
    }
    out_.assign(points, -1);
    std::vector<uint8_t> seen(count, 0);
    for (int32_t h = 0; h < count; ++h) {
      if (seen[h]) continue;
      int32_t v = origin_[h];
      if (out_[v] >= 0) {
        v = add_point(Vec(point_[v]), size_[v]);
      }
      out_[v] = first_of_fan(h);
      for (int32_t o = out_[v]; o >= 0;) {
        seen[o] = 1;
        origin_[o] = v;
        const int32_t t = twin_[prev(o)];
        o = t == out_[v] ? -1 : t;
      }
    }
    return {};
  }

  int32_t add_point(Vec p, double size) {
    point_.push_back(p);
    size_.push_back(size);
    out_.push_back(-1);
    kind_.push_back(FREE);
    home_.push_back(-1);
    return int32_t(point_.size()) - 1;
  }

  // The half-edge of the same origin that a border leaves open clockwise; any where there is no border.
  int32_t first_of_fan(int32_t h) const {
    for (int32_t o = h;;) {
      if (twin_[o] < 0) return o;
      o = next(twin_[o]);
      if (o == h) return h;
    }
  }
  void set_out(int32_t v, int32_t h) { out_[v] = first_of_fan(h); }

  template <class Function>
  void each_out(int32_t v, const Function& function) const {
    for (int32_t h = out_[v]; h >= 0;) {
      function(h);
      const int32_t t = twin_[prev(h)];
      h = t == out_[v] ? -1 : t;
    }
  }
  // Neighbours, those along a border included; `line` is the half-edge's, that of the last edge of a border its own.
  template <class Function>
  void each_neighbour(int32_t v, const Function& function) const {
    int32_t last = -1;
    each_out(v, [&](int32_t h) { function(to(h), line_[h]), last = h; });
    if (last >= 0 && twin_[prev(last)] < 0) function(opposite(last), line_[prev(last)]);
  }
  int valence(int32_t v) const {
    int count = 0;
    each_neighbour(v, [&](int32_t, int32_t) { ++count; });
    return count;
  }
  bool neighbours(int32_t a, int32_t b) const {
    bool found = false;
    each_neighbour(a, [&](int32_t n, int32_t) { found = found || n == b; });
    return found;
  }

  void split(int32_t h) {
    const int32_t u = origin_[h], v = to(h), t = twin_[h];
    const int32_t m = add_point(0.5 * (point_[u] + point_[v]), target(h));
    home_[m] = home_[u];
    kind_[m] = line_[h] >= 0 ? LINE : FREE;
    const int32_t a = int32_t(origin_.size()), b = a + 3;
    const int32_t hn = next(h), x = opposite(h);
    const auto add_face = [&](int32_t i, int32_t j, int32_t k) {
      origin_.insert(origin_.end(), {i, j, k});
      twin_.insert(twin_.end(), {-1, -1, -1});
      line_.insert(line_.end(), {-1, -1, -1});
    };
    const auto pair = [&](int32_t i, int32_t j) {
      twin_[i] = j;
      if (j >= 0) twin_[j] = i;
    };
    add_face(m, v, x);
    origin_[hn] = m;
    pair(a + 1, twin_[hn]);
    pair(hn, a + 2);
    line_[a + 1] = line_[hn], line_[hn] = -1, line_[a] = line_[h];
    if (t >= 0) {
      const int32_t tn = next(t), y = opposite(t);
      add_face(m, u, y);
      origin_[tn] = m;
      pair(b + 1, twin_[tn]);
      pair(tn, b + 2);
      line_[b + 1] = line_[tn], line_[tn] = -1, line_[b] = line_[h];
      pair(h, b);
      pair(a, t);
    }
    set_out(m, a);
    set_out(u, h);
    set_out(v, a + 1);
  }

  void flip(int32_t h) {
    const int32_t t = twin_[h], hn = next(h), hp = prev(h), tn = next(t), tp = prev(t);
    const int32_t u = origin_[h], v = origin_[t], x = origin_[hp], y = origin_[tp];
    const int32_t outer[4] = {twin_[tp], twin_[hn], twin_[hp], twin_[tn]};
    const int32_t lines[4] = {line_[tp], line_[hn], line_[hp], line_[tn]};
    const int32_t inner[4] = {hn, hp, tn, tp};
    origin_[h] = x, origin_[hn] = y, origin_[hp] = v;
    origin_[t] = y, origin_[tn] = x, origin_[tp] = u;
    for (int k = 0; k < 4; ++k) {
      twin_[inner[k]] = outer[k];
      line_[inner[k]] = lines[k];
      if (outer[k] >= 0) twin_[outer[k]] = inner[k];
    }
    set_out(u, tp), set_out(v, hp), set_out(x, h), set_out(y, t);
  }

  // Takes the origin of h into its end, which moves to p.
  void collapse(int32_t h, Vec p) {
    const int32_t u = origin_[h], v = to(h), t = twin_[h];
    point_[v] = p;
    std::vector<int32_t>& around = buffer_;
    around.clear();
    each_out(u, [&](int32_t o) { around.push_back(o); });
    for (int32_t o : around) origin_[o] = v;
    int32_t some = -1;
    const auto close = [&](int32_t side) {
      const int32_t p1 = twin_[next(side)], p2 = twin_[prev(side)], x = opposite(side);
      const int32_t line = std::max(line_[next(side)], line_[prev(side)]);
      for (int32_t o : {p1, p2}) {
        if (o >= 0) line_[o] = line, twin_[o] = o == p1 ? p2 : p1;
      }
      const int32_t face = side - side % 3;
      origin_[face] = origin_[face + 1] = origin_[face + 2] = -1;
      // p1 and p2 run between v and x; which of the two begins at v depends on the side.
      for (int32_t o : {p1, p2}) {
        if (o < 0) continue;
        const int32_t from_v = origin_[o] == v ? o : next(o), from_x = origin_[o] == x ? o : next(o);
        some = from_v;
        out_[x] = from_x;
      }
      return x;
    };
    const int32_t x = close(h), y = t >= 0 ? close(t) : -1;
    out_[u] = -1;
    set_out(v, some);
    set_out(x, out_[x]);
    if (y >= 0) set_out(y, out_[y]);
  }

  // Whether the edge can go without a change of topology: the two ends have no common neighbours but its faces' third
  // corners, which keep enough others.
  bool link_holds(int32_t h) const {
    const int32_t u = origin_[h], v = to(h), t = twin_[h];
    if (t >= 0 && border(u) && border(v)) return false;
    const int32_t x = opposite(h), y = t >= 0 ? opposite(t) : -1;
    if (valence(x) <= (border(x) ? 2 : 3) || (y >= 0 && valence(y) <= (border(y) ? 2 : 3))) return false;
    bool good = true;
    each_neighbour(u, [&](int32_t n, int32_t) {
      if (good && n != x && n != y && n != v && neighbours(v, n)) good = false;
    });
    return good;
  }

  // Faces in use come first, so that later passes do not walk over those that are gone.
  void compact() {
    std::vector<int32_t> moved(origin_.size(), -1);
    int32_t faces = 0;
    for (int32_t h = 0; h < int32_t(origin_.size()); h += 3) {
      if (!alive(h)) continue;
      for (int k = 0; k < 3; ++k) moved[h + k] = faces * 3 + k;
      ++faces;
    }
    for (int32_t h = 0; h < int32_t(origin_.size()); ++h) {
      if (moved[h] < 0) continue;
      origin_[moved[h]] = origin_[h];
      line_[moved[h]] = line_[h];
      twin_[moved[h]] = twin_[h] < 0 ? -1 : moved[twin_[h]];
    }
    for (auto* list : {&origin_, &twin_, &line_}) list->resize(size_t(faces) * 3);
    for (int32_t& o : out_) o = o < 0 ? -1 : moved[o];
  }

  void write(std::vector<Vec>* points, std::vector<Triangle>* triangles) const {
    std::vector<int32_t> index(point_.size(), -1);
    points->clear();
    triangles->clear();
    for (int32_t v = 0; v < int32_t(point_.size()); ++v) {
      if (out_[v] < 0) continue;
      index[v] = int32_t(points->size());
      points->push_back(point_[v]);
    }
    for (int32_t h = 0; h < int32_t(origin_.size()); h += 3) {
      if (alive(h)) triangles->push_back({index[origin_[h]], index[origin_[h + 1]], index[origin_[h + 2]]});
    }
  }

  std::vector<int32_t> origin_, twin_, line_;  // of half-edges; -1: a face that is gone, no other face, no line
  std::vector<Vec> point_;
  std::vector<int32_t> out_;  // a half-edge that leaves a vertex: a border's own
  std::vector<uint8_t> kind_;
  std::vector<int32_t> home_;  // the face of the input that a vertex is on
  std::vector<double> size_;   // targets at the vertices

 private:
  std::vector<int32_t> buffer_;
};

}  // namespace sds3d
