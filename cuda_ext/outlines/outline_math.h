// One edge in one view, and one crossing of it: the same for CPU and CUDA.
#pragma once

#include "outlines.h"

namespace sds3d {

// An outline edge, to be walked along one axis of the screen.
struct OutlineWalk {
  int32_t a, b;
  float a_along, a_across, b_along, b_across;  // the ends, along the axis that is walked and across it
  float a_inverse_z, b_inverse_z;
  float share;      // of this axis in the edge's crossings
  bool steep;       // walked along y
  bool positive;    // the inside lies at the larger coordinate across
  int first, last;  // rows (or columns) whose centres it passes; none: first > last
};

// Twice the signed area on the screen. y points down: a face that looks at the camera, its corners counter-clockwise
// from outside, has a negative one.
SDS3D_HD bool faces_camera(const TriangleInputs& mesh, const float* points, int64_t face) {
  const float* p = points + 3 * int64_t(mesh.faces[3 * face]);
  const float* q = points + 3 * int64_t(mesh.faces[3 * face + 1]);
  const float* r = points + 3 * int64_t(mesh.faces[3 * face + 2]);
  return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]) < 0.0f;
}

// The corner of a face that is neither a nor b; -1 for a face that has no third.
SDS3D_HD int32_t third_corner(const int32_t* corners, int32_t a, int32_t b) {
  for (int i = 0; i < 3; ++i) {
    if (corners[i] != a && corners[i] != b) return corners[i];
  }
  return -1;
}

SDS3D_HD bool usable_point(const float* p) {
  return p[2] > MIN_DEPTH && is_finite(p[0]) && is_finite(p[1]) && is_finite(p[2]);
}

// The third corner of the inside's face; -1 if the edge is no outline, or has an end that cannot be drawn.
SDS3D_HD int32_t outline_corner(const TriangleShape& shape, const OutlineInputs& in, int64_t view, int64_t edge) {
  const int32_t* row = in.edges + 4 * edge;
  const float* points = in.mesh.points + view * shape.vertices * 3;
  const bool one = faces_camera(in.mesh, points, row[2]);
  if (row[3] >= 0 && one == faces_camera(in.mesh, points, row[3])) return -1;
  const int32_t* corners = in.mesh.faces + 3 * int64_t(row[3] < 0 || one ? row[2] : row[3]);
  const int32_t third = third_corner(corners, row[0], row[1]);
  const bool usable = third >= 0 && usable_point(points + 3 * int64_t(row[0])) &&
                      usable_point(points + 3 * int64_t(row[1])) && usable_point(points + 3 * int64_t(third));
  return usable ? third : -1;
}

SDS3D_HD OutlineWalk outline_walk(const TriangleShape& shape, const OutlineInputs& in, int64_t view, int64_t edge,
                                  int32_t third, bool steep) {
  OutlineWalk e;
  const int32_t* row = in.edges + 4 * edge;
  const float* points = in.mesh.points + view * shape.vertices * 3;
  const float *pa = points + 3 * int64_t(row[0]), *pb = points + 3 * int64_t(row[1]), *pc = points + 3 * int64_t(third);
  const int along = steep ? 1 : 0, across = 1 - along;
  e.a = row[0], e.b = row[1], e.steep = steep;
  e.first = 0, e.last = -1;
  e.a_along = pa[along], e.a_across = pa[across], e.a_inverse_z = 1.0f / pa[2];
  e.b_along = pb[along], e.b_across = pb[across], e.b_inverse_z = 1.0f / pb[2];
  const float length = e.b_along - e.a_along, rise = e.b_across - e.a_across;
  const float share = length * length / (length * length + rise * rise);
  if (!(share > LEAST_SHARE)) return e;
  e.share = share > 1.0f - LEAST_SHARE ? 1.0f : share;
  e.positive = pc[across] > e.a_across + rise * (pc[along] - e.a_along) / length;
  const int count = steep ? shape.height : shape.width;
  const float low = ::fminf(e.a_along, e.b_along), high = ::fmaxf(e.a_along, e.b_along);
  // Centres in [low, high): where one edge of an outline ends the next begins, and no row is walked twice.
  e.first = int(::ceilf(::fminf(::fmaxf(low - 0.5f, 0.0f), float(count))));
  e.last = int(::ceilf(::fminf(::fmaxf(high - 0.5f, 0.0f), float(count)))) - 1;
  return e;
}

struct Crossing {
  int64_t target, source;  // pixels of the view
  float weight;
  float sign;   // dw/dx, x being where the edge crosses; the axis's share is in both
  float s;      // from 0 at a to 1 at b
  float slope;  // (b_across - a_across) / (b_along - a_along)
};

