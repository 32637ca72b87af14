// Projection on the CPU. Included once per instruction set by project_{baseline,avx2,avx512}.cpp.
//
// A block of splats at a time, all its views, so that gradients need no second pass. Within a block the values lie
// apart by kind and the loops have no branches, so the compiler makes vector code of them.
#pragma once

#include <algorithm>
#include <vector>

#include "../simd/lanes.h"
#include "projection_math.h"

namespace sds3d {
namespace SDS3D_ISA {

constexpr int BLOCK = 64;  // splats

static std::vector<View> load_views(const ProjectShape& shape, const ProjectInputs& in) {
  std::vector<View> views(shape.views);
  for (int64_t b = 0; b < shape.views; ++b) {
    views[b] = load_view(in.camera_to_world + 16 * b, in.intrinsics + 9 * b, shape.height, shape.width);
  }
  return views;
}

struct SplatBlock {
  alignas(64) float mean[3][BLOCK], scale[3][BLOCK], quat[4][BLOCK], opacity[BLOCK], cut[BLOCK];

  // Splats [first, first + count); the rest get opacity 0, which nothing shows.
  void load(const ProjectInputs& in, int64_t first, int count) {
    for (int j = 0; j < count; ++j) {
      const int64_t i = first + j;
      for (int c = 0; c < 3; ++c) mean[c][j] = in.means[3 * i + c];
      for (int c = 0; c < 3; ++c) scale[c][j] = in.scales[3 * i + c];
      for (int c = 0; c < 4; ++c) quat[c][j] = in.quats[4 * i + c];
      opacity[j] = in.opacities[i];
      cut[j] = opacity_cut(opacity[j]);
    }
    for (int j = count; j < BLOCK; ++j) {
      for (int c = 0; c < 3; ++c) mean[c][j] = scale[c][j] = 0.0f;
      for (int c = 0; c < 4; ++c) quat[c][j] = 0.0f;
      opacity[j] = cut[j] = 0.0f;
    }
  }

  Gaussian at(int j) const {
    return make_gaussian({mean[0][j], mean[1][j], mean[2][j]}, {scale[0][j], scale[1][j], scale[2][j]}, quat[0][j],
                         quat[1][j], quat[2][j], quat[3][j], opacity[j], cut[j]);
  }
};

struct ProjectionBlock {
  alignas(64) float mean_x[BLOCK], mean_y[BLOCK], conic_xx[BLOCK], conic_xy[BLOCK], conic_yy[BLOCK];
  alignas(64) float depth[BLOCK], extent_x[BLOCK], extent_y[BLOCK];
};

static void project_block(const SplatBlock& splats, const View& view_, const ProjectShape& shape_,
                          ProjectionBlock* out) {
  const View view = view_;  // copies, so that no store can change them
  const ProjectShape shape = shape_;
  for (int j = 0; j < BLOCK; ++j) {
    const Projection p = project_splat(splats.at(j), view, shape);
    out->mean_x[j] = p.mean_x;
    out->mean_y[j] = p.mean_y;
    out->conic_xx[j] = p.conic_xx;
    out->conic_xy[j] = p.conic_xy;
    out->conic_yy[j] = p.conic_yy;
    out->depth[j] = p.depth;
    out->extent_x[j] = p.extent_x;
    out->extent_y[j] = p.extent_y;
  }
}

static void project_forward(const ProjectShape& shape, const ProjectInputs& in, const ProjectOutputs& out,
                            int64_t begin, int64_t end) {
  const std::vector<View> views = load_views(shape, in);
  SplatBlock splats;
  ProjectionBlock found;
  for (int64_t first = begin; first < end; first += BLOCK) {
    const int count = int(std::min<int64_t>(end - first, BLOCK));
    splats.load(in, first, count);
    for (int64_t b = 0; b < shape.views; ++b) {
      project_block(splats, views[b], shape, &found);
      for (int j = 0; j < count; ++j) {
        const Projection p = {found.mean_x[j],   found.mean_y[j], found.conic_xx[j], found.conic_xy[j],
                              found.conic_yy[j], found.depth[j],  found.extent_x[j], found.extent_y[j]};
        store_projection(p, out, b * shape.splats + first + j);
      }
    }
  }
}

// One view's upstream gradient, and which of the block's splats it shows.
struct UpstreamBlock {
  alignas(64) float mean_x[BLOCK], mean_y[BLOCK], conic_xx[BLOCK], conic_xy[BLOCK], conic_yy[BLOCK], depth[BLOCK];
  alignas(64) float extent[BLOCK];

  void load(const ProjectGradients& grad, const float* radii, int64_t first, int count) {
    for (int j = 0; j < BLOCK; ++j) {
      ProjectionGradient g = {};
      if (j < count) g = load_upstream(grad, first + j);
      mean_x[j] = g.mean_x;
      mean_y[j] = g.mean_y;
      conic_xx[j] = g.conic_xx;
      conic_xy[j] = g.conic_xy;
      conic_yy[j] = g.conic_yy;
      depth[j] = g.depth;
      extent[j] = j < count ? radii[2 * (first + j)] : 0.0f;
    }
  }
};

struct GradientBlock {
  alignas(64) float mean[3][BLOCK], axes[9][BLOCK], visible[BLOCK];

  GaussianGradient at(int j) const {
    return {{mean[0][j], mean[1][j], mean[2][j]},
            {{{axes[0][j], axes[1][j], axes[2][j]},
              {axes[3][j], axes[4][j], axes[5][j]},
              {axes[6][j], axes[7][j], axes[8][j]}}}};
  }
};

static void add_view(const SplatBlock& splats, const View& view_, float dilation, const UpstreamBlock& up,
                     GradientBlock* sum) {
  const View view = view_;
  for (int j = 0; j < BLOCK; ++j) {
    const bool visible = up.extent[j] != 0.0f;
    const ProjectionGradient upstream = {up.mean_x[j],   up.mean_y[j],   up.conic_xx[j],
                                         up.conic_xy[j], up.conic_yy[j], up.depth[j]};
    GaussianGradient total = sum->at(j);
    add(view_gradient(splats.at(j), view, dilation, visible, upstream), &total);
    sum->mean[0][j] = total.mean.x;
    sum->mean[1][j] = total.mean.y;
    sum->mean[2][j] = total.mean.z;
    for (int k = 0; k < 3; ++k) {
      sum->axes[3 * k][j] = total.axes.row[k].x;
      sum->axes[3 * k + 1][j] = total.axes.row[k].y;
      sum->axes[3 * k + 2][j] = total.axes.row[k].z;
    }
    sum->visible[j] = visible ? 1.0f : sum->visible[j];
  }
}

static void project_backward(const ProjectShape& shape, const ProjectInputs& in, const float* radii,
                             const ProjectGradients& grad, int64_t begin, int64_t end) {
  const std::vector<View> views = load_views(shape, in);
  SplatBlock splats;
  UpstreamBlock upstream;
  for (int64_t first = begin; first < end; first += BLOCK) {
    const int count = int(std::min<int64_t>(end - first, BLOCK));
    splats.load(in, first, count);
    GradientBlock sum = {};
    for (int64_t b = 0; b < shape.views; ++b) {
      upstream.load(grad, radii, b * shape.splats + first, count);
      add_view(splats, views[b], shape.dilation, upstream, &sum);
    }
    for (int j = 0; j < count; ++j) {
      store_gradient(splat_gradient(splats.at(j), sum.at(j), sum.visible[j] != 0.0f), grad, first + j);
    }
  }
}

}  // namespace SDS3D_ISA
}  // namespace sds3d
