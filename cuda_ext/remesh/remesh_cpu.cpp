// Isotropic remeshing after Botsch and Kobbelt 2004 (A Remeshing Approach to Multiresolution Modeling): split long
// edges, collapse short ones, flip towards six neighbours, even out within the surface, project onto the input; with
// creases, corners and borders kept.
#include <algorithm>
#include <cmath>
#include <memory>
#include <sstream>

#include "half_edges.h"
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

class Remesher : private HalfEdges {
 public:
  Remesher(const RemeshOptions& options, const std::vector<double>& size, const std::vector<Vec>& points)
      : HalfEdges(points, targets(options, size, points.size())), options_(options), has_size_(!size.empty()) {}

  std::string run(std::vector<Vec>* points, std::vector<Triangle>* triangles) {
    std::string wrong = connect(*triangles);
    if (!wrong.empty()) return wrong;
    given_size_ = size_;
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
  static std::vector<double> targets(const RemeshOptions& options, std::vector<double> size, size_t count) {
    if (size.empty()) size.assign(count, options.edge_length);
    for (double& s : size) s = std::min(s, options.edge_length);
    return size;
  }

  std::string too_many() const {
    std::ostringstream s;
    s << "the result would have more than " << options_.most_faces << " faces";
    return s.str();
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

  const RemeshOptions options_;
  const bool has_size_;
  std::vector<double> given_size_;  // targets at the vertices of the input
  std::unique_ptr<SurfaceTree> surface_, lines_;
  std::vector<Vec> input_normal_;
  std::vector<int32_t> segment_line_;
};

}  // namespace

std::string remesh(const RemeshOptions& options, const std::vector<double>& size, std::vector<Vec>* points,
                   std::vector<Triangle>* triangles) {
  return Remesher(options, size, *points).run(points, triangles);
}

}  // namespace sds3d
