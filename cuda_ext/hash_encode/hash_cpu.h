// Hash encoding on the CPU. Included once per instruction set by hash_{baseline,avx2,avx512}.cpp.
//
// A block of points at a time: entries and weights of all their corners first, in loops without branches that the
// compiler makes vector code of; then the table, one entry's features as one small vector.
#pragma once

#include <algorithm>
#include <cstring>

#include "../simd/lanes.h"
#include "hash_math.h"

namespace sds3d {
namespace SDS3D_ISA {

constexpr int GROUP = 16;      // points whose corners are found together
constexpr int STRETCH = 2048;  // points that go through one level before the next: their results stay in the cache
constexpr int CORNERS = 8;     // bit 2: x, bit 1: y, bit 0: z

// An entry's features.
template <int F>
struct Entry {
  typedef float Vector __attribute__((vector_size(4 * F)));
  Vector v;
  static Entry load(const float* p) {
    Entry e;
    std::memcpy(&e.v, p, sizeof(e.v));
    return e;
  }
  void store(float* p) const { std::memcpy(p, &v, sizeof(v)); }
};
template <>
struct Entry<1> {
  float v;
  static Entry load(const float* p) { return {*p}; }
  void store(float* p) const { *p = v; }
};

struct Corners {
  alignas(64) uint32_t entry[CORNERS][GROUP];
  alignas(64) float weight[CORNERS][GROUP];
  alignas(64) float above[3][GROUP], inside[3][GROUP];
};

// Points [first, first + count) by coordinate; the rest of the group is at the origin.
static void load_points(const float* points, int64_t first, int count, float (*p)[GROUP]) {
  const float* from = points + 3 * first;
  float *x = p[0], *y = p[1], *z = p[2];
  if (count == GROUP) {
    for (int j = 0; j < GROUP; ++j) x[j] = from[3 * j], y[j] = from[3 * j + 1], z[j] = from[3 * j + 2];
    return;
  }
  for (int j = 0; j < GROUP; ++j) {
    const bool there = j < count;
    x[j] = there ? from[3 * j] : 0.0f, y[j] = there ? from[3 * j + 1] : 0.0f, z[j] = there ? from[3 * j + 2] : 0.0f;
  }
}

template <bool HASHED>
static void find_corners(const HashLevel& level, const float (*p)[GROUP], Corners* out) {
  const int32_t cells = level.cells;
  const uint32_t mask = level.mask, side = uint32_t(cells) + 1u;
  for (int j = 0; j < GROUP; ++j) {
    const Place x = place_of(p[0][j], cells), y = place_of(p[1][j], cells), z = place_of(p[2][j], cells);
    out->above[0][j] = x.above, out->above[1][j] = y.above, out->above[2][j] = z.above;
    out->inside[0][j] = x.inside, out->inside[1][j] = y.inside, out->inside[2][j] = z.inside;
    const uint32_t px = uint32_t(x.low), py = uint32_t(y.low), pz = uint32_t(z.low);
    const uint32_t xs[2] = {HASHED ? px : px * side * side, HASHED ? px + 1u : (px + 1u) * side * side};
    const uint32_t ys[2] = {HASHED ? py * PRIME_Y : py * side, HASHED ? (py + 1u) * PRIME_Y : (py + 1u) * side};
    const uint32_t zs[2] = {HASHED ? pz * PRIME_Z : pz, HASHED ? (pz + 1u) * PRIME_Z : pz + 1u};
    const float wx[2] = {1.0f - x.above, x.above}, wy[2] = {1.0f - y.above, y.above}, wz[2] = {1.0f - z.above, z.above};
    for (int k = 0; k < CORNERS; ++k) {
      const uint32_t a = xs[k >> 2], b = ys[(k >> 1) & 1], c = zs[k & 1];
      out->entry[k][j] = HASHED ? (a ^ b ^ c) & mask : a + b + c;
      out->weight[k][j] = wx[k >> 2] * wy[(k >> 1) & 1] * wz[k & 1];
    }
  }
}

static void find_corners(const HashLevel& level, const float (*p)[GROUP], Corners* out) {
  if (level.mask != 0) {
    find_corners<true>(level, p, out);
  } else {
    find_corners<false>(level, p, out);
  }
}

template <int F>
static void encode_group(const float* table, const Corners& corners, int count, float* out, int64_t stride) {
  for (int j = 0; j < count; ++j) {
    auto sum = Entry<F>::load(table + int64_t(corners.entry[0][j]) * F).v * corners.weight[0][j];
    for (int k = 1; k < CORNERS; ++k) {
      sum += Entry<F>::load(table + int64_t(corners.entry[k][j]) * F).v * corners.weight[k][j];
    }
    Entry<F>{sum}.store(out + j * stride);
  }
}

template <int F>
static void add_group(const Corners& corners, int count, const float* grad, int64_t stride, float* grad_table) {
  for (int j = 0; j < count; ++j) {
    const auto upstream = Entry<F>::load(grad + j * stride).v;
    for (int k = 0; k < CORNERS; ++k) {
      float* at = grad_table + int64_t(corners.entry[k][j]) * F;
      Entry<F>{Entry<F>::load(at).v + upstream * corners.weight[k][j]}.store(at);
    }
  }
}

template <int F>
static void add_point_group(const float* table, const Corners& corners, int count, const float* grad, int64_t stride,
                            float cells, float (*sums)[3]) {
  for (int j = 0; j < count; ++j) {
    float value[CORNERS];  // <upstream, entry>
    for (int k = 0; k < CORNERS; ++k) {
      const float* entry = table + int64_t(corners.entry[k][j]) * F;
      value[k] = 0.0f;
      for (int f = 0; f < F; ++f) value[k] += grad[j * stride + f] * entry[f];
    }
    const Place x = {0, corners.above[0][j], corners.inside[0][j]}, y = {0, corners.above[1][j], corners.inside[1][j]};
    const Place z = {0, corners.above[2][j], corners.inside[2][j]};
    add_point_gradient(value, x, y, z, cells, sums[j]);
  }
}

// Calls function<F>() for the features of `shape`.
template <class Function>
static void with_features(const HashShape& shape, const Function& function) {
  switch (shape.features) {
    case 1:
      return function.template operator()<1>();
    case 2:
      return function.template operator()<2>();
    case 4:
      return function.template operator()<4>();
    default:
      return function.template operator()<8>();
  }
}

static void encode(const HashShape& shape, const HashInputs& in, float* out, int64_t begin, int64_t end) {
  const int64_t stride = int64_t(shape.levels) * shape.features;
  with_features(shape, [&]<int F>() {
    Corners corners;
    alignas(64) float p[3][GROUP];
    for (int64_t stretch = begin; stretch < end; stretch += STRETCH) {
      const int64_t stop = std::min<int64_t>(stretch + STRETCH, end);
      for (int l = 0; l < shape.levels; ++l) {
        const HashLevel level = shape.level[l];
        const float* table = in.table + level.first * F;
        for (int64_t i = stretch; i < stop; i += GROUP) {
          const int count = int(std::min<int64_t>(GROUP, stop - i));
          load_points(in.points, i, count, p);
          find_corners(level, p, &corners);
          encode_group<F>(table, corners, count, out + i * stride + l * F, stride);
        }
      }
    }
  });
}

static void table_gradient(const HashShape& shape, const float* points, const float* grad, float* grad_table, int l) {
  const int64_t stride = int64_t(shape.levels) * shape.features;
  with_features(shape, [&]<int F>() {
    Corners corners;
    alignas(64) float p[3][GROUP];
    const HashLevel level = shape.level[l];
    for (int64_t i = 0; i < shape.points; i += GROUP) {
      const int count = int(std::min<int64_t>(GROUP, shape.points - i));
      load_points(points, i, count, p);
      find_corners(level, p, &corners);
      add_group<F>(corners, count, grad + i * stride + l * F, stride, grad_table + level.first * F);
    }
  });
}

static void point_gradient(const HashShape& shape, const HashInputs& in, const float* grad, float* grad_points,
                           int64_t begin, int64_t end) {
  const int64_t stride = int64_t(shape.levels) * shape.features;
  with_features(shape, [&]<int F>() {
    Corners corners;
    alignas(64) float p[3][GROUP];
    for (int64_t i = begin; i < end; i += GROUP) {
      const int count = int(std::min<int64_t>(GROUP, end - i));
      float sums[GROUP][3] = {};
      load_points(in.points, i, count, p);
      for (int l = 0; l < shape.levels; ++l) {
        const HashLevel level = shape.level[l];
        find_corners(level, p, &corners);
        add_point_group<F>(in.table + level.first * F, corners, count, grad + i * stride + l * F, stride,
                           float(level.cells), sums);
      }
      std::memcpy(grad_points + 3 * i, sums, sizeof(float) * 3 * count);
    }
  });
}

}  // namespace SDS3D_ISA
}  // namespace sds3d
