// Isotropic remeshing after Botsch and Kobbelt 2004 (A Remeshing Approach to Multiresolution Modeling): split long
// edges, collapse short ones, flip towards six neighbours, even out within the surface, project onto the input; with
// creases, corners and borders kept. Half-edge 3 f + k runs from corner k of face f to the next one.
#include <algorithm>
#include <cmath>
#include <memory>
#include <sstream>

#include "remesh.h"

namespace sds3d {

namespace {

constexpr double LONG = 4.0 / 3.0, SHORT = 4.0 / 5.0;  // of the target: longer edges are split, shorter ones collapsed
constexpr double TINY = 0.4;                           // of the target: corners that are nearer along a line become one
constexpr double TURN_COS = 0.64;                      // a line that turns by more than 50 degrees has a corner there
constexpr double TIP_ANGLE = 3.5;                      // radians around a point; below, it is the tip of a cone
constexpr double FOLD_COS = -0.985;                    // beyond 170 degrees an edge is a fold, not a crease
constexpr double FLAT = 1e-4;                          // height over longest edge of a face without a normal
constexpr double SLIVER = 0.12;                        // quality; below, a face is got rid of
constexpr double KEEP_COS = 0.5;                       // no face's normal turns by more than 60 degrees in one step
constexpr double STEP = 0.8;                           // of the way to the middle of the neighbours
constexpr int PASSES = 16;  // of splits or collapses in one iteration; each halves edges or doubles them

enum Kind : uint8_t { FREE, LINE, CORNER };

class Remesher {
 public:
  Remesher(const RemeshOptions& options, const std::vector<double>& size, const std::vector<Vec>& points)
      : options_(options), point_(points), has_size_(!size.empty()), size_(size) {
    if (has_size_) {
      for (double& s : size_) s = std::min(s, options.edge_length);
    } else {
      size_.assign(points.size(), options.edge_length);
    }
    given_size_ = size_;
    home_.assign(points.size(), -1);
  }

  std::string run(std::vector<Vec>* points, std::vector<Triangle>* triangles) {
    std::string wrong = connect(*triangles);
    if (!wrong.empty()) return wrong;
    kind_.assign(point_.size(), FREE);
    remove_flat_faces();
    find_lines();
    keep_input();
    for (int iteration = 0; iteration < options_.iterations; ++iteration) {
      if (!split_long()) return too_many();
      collapse_short();
      flip_all();
      relax();
    }
    tidy();
    write(points, triangles);
    return {};
  }

 private:
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

  std::string too_many() const {
    std::ostringstream s;
    s << "the result would have more than " << options_.most_faces << " faces";
    return s.str();
  }

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
        given_size_.push_back(size_[v]);
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

  // ---- changes of topology

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

  // ---- what may change

  static double quality(Vec a, Vec b, Vec c) {  // 1 for an equilateral triangle, 0 for a flat one
    const double sum = dot(b - a, b - a) + dot(c - b, c - b) + dot(a - c, a - c);
    return sum > 0 ? 2 * std::sqrt(3.0) * norm(normal_of(a, b, c)) / sum : 0;
  }

