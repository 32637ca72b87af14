// Antialiasing of a mesh's outlines, with gradients to its vertices.
//
// An outline edge has one face that looks at the camera and one that does not, or one face only. It is walked along
// both axes of the screen: in every row (and column) it passes between two pixel centres, that of the inside, which
// sees the mesh, and that of the outside. With d in [0, 1] the distance from the inside's centre to the edge, in
// pixels, the edge covers d - 1/2 of the outside pixel (d > 1/2), or leaves 1/2 - d of the inside pixel uncovered:
//   out[target] += w (color[source] - color[target]),   w = share |d - 1/2|
// so the covered area of an image is exact to the width of a pixel, and moves with the vertices. It depends on edges
// only, not on which face a pixel happens to see: faces smaller than a pixel lose nothing.
// An edge of direction (cos a, sin a) has share sin^2 a of its rows and cos^2 a of its columns. Either alone would do
// for one edge; but where a chain of short edges changes from one axis to the other, half a pixel of outline is lost or
// counted twice, and at 64 pixels that is most of the gradient's error.
// After the outlines' antialiasing of Laine et al. 2020 (Modular Primitives for High-Performance Differentiable
// Rendering), which goes by pixels.
#pragma once

#include <vector>

#include "../rasterize_triangles/rasterize_triangles.h"

namespace sds3d {

struct OutlineInputs {
  TriangleInputs mesh;
  const int32_t* edges;  // [E, 4]: two ends, two faces (the second -1 at a border)
  const float* depth;    // [B, H, W], of the rasterizer
  float tolerance;       // in units of depth: so much farther than the edge what is outside must lie
};

constexpr float LEAST_SHARE = 0.02f;  // an axis with less is left to the other

constexpr int CROSSING_INTS = 5;    // view, target pixel, source pixel, the edge's ends a and b
constexpr int CROSSING_FLOATS = 5;  // w, dw/dd', s, slope, 1 if walked along y: see outline_math.h

struct Crossings {
  int32_t* index;  // [N, 5]
  float* value;    // [N, 5]
};

// CPU. Appends the crossings of all edges of one view.
void outline_crossings(const TriangleShape& shape, const OutlineInputs& in, int64_t view, int64_t edges,
                       std::vector<int32_t>* index, std::vector<float>* value);

struct BlendShape {
  int64_t crossings, vertices, pixels;  // pixels per view
  int channels;
};

struct BlendInputs {
  const float* color;    // [B, H, W, K]
  const int32_t* index;  // [N, 5]
  const float* value;    // [N, 5]
};

// CPU, crossings [begin, end). `out` begins as the colours; the gradients begin as the upstream one and as 0.
void blend_outlines(const BlendShape& shape, const BlendInputs& in, float* out, int64_t begin, int64_t end);
void blend_outlines_backward(const BlendShape& shape, const BlendInputs& in, const float* upstream, float* grad_color,
                             float* grad_points, int64_t begin, int64_t end);

}  // namespace sds3d
