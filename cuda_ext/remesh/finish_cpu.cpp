// Flat faces and straight creases on a rough surface: normals first, then the vertices that fit them.
#include <algorithm>
#include <cmath>
#include <memory>

#include "finish.h"

namespace sds3d {

namespace {

constexpr int NORMAL_STEPS = 20, CHAIN_STEPS = 6, EVEN_STEPS = 2, FIT_STEPS = 10, UNFOLD_STEPS = 10;  // in each round
constexpr double SIGMA = 0.2;  // of normals, as a distance on the unit sphere: what bends by less is one surface
constexpr double HOLD =
    0.02;  // share that the normals at the start keep: broad shapes stay, such as what is under eaves
constexpr double REACH = 0.5;      // of the edges around: how far a vertex may go from the surface at the start
constexpr double DEPTH = 0.04;     // of the thickness: the same, which is less in thin parts
constexpr double MOST_BEND = 0.5;  // radians
constexpr double ROUND = 1.8;      // an edge is a crease only if it bends so much more than a tube of this thickness

struct Ranges {  // lists of different lengths, one behind the other
  std::vector<int32_t> start, item;
  int32_t begin(int32_t i) const { return start[i]; }
  int32_t end(int32_t i) const { return start[i + 1]; }
};

struct Edge {
  int32_t a, b, face, other;  // other is -1 at a border
};

class Finisher {
 public:
  Finisher(const FinishOptions& options, const std::vector<Triangle>& triangles, const std::vector<double>& thickness,
           std::vector<Vec>* points)
      : options_(options), triangles_(triangles), thickness_(thickness), point_(*points) {
    connect();
  }

  void run() {
    for (int round = 0; round < options_.rounds; ++round) {
      measure();
      wanted_ = normal_;
      if (round == 0) {
        given_ = normal_;
        first_ = std::make_unique<SurfaceTree>(point_, triangles_);
      }
      for (int step = 0; step < NORMAL_STEPS; ++step) filter();
      find_creases();
      straighten();
      even_out();
      unfold();
      fit();
      stay_near();
    }
    unfold();
  }

 private:
  int32_t faces() const { return int32_t(triangles_.size()); }
  int32_t points() const { return int32_t(point_.size()); }

  void connect() {
    around_.start.assign(points() + 1, 0);
    for (const Triangle& t : triangles_) {
      for (int32_t v : t) ++around_.start[v + 1];
    }
    for (int32_t v = 0; v < points(); ++v) around_.start[v + 1] += around_.start[v];
    around_.item.resize(triangles_.size() * 3);
    std::vector<int32_t> next(around_.start.begin(), around_.start.end() - 1);
    for (int32_t f = 0; f < faces(); ++f) {
      for (int32_t v : triangles_[f]) around_.item[next[v]++] = f;
    }
    std::vector<int32_t> mark(faces(), -1);
    ring_.start = {0};
    for (int32_t f = 0; f < faces(); ++f) {  // itself first, then all that share a vertex with it
      mark[f] = f;
      ring_.item.push_back(f);
      for (int32_t v : triangles_[f]) {
        for (int32_t k = around_.begin(v); k < around_.end(v); ++k) {
          const int32_t g = around_.item[k];
          if (mark[g] != f) mark[g] = f, ring_.item.push_back(g);
        }
      }
      ring_.start.push_back(int32_t(ring_.item.size()));
    }
    for (int32_t f = 0; f < faces(); ++f) {
      for (int k = 0; k < 3; ++k) {
        const int32_t a = triangles_[f][k], b = triangles_[f][(k + 1) % 3];
        int32_t other = -1;
        for (int32_t i = around_.begin(a); i < around_.end(a); ++i) {
          const Triangle& t = triangles_[around_.item[i]];
          for (int j = 0; j < 3; ++j) {
            if (t[j] == b && t[(j + 1) % 3] == a) other = around_.item[i];
          }
        }
        if (other < 0 || f < other) edges_.push_back({a, b, f, other});
      }
    }
  }

