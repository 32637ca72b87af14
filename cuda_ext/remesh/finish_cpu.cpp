// Flat faces and straight creases on a rough surface: normals first, then the vertices that fit them.
#include "finish.h"

#include <algorithm>
#include <cmath>

namespace sds3d {

namespace {

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
  Finisher(const FinishOptions& options, const std::vector<Triangle>& triangles, std::vector<Vec>* points)
      : options_(options), triangles_(triangles), point_(*points) {
    connect();
  }

  void run() {
    for (int round = 0; round < options_.rounds; ++round) {
      measure();
      wanted_ = normal_;
      for (int k = 0; k < options_.normal_steps; ++k) filter(true);
      find_creases();
      for (int k = 0; k < options_.smooth_steps; ++k) filter(false);
      straighten();
      even_out();
      fit();
    }
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
    double sum = 0;
    for (int32_t f = 0; f < faces(); ++f) {
      const auto [a, b, c] = triangles_[f];
      const Vec n = normal_of(point_[a], point_[b], point_[c]);
      area_[f] = norm(n) / 2, normal_[f] = unit(n);
      centre_[f] = (1.0 / 3) * (point_[a] + point_[b] + point_[c]);
    }
    for (const Edge& e : edges_) sum += norm(point_[e.a] - point_[e.b]);
    edge_ = sum / double(edges_.size());
    near_.resize(ring_.item.size());
    for (int32_t f = 0; f < faces(); ++f) {
      for (int32_t k = ring_.begin(f); k < ring_.end(f); ++k) {
        const Vec d = centre_[ring_.item[k]] - centre_[f];
        near_[k] = area_[ring_.item[k]] * std::exp(-dot(d, d) / (2 * edge_ * edge_));
      }
    }
  }

  // Of all one-ring patches that hold a face, the one whose normals agree best tells its guide.
  void find_guides() {
    patch_.resize(faces()), spread_.resize(faces()), guide_.resize(faces());
    for (int32_t f = 0; f < faces(); ++f) {
      Vec sum;
      for (int32_t k = ring_.begin(f); k < ring_.end(f); ++k) {
        sum = sum + area_[ring_.item[k]] * wanted_[ring_.item[k]];
      }
      patch_[f] = unit(sum);
      double least = 1;
      for (int32_t k = ring_.begin(f); k < ring_.end(f); ++k) {
        least = std::min(least, dot(patch_[f], wanted_[ring_.item[k]]));
      }
      spread_[f] = 1 - least;
    }
    for (int32_t f = 0; f < faces(); ++f) {
      int32_t best = f;
      for (int32_t k = ring_.begin(f); k < ring_.end(f); ++k) {
        if (spread_[ring_.item[k]] < spread_[best]) best = ring_.item[k];
      }
      guide_[f] = patch_[best];
    }
  }

  void filter(bool bilateral) {
    const double range = bilateral ? options_.sigma : options_.smooth_sigma;
    if (bilateral && options_.guided) {
      find_guides();
    } else {
      guide_ = wanted_;
    }
    const double scale = 1 / (2 * range * range);
    next_.resize(faces());
    for (int32_t f = 0; f < faces(); ++f) {
      Vec sum;
      for (int32_t k = ring_.begin(f); k < ring_.end(f); ++k) {
        const int32_t g = ring_.item[k];
        const Vec d = guide_[f] - guide_[g];
        sum = sum + near_[k] * std::exp(-dot(d, d) * scale) * wanted_[g];
      }
      next_[f] = unit(sum);
    }
    std::swap(wanted_, next_);
  }

  void find_creases() {
    const double least = std::cos(options_.crease_deg * M_PI / 180);
    crease_.clear();
    for (const Edge& e : edges_) {
      if (e.other < 0 || dot(wanted_[e.face], wanted_[e.other]) < least) crease_.push_back(e);
    }
    on_.assign(points(), 0);
    for (const Edge& e : crease_) ++on_[e.a], ++on_[e.b];
  }

  // Along the crease only; where creases meet or end, the vertex stays.
  void straighten() {
    std::vector<Vec> sum(points());
    for (int step = 0; step < options_.chain_steps; ++step) {
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

  void even_out() {
    std::vector<Vec> sum(points()), normal(points());
    std::vector<double> count(points());
    for (int step = 0; step < options_.even_steps; ++step) {
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
    for (int step = 0; step < options_.fit_steps; ++step) {
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

  const FinishOptions options_;
  const std::vector<Triangle>& triangles_;
  std::vector<Vec>& point_;
  Ranges around_, ring_;
  std::vector<Edge> edges_, crease_;
  std::vector<int32_t> on_;
  std::vector<Vec> normal_, wanted_, next_, guide_, patch_, centre_;
  std::vector<double> area_, near_, spread_;
  double edge_ = 0;
};

}  // namespace

void finish(const FinishOptions& options, const std::vector<Triangle>& triangles, std::vector<Vec>* points) {
  Finisher(options, triangles, points).run();
}

}  // namespace sds3d
