// The splat operators' arguments, checked and turned into the kernels' structs: the same for CPU and CUDA.
#pragma once

#include <string>

#include "project_gaussians/project_gaussians.h"
#include "rasterize_gaussians/rasterize_gaussians.h"
#include "selective_adam/selective_adam.h"
#include "spherical_harmonics/spherical_harmonics.h"
#include "tensors.h"

namespace sds3d {

constexpr int64_t SPLAT_FLOATS = sizeof(Splat) / sizeof(float);

inline void require_image_size(int64_t height, int64_t width) {
  require(height > 0 && width > 0 && height < 32768 && width < 32768, "height and width must be in [1, 32767]");
}

// Of project_gaussians and its backward op. Tensors here keep alive what `in` points to.
struct ProjectArguments {
  ProjectShape shape;
  Tensor means, quats, scales, opacities, camera_to_world, intrinsics;
  ProjectInputs in;

  ProjectArguments(const Tensor& means_, const Tensor& quats_, const Tensor& scales_, const Tensor& opacities_,
                   const Tensor& camera_to_world_, const Tensor& intrinsics_, int64_t height, int64_t width,
                   double near, double dilation)
      : shape{camera_to_world_.size(0), means_.size(0), int(height), int(width), float(near), float(dilation)},
        means(checked(means_, "means", FLOAT, {shape.splats, 3}, means_)),
        quats(checked(quats_, "quats", FLOAT, {shape.splats, 4}, means_)),
        scales(checked(scales_, "scales", FLOAT, {shape.splats, 3}, means_)),
        opacities(checked(opacities_, "opacities", FLOAT, {shape.splats}, means_)),
        camera_to_world(checked(camera_to_world_, "camera_to_world", FLOAT, {shape.views, 4, 4}, means_)),
        intrinsics(checked(intrinsics_, "intrinsics", FLOAT, {shape.views, 3, 3}, means_)),
        in{floats(means),     floats(quats),           floats(scales),
           floats(opacities), floats(camera_to_world), floats(intrinsics)} {
    require_image_size(height, width);
  }
};

struct ProjectResults {
  Tensor means2d, conics, depths, radii;
  ProjectOutputs out;

  explicit ProjectResults(const ProjectArguments& a)
      : means2d(empty({a.shape.views, a.shape.splats, 2}, FLOAT, a.means)),
        conics(empty({a.shape.views, a.shape.splats, 3}, FLOAT, a.means)),
        depths(empty({a.shape.views, a.shape.splats}, FLOAT, a.means)),
        radii(empty({a.shape.views, a.shape.splats, 2}, FLOAT, a.means)),
        out{floats_out(means2d), floats_out(conics), floats_out(depths), floats_out(radii)} {}
};

// What the backward op of project_gaussians reads besides its inputs, and writes.
struct ProjectBackward {
  Tensor radii, means2d, conics, depths;
  Tensor grad_means, grad_quats, grad_scales;
  ProjectGradients grad;

  ProjectBackward(const ProjectArguments& a, const Tensor& extents_, const Tensor& grad_means2d,
                  const Tensor& grad_conics, const Tensor& grad_depths)
      : radii(checked(extents_, "radii", FLOAT, {a.shape.views, a.shape.splats, 2}, a.means)),
        means2d(checked(grad_means2d, "grad_means2d", FLOAT, {a.shape.views, a.shape.splats, 2}, a.means)),
        conics(checked(grad_conics, "grad_conics", FLOAT, {a.shape.views, a.shape.splats, 3}, a.means)),
        depths(checked(grad_depths, "grad_depths", FLOAT, {a.shape.views, a.shape.splats}, a.means)),
        grad_means(empty({a.shape.splats, 3}, FLOAT, a.means)),
        grad_quats(empty({a.shape.splats, 4}, FLOAT, a.means)),
        grad_scales(empty({a.shape.splats, 3}, FLOAT, a.means)),
        grad{floats(means2d),        floats(conics),         floats(depths),
             floats_out(grad_means), floats_out(grad_quats), floats_out(grad_scales)} {}
};

inline RasterShape raster_shape(const Tensor& features, int64_t height, int64_t width) {
  require(features.dim() == 3, "features: expected [B, N, C]");
  const int64_t c = features.size(2);
  require(c == 3 || c == 4 || c == 5 || c == 8,
          "features: C must be 3 (rgb), 4 (rgb, depth), 5 (rgb, depth, its square) or 8 (the same and the normal)");
  require_image_size(height, width);
  const RasterShape shape = {features.size(0), features.size(1), int(c), int(height), int(width)};
  require(shape.views * shape.splats < INT32_MAX && shape.views * shape.tiles() < INT32_MAX,
          "rasterize_gaussians: views * splats and views * tiles must be below 2^31");
  return shape;
}

// Refuses a scene by its number of tile hits, before anything of that size is allocated.
inline void require_few_hits(int64_t total) {
  if (total <= MAX_TILE_HITS) return;
  throw std::runtime_error("rasterize_gaussians: the splats meet " + std::to_string(total) +
                           " tiles, more than the limit of " + std::to_string(MAX_TILE_HITS) +
                           "; they are far too large for this image, or too many views are rendered at once");
}

// Colours may be in half precision; everything else is float32.
inline ScalarType feature_type(const Tensor& features) {
  return features.scalar_type() == ScalarType::Half ? ScalarType::Half : FLOAT;
}

struct RasterArguments {
  RasterShape shape;
  Tensor means2d, conics, opacities, features, radii, depths, background;
  SplatInputs in;