  void measure() {
    normal_.resize(faces()), area_.resize(faces()), centre_.resize(faces());
    length_.resize(faces()), bend_.resize(faces());
    for (int32_t f = 0; f < faces(); ++f) {
      const auto [i, j, k] = triangles_[f];
      const Vec a = point_[i], b = point_[j], c = point_[k], n = normal_of(a, b, c);
      area_[f] = norm(n) / 2, normal_[f] = unit(n), centre_[f] = (1.0 / 3) * (a + b + c);
      length_[f] = (norm(b - a) + norm(c - b) + norm(a - c)) / 3;
      // A tube of diameter t bends by 2 s / t along an edge of length s.
      bend_[f] = std::min(6 * length_[f] / (thickness_[i] + thickness_[j] + thickness_[k]), MOST_BEND);
    }
    near_.resize(ring_.item.size());
    for (int32_t f = 0; f < faces(); ++f) {
      for (int32_t k = ring_.begin(f); k < ring_.end(f); ++k) {
        const int32_t g = ring_.item[k];
        const Vec d = centre_[g] - centre_[f];
        near_[k] = area_[g] * std::exp(-dot(d, d) / (2 * length_[f] * length_[g]));
      }
    }
  }

  // Each normal becomes the mean of those around that are like it (bilateral, after Zheng et al. 2011). What bends no
  // more than a tube of this thickness is like it too.
  void filter() {
    next_.resize(faces());
    for (int32_t f = 0; f < faces(); ++f) {
      Vec sum;
      double total = 0;
      const double scale = 1 / (2 * (SIGMA * SIGMA + bend_[f] * bend_[f]));
      for (int32_t k = ring_.begin(f); k < ring_.end(f); ++k) {
        const int32_t g = ring_.item[k];
        const Vec d = wanted_[f] - wanted_[g];
        sum = sum + near_[k] * std::exp(-dot(d, d) * scale) * wanted_[g];
        total += near_[k];
      }
      sum = sum + HOLD * total * given_[f];
      next_[f] = unit(sum);
    }
    std::swap(wanted_, next_);
  }

  // Borders, and edges at which the wanted normals bend; on_ counts them at each vertex.
  void find_creases() {
    const double crease = options_.crease_deg * M_PI / 180;
    crease_.clear();
    for (const Edge& e : edges_) {
      if (e.other < 0 || dot(wanted_[e.face], wanted_[e.other]) <
                             std::cos(std::max(crease, ROUND / 2 * (bend_[e.face] + bend_[e.other])))) {
        crease_.push_back(e);
      }
    }
    on_.assign(points(), 0);
    for (const Edge& e : crease_) ++on_[e.a], ++on_[e.b];
  }

  // Along the crease only; where creases meet or end, the vertex stays.
  void straighten() {
    std::vector<Vec> sum(points());
    for (int step = 0; step < CHAIN_STEPS; ++step) {
      std::fill(sum.begin(), sum.end(), Vec{});
      for (const Edge& e : crease_) {
        sum[e.a] = sum[e.a] + point_[e.b];
        sum[e.b] = sum[e.b] + point_[e.a];
      }
      for (int32_t v = 0; v < points(); ++v) {
        if (on_[v] == 2) point_[v] = point_[v] + 0.5 * (0.5 * sum[v] - point_[v]);
      }
    }
  }

  // Vertices beside creases go to the middle of their neighbours, within the surface.
  void even_out() {
    std::vector<Vec> sum(points()), normal(points());
    std::vector<double> count(points());
    for (int step = 0; step < EVEN_STEPS; ++step) {
      std::fill(sum.begin(), sum.end(), Vec{});
      std::fill(count.begin(), count.end(), 0.0);
      std::fill(normal.begin(), normal.end(), Vec{});
      for (const Edge& e : edges_) {
        sum[e.a] = sum[e.a] + point_[e.b], ++count[e.a];
        sum[e.b] = sum[e.b] + point_[e.a], ++count[e.b];
      }
      for (const Triangle& t : triangles_) {
        const Vec n = normal_of(point_[t[0]], point_[t[1]], point_[t[2]]);
        for (int32_t v : t) normal[v] = normal[v] + n;
      }
      for (int32_t v = 0; v < points(); ++v) {
        if (on_[v] > 0 || count[v] == 0) continue;
        const Vec n = unit(normal[v]), step_to = (1 / count[v]) * sum[v] - point_[v];
        point_[v] = point_[v] + 0.5 * (step_to - dot(step_to, n) * n);
      }
    }
  }