  // Whether the faces around v, but those that hold `gone`, stay upright and whole when v moves to p. Those of a
  // quality below `spoilt` may turn over.
  bool may_move(int32_t v, Vec p, int32_t gone, double longest, double spoilt = 0.01) const {
    bool good = true;
    each_out(v, [&](int32_t h) {
      const int32_t i = to(h), j = opposite(h);
      if (!good || i == gone || j == gone) return;
      const Vec a = point_[v], b = point_[i], c = point_[j];
      const Vec before = normal_of(a, b, c), after = normal_of(p, b, c);
      const double was = quality(a, b, c), is = quality(p, b, c);
      if (is < 0.05 && is < was) good = false;
      if (was > spoilt && dot(before, after) < KEEP_COS * norm(before) * norm(after)) good = false;
      if (longest > 0 && norm(b - p) > std::max(longest, norm(b - a))) good = false;
    });
    return good;
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

  // Whether u may go into v, the ends of h, by its kind, and no two lines become one.
  bool kinds_allow(int32_t u, int32_t v, int32_t h) const {
    const int32_t t = twin_[h];
    if (kind_[u] > kind_[v] || (kind_[u] != FREE && line_[h] < 0)) return false;
    if (kind_[u] == CORNER && length(h) > TINY * target(h)) return false;
    if (line_[next(h)] >= 0 && line_[prev(h)] >= 0) return false;
    return t < 0 || line_[next(t)] < 0 || line_[prev(t)] < 0;
  }

  // `longest`: of the edges that may come of it, 0 for any. `spoilt` above 0: to get rid of a sliver whatever it
  // belongs to; a corner still stays where it is.
  bool try_collapse(int32_t h, double longest, double spoilt = 0) {
    const int32_t t = twin_[h];
    const int32_t ends[2] = {origin_[h], to(h)};
    if (!link_holds(h)) return false;
    const bool there = spoilt > 0 ? kind_[ends[0]] <= kind_[ends[1]] : kinds_allow(ends[0], ends[1], h);
    const bool back = spoilt > 0 ? kind_[ends[0]] >= kind_[ends[1]] : kinds_allow(ends[1], ends[0], h);
    if (!there && !back) return false;
    const Vec middle = 0.5 * (point_[ends[0]] + point_[ends[1]]);
    const bool movable = there && back && kind_[ends[1]] != CORNER;
    const Vec places[3] = {middle, point_[ends[1]], point_[ends[0]]};
    const bool allowed[3] = {movable, there, back};
    for (int k = 0; k < 3; ++k) {
      if (!allowed[k]) continue;
      const double least = std::max(spoilt, 0.01);
      if (!may_move(ends[0], places[k], ends[1], longest, least)) continue;
      if (!may_move(ends[1], places[k], ends[0], longest, least)) continue;
      if (there && k != 2) {
        collapse(h, places[k]);
      } else if (t >= 0) {
        collapse(t, places[k]);
      } else {
        const int32_t u = ends[0], v = ends[1];  // a border has no half-edge that way: the two swap what they are
        std::swap(point_[u], point_[v]), std::swap(kind_[u], kind_[v]);
        std::swap(size_[u], size_[v]), std::swap(home_[u], home_[v]);
        collapse(h, places[k]);
      }
      return true;
    }
    return false;
  }

  // The least quality of the two faces at an edge, and that after a flip; no flip where it would fold or double an
  // edge.
  bool may_flip(int32_t h, double* before, double* after) const {
    const int32_t t = twin_[h];
    if (t < 0 || line_[h] >= 0) return false;
    const int32_t u = origin_[h], v = to(h), x = opposite(h), y = opposite(t);
    if (x == y || valence(u) <= (border(u) ? 2 : 3) || valence(v) <= (border(v) ? 2 : 3) || neighbours(x, y)) {
      return false;
    }
    const Vec a = point_[u], b = point_[v], c = point_[x], d = point_[y];
    const Vec n1 = normal_of(a, b, c), n2 = normal_of(b, a, d), m1 = normal_of(c, d, b), m2 = normal_of(d, c, a);
    const Vec mean = unit(n1 + n2);
    *before = std::min(quality(a, b, c), quality(b, a, d));
    *after = std::min(quality(c, d, b), quality(d, c, a));
    const double bend = dot(unit(n1), unit(n2)), bent = dot(unit(m1), unit(m2));
    if (*before > 0.05 && bent < std::min(bend - 0.02, 0.95)) return false;  // a flip may not make an edge of its own
    return dot(mean, m1) > KEEP_COS * norm(m1) && dot(mean, m2) > KEEP_COS * norm(m2);
  }

  // ---- steps

  double face_quality(int32_t face) const {
    return quality(point_[origin_[face]], point_[origin_[face + 1]], point_[origin_[face + 2]]);
  }
  // Whether a face lies back on a neighbour, lines apart.
  bool folded(int32_t face, double cosine) const {
    for (int k = 0; k < 3; ++k) {
      const int32_t t = twin_[face + k];
      if (t >= 0 && line_[face + k] < 0 && dot(unit(normal(face)), unit(normal(t))) < cosine) return true;
    }
    return false;
  }

  // Faces without a normal, and folded slivers, go before lines are looked for: by a collapse of a short edge, or a
  // flip of the long one.
  void remove_flat_faces() {
    for (int pass = 0; pass < 4; ++pass) {
      bool found = false;
      for (int32_t face = 0; face < int32_t(origin_.size()); face += 3) {
        if (!alive(face)) continue;
        int32_t longest = face, shortest = face;
        for (int k = 1; k < 3; ++k) {
          if (length(face + k) > length(longest)) longest = face + k;
          if (length(face + k) < length(shortest)) shortest = face + k;
        }
        const double side = length(longest);
        const bool flat = norm(normal(face)) < FLAT * side * side;
        if (!flat && (face_quality(face) > SLIVER || !folded(face, FOLD_COS))) continue;
        found = true;
        double before, after;
        if (length(shortest) < 0.3 * side && try_collapse(shortest, 0, flat ? 0 : 2 * SLIVER)) continue;
        if (may_flip(longest, &before, &after) && after > before) flip(longest);
      }
      if (!found) return;
    }
  }

  // Creases and borders become lines, each with a number; where lines meet, end or turn there are corners.
  void find_lines() {
    const int32_t count = int32_t(origin_.size());
    const double crease_cos = std::cos(std::min(options_.crease_deg, 180.0) * M_PI / 180);
    const auto mark = [&](int32_t h, int32_t value) {
      line_[h] = value;
      if (twin_[h] >= 0) line_[twin_[h]] = value;
    };
    for (int32_t h = 0; h < count; ++h) {
      if (!alive(h)) continue;
      if (twin_[h] < 0) {
        line_[h] = h;
      } else if (twin_[h] < h && options_.crease_deg < 180) {
        const double bend = dot(unit(normal(h)), unit(normal(twin_[h])));
        if (bend < crease_cos && bend > FOLD_COS) mark(h, h);
      }
    }
    // What is shorter than two edges cannot be shown: the pieces of creases joined at points, by union and find.
    std::vector<int32_t> root(point_.size());
    std::iota(root.begin(), root.end(), 0);
    const auto find = [&](std::vector<int32_t>& r, int32_t i) {
      while (r[i] != i) i = r[i] = r[r[i]];
      return i;
    };
    std::vector<double> total(point_.size(), 0.0);
    std::vector<uint8_t> has_border(point_.size(), 0);
    const auto is_line = [&](int32_t h) { return stands(h) && line_[h] >= 0; };
    for (int32_t h = 0; h < count; ++h) {
      if (is_line(h)) root[find(root, origin_[h])] = find(root, to(h));
    }
    for (int32_t h = 0; h < count; ++h) {
      if (!is_line(h)) continue;
      total[find(root, origin_[h])] += length(h);
      if (twin_[h] < 0) has_border[find(root, origin_[h])] = 1;
    }
    for (int32_t h = 0; h < count; ++h) {
      if (!is_line(h) || has_border[find(root, origin_[h])]) continue;
      if (total[find(root, origin_[h])] < 2 * target(h)) mark(h, -1);
    }
    // Pieces between corners.
    std::vector<int32_t> piece(count);
    std::iota(piece.begin(), piece.end(), 0);
    const auto edge_of = [&](int32_t h) { return std::max(h, twin_[h]); };
    for (int32_t v = 0; v < int32_t(point_.size()); ++v) {
      if (out_[v] < 0) continue;
      std::vector<int32_t> lines, ends;
      double angle = 0;
      int32_t last = -1;
      each_out(v, [&](int32_t h) {
        last = h;
        const Vec a = unit(point_[to(h)] - point_[v]), b = unit(point_[opposite(h)] - point_[v]);
        angle += std::acos(std::clamp(dot(a, b), -1.0, 1.0));
        if (line_[h] >= 0) lines.push_back(edge_of(h)), ends.push_back(to(h));
      });
      if (twin_[prev(last)] < 0) lines.push_back(prev(last)), ends.push_back(opposite(last));
      if (lines.empty()) {
        if (angle < TIP_ANGLE && options_.crease_deg < 180) kind_[v] = CORNER;
        continue;
      }
      kind_[v] = CORNER;
      if (lines.size() != 2) continue;
      const Vec in = unit(point_[v] - point_[ends[0]]), on = unit(point_[ends[1]] - point_[v]);
      if (dot(in, on) < TURN_COS) continue;
      kind_[v] = LINE;
      piece[find(piece, lines[0])] = find(piece, lines[1]);
    }
    for (int32_t h = 0; h < count; ++h) {
      if (is_line(h)) mark(h, find(piece, h));
    }
  }

  // The input as it is now is what vertices are projected onto.
  void keep_input() {
    std::vector<Triangle> triangles, segments;
    for (int32_t h = 0; h < int32_t(origin_.size()); ++h) {
      if (!alive(h)) continue;
      if (h % 3 == 0) {
        const int32_t index = int32_t(triangles.size());
        triangles.push_back({origin_[h], origin_[h + 1], origin_[h + 2]});
        input_normal_.push_back(unit(normal(h)));
        for (int k = 0; k < 3; ++k) home_[origin_[h + k]] = index;
      }
      if (stands(h) && line_[h] >= 0) {
        segments.push_back({origin_[h], to(h), to(h)});
        segment_line_.push_back(line_[h]);
      }
    }
    surface_ = std::make_unique<SurfaceTree>(point_, std::move(triangles));
    lines_ = std::make_unique<SurfaceTree>(point_, std::move(segments));
  }

  bool split_long() {
    std::vector<std::pair<double, int32_t>> found;
    for (int pass = 0; pass < PASSES; ++pass) {
      found.clear();
      for (int32_t h = 0; h < int32_t(origin_.size()); ++h) {
        if (stands(h) && length(h) > LONG * target(h)) found.push_back({-length(h), h});
      }
      if (found.empty()) break;
      if (int64_t(origin_.size() / 3 + 2 * found.size()) > options_.most_faces) return false;
      std::sort(found.begin(), found.end());
      for (const auto& [_, h] : found) split(h);
    }
    return true;
  }

  void collapse_short() {
    std::vector<std::pair<double, int32_t>> found;
    for (int pass = 0; pass < PASSES; ++pass) {
      found.clear();
      for (int32_t h = 0; h < int32_t(origin_.size()); ++h) {
        if (stands(h) && length(h) < SHORT * target(h)) found.push_back({length(h), h});
      }
      std::sort(found.begin(), found.end());
      size_t done = 0;
      for (const auto& [was, h] : found) {
        if (!alive(h) || twin_[h] >= h || length(h) >= SHORT * target(h)) continue;
        done += try_collapse(h, LONG * target(h));
      }
      if (done * 50 < found.size() || done == 0) break;
    }
    compact();
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

  int excess(int32_t v, int change) const {
    const int wanted = border(v) ? 4 : 6;
    return std::abs(valence(v) + change - wanted);
  }

  // Towards six neighbours, as long as faces stay well formed.
  void flip_all() {
    for (int32_t h = 0; h < int32_t(origin_.size()); ++h) {
      double before, after;
      if (!stands(h) || !may_flip(h, &before, &after)) continue;
      const int32_t u = origin_[h], v = to(h), x = opposite(h), y = opposite(twin_[h]);
      const int change = excess(u, -1) + excess(v, -1) + excess(x, 1) + excess(y, 1) - excess(u, 0) - excess(v, 0) -
                         excess(x, 0) - excess(y, 0);
      if ((change < 0 && after > 0.5 * before && after > 0.2) || (change <= 2 && after > 1.5 * before)) flip(h);
    }
  }

  Vec vertex_normal(int32_t v) const {
    Vec sum;
    each_out(v, [&](int32_t h) { sum = sum + normal(h); });
    return unit(sum);
  }

  void relax() {
    for (int32_t v = 0; v < int32_t(out_.size()); ++v) {
      if (out_[v] < 0 || kind_[v] == CORNER) continue;
      const Vec here = point_[v];
      Vec goal;
      if (kind_[v] == LINE) {
        int32_t line = -1;
        Vec ends[2];
        int count = 0;
        each_neighbour(v, [&](int32_t n, int32_t l) {
          if (l >= 0 && count < 2) ends[count++] = point_[n], line = l;
        });
        const Vec along = unit(ends[1] - ends[0]);
        goal = here + STEP * dot(0.5 * (ends[0] + ends[1]) - here, along) * along;
        goal = on_line(goal, line, v);
      } else {
        Vec sum;
        double weight = 0;
        each_neighbour(v, [&](int32_t n, int32_t) {
          const double w = has_size_ ? 1 / size_[n] : 1;  // towards where shorter edges are wanted
          sum = sum + w * point_[n], weight += w;
        });
        const Vec n = vertex_normal(v), step = (1 / weight) * sum - here;
        goal = on_surface(here + STEP * (step - dot(step, n) * n), n, v);
      }
      for (int half = 0; half < 4; ++half, goal = 0.5 * (goal + here)) {
        if (may_move(v, goal, -1, 0)) {
          point_[v] = goal;
          break;
        }
      }
    }
  }

  Vec on_line(Vec p, int32_t line, int32_t v) {
    SurfaceTree::Nearest best;
    lines_->nearest(p, [&](int32_t s) { return segment_line_[s] == line; }, &best);
    if (best.triangle < 0) return p;
    take_size(*lines_, best, v);
    return best.point;
  }
  void take_size(const SurfaceTree& tree, const SurfaceTree::Nearest& at, int32_t v) {
    if (!has_size_) return;
    size_[v] = 0;
    for (int k = 0; k < 3; ++k) size_[v] += at.weights[k] * given_size_[tree.triangle(at.triangle)[k]];
  }

  // The nearest point of the input whose normal is not turned away: thin parts have another side close by.
  Vec on_surface(Vec p, Vec n, int32_t v) {
    const auto upright = [&](int32_t t) { return dot(input_normal_[t], n) > 0; };
    SurfaceTree::Nearest best;
    if (home_[v] >= 0 && upright(home_[v])) surface_->try_triangle(p, home_[v], &best);
    surface_->nearest(p, upright, &best);
    if (best.triangle < 0) return p;
    home_[v] = best.triangle;
    take_size(*surface_, best, v);
    return best.point;
  }

  // Moves a vertex towards the middle of its neighbours where that makes its worst face better: the last resort, for
  // tunnels so small that no edge can go.
  void widen(int32_t v) {
    if (kind_[v] == CORNER) return;
    Vec sum;
    int count = 0;
    each_neighbour(v, [&](int32_t n, int32_t) { sum = sum + point_[n], ++count; });
    const auto worst = [&](Vec p) {
      double least = 1;
      each_out(v, [&](int32_t h) { least = std::min(least, quality(p, point_[to(h)], point_[opposite(h)])); });
      return least;
    };
    for (double share : {1.0, 0.5, 0.25}) {
      const Vec p = point_[v] + share * ((1.0 / count) * sum - point_[v]);
      if (worst(p) > worst(point_[v])) {
        point_[v] = p;
        return;
      }
    }
  }

  // What is left of slivers and folds goes by flips, collapses and evening out without projection.
  void tidy() {
    for (int pass = 0; pass < 4; ++pass) {
      bool found = false;
      for (int32_t face = 0; face < int32_t(origin_.size()); face += 3) {
        if (!alive(face)) continue;
        const double q = face_quality(face);
        if (q > 2 * SLIVER && !folded(face, -0.5)) continue;
        found = true;
        int32_t longest = face, shortest = face;
        for (int k = 1; k < 3; ++k) {
          if (length(face + k) > length(longest)) longest = face + k;
          if (length(face + k) < length(shortest)) shortest = face + k;
        }
        double before, after;
        if (may_flip(longest, &before, &after) && after > before) {
          flip(longest);
        } else if (!try_collapse(shortest, 0) && q < SLIVER && !try_collapse(shortest, 0, 2 * SLIVER)) {
          for (int k = 0; k < 3; ++k) widen(origin_[face + k]);
        }
      }
      if (!found) break;
    }
    compact();
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

  const RemeshOptions options_;
  std::vector<int32_t> origin_, twin_, line_;  // of half-edges; -1: a face that is gone, no other face, no line
  std::vector<Vec> point_;
  std::vector<int32_t> out_,
      home_;  // a half-edge that leaves a vertex (a border's own), the face of the input it is on
  std::vector<uint8_t> kind_;
  bool has_size_;
  std::vector<double> size_, given_size_;  // targets at the vertices, and at those of the input
  std::unique_ptr<SurfaceTree> surface_, lines_;
  std::vector<Vec> input_normal_;
  std::vector<int32_t> segment_line_;
  std::vector<int32_t> buffer_;
};

}  // namespace

std::string remesh(const RemeshOptions& options, const std::vector<double>& size, std::vector<Vec>* points,
                   std::vector<Triangle>* triangles) {
  return Remesher(options, size, *points).run(points, triangles);
}

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