  RasterArguments(const Tensor& means2d_, const Tensor& conics_, const Tensor& opacities_, const Tensor& features_,
                  const Tensor& extents_, const Tensor& depths_, const Tensor& background_, int64_t height,
                  int64_t width)
      : shape(raster_shape(features_, height, width)),
        means2d(checked(means2d_, "means2d", FLOAT, {shape.views, shape.splats, 2}, features_)),
        conics(checked(conics_, "conics", FLOAT, {shape.views, shape.splats, 3}, features_)),
        opacities(checked(opacities_, "opacities", FLOAT, {shape.splats}, features_)),
        features(checked(features_, "features", feature_type(features_), {shape.views, shape.splats, shape.channels},
                         features_)),
        radii(checked(extents_, "radii", FLOAT, {shape.views, shape.splats, 2}, features_)),
        depths(checked(depths_, "depths", FLOAT, {shape.views, shape.splats}, features_)),
        background(checked(background_, "background", FLOAT, {shape.views, shape.channels}, features_)),
        in{floats(means2d), floats(conics), floats(opacities), floats(features), floats(radii), floats(depths)} {}
};

// What the forward op leaves for the backward op, apart from the images; `hits` is allocated once their number is
// known.
struct RasterLists {
  Tensor splats, tile_offsets, record_offsets, hits;

  explicit RasterLists(const RasterArguments& a)
      : splats(empty({a.shape.views, a.shape.splats, SPLAT_FLOATS}, FLOAT, a.features)),
        tile_offsets(empty({a.shape.views * a.shape.tiles() + 1}, INT, a.features)),
        record_offsets(empty({a.shape.views * a.shape.splats + 1}, INT, a.features)) {}

  TileLists pointers() const {
    return {data<Splat>(splats), data<int32_t>(tile_offsets), data<int32_t>(record_offsets), data<TileHit>(hits)};
  }
};

struct RasterResults {
  Tensor image, transmittance;
  RasterImages out;

  explicit RasterResults(const RasterArguments& a)
      : image(empty({a.shape.views, a.shape.height, a.shape.width, a.shape.channels}, FLOAT, a.features)),
        transmittance(empty({a.shape.views, a.shape.height, a.shape.width, 1}, FLOAT, a.features)),
        out{floats(a.background), floats_out(image), floats_out(transmittance)} {}
};

// Of the backward op. `grad.records` is left to the caller, since CPU and CUDA sum in different ways.
struct RasterBackward {
  RasterShape shape;
  int64_t total;  // tile hits
  Tensor conics, opacities, features, image, transmittance, splats, tile_offsets, record_offsets, hits;
  Tensor upstream_image, upstream_transmittance;
  Tensor grad_means2d, grad_conics, grad_opacities, grad_features;
  TileLists lists;
  SplatInputs in;
  RasterGradients grad;
  SplatGradients out;