  // Sun et al. 2007: each vertex moves to where its faces' planes, with the wanted normals, want it on average.
  void fit() {
    std::vector<Vec> sum(points());
    for (int step = 0; step < FIT_STEPS; ++step) {
      std::fill(sum.begin(), sum.end(), Vec{});
      for (int32_t f = 0; f < faces(); ++f) {
        const Triangle& t = triangles_[f];
        const Vec centre = (1.0 / 3) * (point_[t[0]] + point_[t[1]] + point_[t[2]]), n = wanted_[f];
        for (int32_t v : t) sum[v] = sum[v] + dot(n, centre - point_[v]) * n;
      }
      for (int32_t v = 0; v < points(); ++v) {
        const int32_t count = around_.end(v) - around_.begin(v);
        if (count > 0) point_[v] = point_[v] + (1.0 / count) * sum[v];
      }
    }
  }

  // Vertices of faces that turned over or shrank to slivers go to the middle of their neighbours, on creases along
  // them: pulled off a crease they would leave a dent.
  void unfold() {
    std::vector<Vec> sum(points());
    std::vector<double> count(points());
    std::vector<uint8_t> bad(points());
    for (int step = 0; step < UNFOLD_STEPS; ++step) {
      bool found = false;
      std::fill(bad.begin(), bad.end(), uint8_t(0));
      for (int32_t f = 0; f < faces(); ++f) {
        const auto [i, j, k] = triangles_[f];
        const Vec n = normal_of(point_[i], point_[j], point_[k]);
        const Vec ab = point_[j] - point_[i], bc = point_[k] - point_[j], ca = point_[i] - point_[k];
        const double size = dot(ab, ab) + dot(bc, bc) + dot(ca, ca);
        if (dot(n, wanted_[f]) > 0.5 * norm(n) && norm(n) > 0.05 * size) continue;
        found = true;
        bad[i] = bad[j] = bad[k] = 1;
      }
      if (!found) return;
      std::fill(sum.begin(), sum.end(), Vec{});
      std::fill(count.begin(), count.end(), 0.0);
      for (const Edge& e : edges_) {
        if (on_[e.a] == 0) sum[e.a] = sum[e.a] + point_[e.b], ++count[e.a];
        if (on_[e.b] == 0) sum[e.b] = sum[e.b] + point_[e.a], ++count[e.b];
      }
      for (const Edge& e : crease_) {
        sum[e.a] = sum[e.a] + point_[e.b], ++count[e.a];
        sum[e.b] = sum[e.b] + point_[e.a], ++count[e.b];
      }
      for (int32_t v = 0; v < points(); ++v) {
        if (bad[v] && on_[v] <= 2 && count[v] > 0) point_[v] = point_[v] + 0.5 * ((1 / count[v]) * sum[v] - point_[v]);
      }
    }
  }

  // No vertex goes far from the surface at the start: what is rounded off in one round cannot add up.
  void stay_near() {
    for (int32_t v = 0; v < points(); ++v) {
      double most = 0;
      for (int32_t k = around_.begin(v); k < around_.end(v); ++k) most += length_[around_.item[k]];
      most *= REACH / std::max(around_.end(v) - around_.begin(v), 1);
      most = std::min(most, DEPTH * thickness_[v]);
      SurfaceTree::Nearest best;
      first_->nearest(point_[v], [](int32_t) { return true; }, &best);
      const double far = std::sqrt(best.distance2);
      if (far > most) point_[v] = best.point + (most / far) * (point_[v] - best.point);
    }
  }

  std::unique_ptr<SurfaceTree> first_;
  const FinishOptions options_;
  const std::vector<Triangle>& triangles_;
  const std::vector<double>& thickness_;
  std::vector<Vec>& point_;
  Ranges around_, ring_;
  std::vector<Edge> edges_, crease_;
  std::vector<int32_t> on_;
  std::vector<Vec> normal_, wanted_, next_, given_, centre_;
  std::vector<double> area_, near_, length_, bend_;
};

}  // namespace

void finish(const FinishOptions& options, const std::vector<Triangle>& triangles, const std::vector<double>& thickness,
            std::vector<Vec>* points) {
  Finisher(options, triangles, thickness, points).run();
}

}  // namespace sds3d