// Whether the edge, at the centre of row (or column) k, passes between two centres and is seen there.
// x = a_across + s (b_across - a_across),  s = (k + 1/2 - a_along) / (b_along - a_along)
SDS3D_HD bool crossing_at(const TriangleShape& shape, const OutlineInputs& in, const OutlineWalk& e, int64_t view,
                          int k, Crossing* out) {
  const float length = e.b_along - e.a_along, rise = e.b_across - e.a_across;
  const float s = (float(k) + 0.5f - e.a_along) / length;
  const float x = e.a_across + s * rise;
  const int count = e.steep ? shape.width : shape.height;
  if (!(x >= 0.5f && x <= float(count) - 0.5f)) return false;
  // A centre right on the edge is the rasterizer's inside.
  const float lower = ::floorf(x - 0.5f);
  const int low = int(lower) - (e.positive && lower == x - 0.5f ? 1 : 0);
  if (low < 0 || low + 1 >= count) return false;
  const int inside = e.positive ? low + 1 : low, outside = e.positive ? low : low + 1;
  const int64_t in_pixel = e.steep ? int64_t(k) * shape.width + inside : int64_t(inside) * shape.width + k;
  const int64_t out_pixel = e.steep ? int64_t(k) * shape.width + outside : int64_t(outside) * shape.width + k;
  const float* depth = in.depth + view * shape.pixels();
  const float edge_depth = 1.0f / ((1.0f - s) * e.a_inverse_z + s * e.b_inverse_z);
  if (depth[out_pixel] < edge_depth + in.tolerance) return false;  // what is outside must lie behind the edge
  if (!(depth[in_pixel] < depth[out_pixel])) return false;         // and what is inside in front of it
  const float u = x - (float(low) + 0.5f);
  const float d = e.positive ? 1.0f - u : u, change = e.positive ? -1.0f : 1.0f;  // of the inside's centre; dd/dx
  const bool outward = d >= 0.5f;
  out->target = outward ? out_pixel : in_pixel;
  out->source = outward ? in_pixel : out_pixel;
  out->weight = e.share * (outward ? d - 0.5f : 0.5f - d);
  out->sign = e.share * (outward ? change : -change);
  out->s = s;
  out->slope = rise / length;
  return true;
}

SDS3D_HD void write_crossing(const Crossings& out, int64_t at, int64_t view, const OutlineWalk& e, const Crossing& c) {
  int32_t* index = out.index + at * CROSSING_INTS;
  float* value = out.value + at * CROSSING_FLOATS;
  index[0] = int32_t(view), index[1] = int32_t(c.target), index[2] = int32_t(c.source), index[3] = e.a, index[4] = e.b;
  value[0] = c.weight, value[1] = c.sign, value[2] = c.s, value[3] = c.slope, value[4] = e.steep ? 1.0f : 0.0f;
}

// Of crossing n: `add` gets each pixel's share of the blended image.
template <class Add>
SDS3D_HD void blend_crossing(const BlendShape& shape, const BlendInputs& in, int64_t n, const Add& add) {
  const int32_t* index = in.index + n * CROSSING_INTS;
  const int64_t target = (index[0] * shape.pixels + index[1]) * shape.channels;
  const int64_t source = (index[0] * shape.pixels + index[2]) * shape.channels;
  const float weight = in.value[n * CROSSING_FLOATS];
  for (int k = 0; k < shape.channels; ++k) add(target + k, weight * (in.color[source + k] - in.color[target + k]));
}

template <class Add>
SDS3D_HD void blend_color_gradient(const BlendShape& shape, const BlendInputs& in, const float* upstream, int64_t n,
                                   const Add& add) {
  const int32_t* index = in.index + n * CROSSING_INTS;
  const int64_t target = (index[0] * shape.pixels + index[1]) * shape.channels;
  const int64_t source = (index[0] * shape.pixels + index[2]) * shape.channels;
  const float weight = in.value[n * CROSSING_FLOATS];
  for (int k = 0; k < shape.channels; ++k) {
    const float share = weight * upstream[target + k];
    add(source + k, share);
    add(target + k, -share);
  }
}

// dx/da_across = 1 - s, dx/db_across = s, dx/da_along = -(1 - s) slope, dx/db_along = -s slope.
template <class Add>
SDS3D_HD void blend_point_gradient(const BlendShape& shape, const BlendInputs& in, const float* upstream, int64_t n,
                                   const Add& add) {
  const int32_t* index = in.index + n * CROSSING_INTS;
  const float* value = in.value + n * CROSSING_FLOATS;
  const int64_t target = (index[0] * shape.pixels + index[1]) * shape.channels;
  const int64_t source = (index[0] * shape.pixels + index[2]) * shape.channels;
  float dw = 0.0f;
  for (int k = 0; k < shape.channels; ++k) dw += upstream[target + k] * (in.color[source + k] - in.color[target + k]);
  const float dx = dw * value[1], s = value[2], slope = value[3];
  const int along = value[4] > 0.5f ? 1 : 0, across = 1 - along;
  const int64_t a = 3 * (index[0] * shape.vertices + index[3]), b = 3 * (index[0] * shape.vertices + index[4]);
  add(a + across, dx * (1.0f - s));
  add(b + across, dx * s);
  add(a + along, -dx * (1.0f - s) * slope);
  add(b + along, -dx * s * slope);
}

}  // namespace sds3d