  RasterBackward(const Tensor& conics_, const Tensor& opacities_, const Tensor& features_, const Tensor& image_,
                 const Tensor& transmittance_, const Tensor& splats_, const Tensor& tile_offsets_,
                 const Tensor& record_offsets_, const Tensor& hits_, const Tensor& grad_image,
                 const Tensor& grad_transmittance)
      : shape(raster_shape(features_, size(image_, 1), size(image_, 2))), total(size(hits_, 0)) {
    const int64_t b = shape.views, n = shape.splats, c = shape.channels, h = shape.height, w = shape.width;
    conics = checked(conics_, "conics", FLOAT, {b, n, 3}, features_);
    opacities = checked(opacities_, "opacities", FLOAT, {n}, features_);
    features = checked(features_, "features", feature_type(features_), {b, n, c}, features_);
    image = checked(image_, "image", FLOAT, {b, h, w, c}, features_);
    transmittance = checked(transmittance_, "transmittance", FLOAT, {b, h, w, 1}, features_);
    splats = checked(splats_, "splats", FLOAT, {b, n, SPLAT_FLOATS}, features_);
    tile_offsets = checked(tile_offsets_, "tile_offsets", INT, {b * shape.tiles() + 1}, features_);
    record_offsets = checked(record_offsets_, "record_offsets", INT, {b * n + 1}, features_);
    hits = checked(hits_, "hits", INT, {total, 2}, features_);
    upstream_image = checked(grad_image, "grad_image", FLOAT, {b, h, w, c}, features_);
    upstream_transmittance = checked(grad_transmittance, "grad_transmittance", FLOAT, {b, h, w, 1}, features_);
    grad_means2d = empty({b, n, 2}, FLOAT, features_);
    grad_conics = empty({b, n, 3}, FLOAT, features_);
    grad_opacities = empty({n}, FLOAT, features_);
    grad_features = empty({b, n, c}, FLOAT, features_);
    lists = {data<Splat>(splats), data<int32_t>(tile_offsets), data<int32_t>(record_offsets), data<TileHit>(hits)};
    in = {nullptr, floats(conics), floats(opacities), floats(features), nullptr, nullptr};
    grad = {floats(image), floats(transmittance), floats(upstream_image), floats(upstream_transmittance), nullptr};
    out = {floats_out(grad_means2d), floats_out(grad_conics), floats_out(grad_opacities), floats_out(grad_features)};
  }

 private:
  static int64_t size(const Tensor& t, int64_t axis) {
    require(t.dim() > axis, "rasterize_gaussians_backward: expected image [B, H, W, C] and hits [K, 2]");
    return t.size(axis);
  }
};

// Of selective_adam, which writes into its arguments: a copy in another layout would be lost, so none is made.
struct AdamArguments {
  int64_t rows, width;
  Tensor grad, visible;
  AdamStep step;
  AdamTensors tensors;

  AdamArguments(const Tensor& parameter, const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& grad_,
                const Tensor& visible_, double lr, double beta1, double beta2, double eps, int64_t step_)
      : rows(visible_.dim() == 1 ? visible_.size(0) : -1),
        width(rows > 0 ? parameter.numel() / rows : 0),
        grad(checked(grad_, "grad", FLOAT, {rows, width}, parameter)),
        visible(checked(visible_, "visible", ScalarType::Bool, {rows}, parameter)),
        step(adam_step(lr, beta1, beta2, eps, double(step_))),
        tensors{written(parameter, "parameter"), written(exp_avg, "exp_avg"), written(exp_avg_sq, "exp_avg_sq"),
                floats(grad), static_cast<const bool*>(visible.const_data_ptr())} {
    require(step_ > 0, "selective_adam: steps count from 1");
  }

 private:
  float* written(const Tensor& t, const char* name) const {
    checked(t, name, FLOAT, {rows, width}, grad);
    if (!t.is_contiguous()) throw std::runtime_error(std::string(name) + ": expected a contiguous tensor");
    return floats_out(t);
  }
};

// Of spherical_harmonics and its backward op.
struct HarmonicsArguments {
  HarmonicsShape shape;
  Tensor coefficients, means, camera_to_world;
  HarmonicsInputs in;

  HarmonicsArguments(const Tensor& coefficients_, const Tensor& means_, const Tensor& camera_to_world_)
      : shape{camera_to_world_.size(0), means_.size(0), terms_of(coefficients_)},
        coefficients(checked(coefficients_, "coefficients", FLOAT, {shape.splats, shape.terms, 3}, means_)),
        means(checked(means_, "means", FLOAT, {shape.splats, 3}, means_)),
        camera_to_world(checked(camera_to_world_, "camera_to_world", FLOAT, {shape.views, 4, 4}, means_)),
        in{floats(coefficients), floats(means), floats(camera_to_world)} {}

 private:
  static int terms_of(const Tensor& coefficients) {
    const int64_t k = coefficients.dim() == 3 ? coefficients.size(1) : 0;
    require(k == 1 || k == 4 || k == 9 || k == 16, "coefficients: expected [N, K, 3] with K of 1, 4, 9 or 16");
    return int(k);
  }
};

struct HarmonicsBackward {
  Tensor colors, grad_coefficients, grad_means;
  HarmonicsGradients grad;

  HarmonicsBackward(const HarmonicsArguments& a, const Tensor& grad_colors)
      : colors(checked(grad_colors, "grad_colors", FLOAT, {a.shape.views, a.shape.splats, 3}, a.means)),
        grad_coefficients(empty({a.shape.splats, a.shape.terms, 3}, FLOAT, a.means)),
        grad_means(empty({a.shape.splats, 3}, FLOAT, a.means)),
        grad{floats(colors), floats_out(grad_coefficients), floats_out(grad_means)} {}
};

}  // namespace sds3d
