// The operators' arguments, checked and turned into the kernels' structs: the same for CPU and CUDA.
#pragma once

#include <string>

#include "composite/composite.h"
#include "hash_encode/hash_encode.h"
#include "march_rays/march_rays.h"
#include "project_gaussians/project_gaussians.h"
#include "rasterize_gaussians/rasterize_gaussians.h"
#include "selective_adam/selective_adam.h"
#include "spherical_harmonics/spherical_harmonics.h"
#include "tensors.h"

namespace sds3d {

constexpr auto FLOAT = ScalarType::Float;
constexpr auto INT = ScalarType::Int;
constexpr auto LONG = ScalarType::Long;
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
  Tensor means2d, conics, depths, extents;
  ProjectOutputs out;

  explicit ProjectResults(const ProjectArguments& a)
      : means2d(empty({a.shape.views, a.shape.splats, 2}, FLOAT, a.means)),
        conics(empty({a.shape.views, a.shape.splats, 3}, FLOAT, a.means)),
        depths(empty({a.shape.views, a.shape.splats}, FLOAT, a.means)),
        extents(empty({a.shape.views, a.shape.splats, 2}, FLOAT, a.means)),
        out{floats_out(means2d), floats_out(conics), floats_out(depths), floats_out(extents)} {}
};

// What the backward op of project_gaussians reads besides its inputs, and writes.
struct ProjectBackward {
  Tensor extents, means2d, conics, depths;
  Tensor grad_means, grad_quats, grad_scales;
  ProjectGradients grad;

  ProjectBackward(const ProjectArguments& a, const Tensor& extents_, const Tensor& grad_means2d,
                  const Tensor& grad_conics, const Tensor& grad_depths)
      : extents(checked(extents_, "extents", FLOAT, {a.shape.views, a.shape.splats, 2}, a.means)),
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
  require(c == 3 || c == 4 || c == 7, "features: C must be 3 (rgb), 4 (rgb, depth) or 7 (rgb, depth, normal)");
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

struct RasterArguments {
  RasterShape shape;
  Tensor means2d, conics, opacities, features, extents, depths, background;
  SplatInputs in;

  RasterArguments(const Tensor& means2d_, const Tensor& conics_, const Tensor& opacities_, const Tensor& features_,
                  const Tensor& extents_, const Tensor& depths_, const Tensor& background_, int64_t height,
                  int64_t width)
      : shape(raster_shape(features_, height, width)),
        means2d(checked(means2d_, "means2d", FLOAT, {shape.views, shape.splats, 2}, features_)),
        conics(checked(conics_, "conics", FLOAT, {shape.views, shape.splats, 3}, features_)),
        opacities(checked(opacities_, "opacities", FLOAT, {shape.splats}, features_)),
        features(checked(features_, "features", FLOAT, {shape.views, shape.splats, shape.channels}, features_)),
        extents(checked(extents_, "extents", FLOAT, {shape.views, shape.splats, 2}, features_)),
        depths(checked(depths_, "depths", FLOAT, {shape.views, shape.splats}, features_)),
        background(checked(background_, "background", FLOAT, {shape.views, shape.channels}, features_)),
        in{floats(means2d),  floats(conics),  floats(opacities),
           floats(features), floats(extents), floats(depths)} {}
};

// What the forward op leaves for the backward op, apart from the images; `hits` is allocated once their number is known.
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
    features = checked(features_, "features", FLOAT, {b, n, c}, features_);
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

// Of hash_encode and its backward op.
struct HashArguments {
  HashShape shape;
  int64_t entries;
  Tensor points, table;
  HashInputs in;

  HashArguments(const Tensor& points_, const Tensor& table_, const std::vector<int64_t>& resolutions,
                const std::vector<int64_t>& sizes)
      : shape(shape_of(points_, table_, resolutions, sizes)),
        entries(table_.size(0)),
        points(checked(points_, "points", FLOAT, {shape.points, 3}, table_)),
        table(checked(table_, "table", FLOAT, {entries, shape.features}, table_)),
        in{floats(points), floats(table)} {}

  int64_t width() const { return int64_t(shape.levels) * shape.features; }

 private:
  static HashShape shape_of(const Tensor& points, const Tensor& table, const std::vector<int64_t>& resolutions,
                            const std::vector<int64_t>& sizes) {
    require(points.dim() == 2 && table.dim() == 2, "hash_encode: expected points [P, 3] and table [E, F]");
    const int64_t features = table.size(1);
    require(features == 1 || features == 2 || features == 4 || features == 8, "table: F must be 1, 2, 4 or 8");
    require(!sizes.empty() && sizes.size() <= MAX_LEVELS && sizes.size() == resolutions.size(),
            "hash_encode: expected 1 to 32 levels, a resolution and a size for each");
    HashShape shape = {points.size(0), int(sizes.size()), int(features), {}};
    int64_t first = 0;
    for (size_t l = 0; l < sizes.size(); ++l) {
      const int64_t cells = resolutions[l], size = sizes[l];
      require(cells >= 1 && cells < (1 << 20), "hash_encode: resolutions must be in [1, 2^20)");
      const bool dense = (cells + 1) * (cells + 1) * (cells + 1) <= size;
      require(size >= 1 && size < INT32_MAX && (dense || (size & (size - 1)) == 0),
              "hash_encode: a size that does not hold all corners must be a power of two");
      shape.level[l] = {first, int32_t(cells), dense ? 0u : uint32_t(size - 1)};
      first += size;
    }
    require(first == table.size(0), "hash_encode: the levels' sizes must add up to the table's rows");
    return shape;
  }
};

// Of march_rays_count. `least` may be empty: nothing hides anything then.
struct MarchArguments {
  MarchShape shape;
  Tensor origins, directions, starts, far, binaries, aabb, least, counts, kept;
  MarchInputs in;
  MarchFound found;

  MarchArguments(const Tensor& rays_o, const Tensor& rays_d, const Tensor& starts_, const Tensor& far_,
                 const Tensor& binaries_, const Tensor& aabb_, const Tensor& least_, double step, int64_t max_samples,
                 double most_depth)
      : shape{rays_o.size(0), {}, float(step), max_samples, most_depth},
        origins(checked(rays_o, "rays_o", FLOAT, {shape.rays, 3}, rays_o)),
        directions(checked(rays_d, "rays_d", FLOAT, {shape.rays, 3}, rays_o)),
        starts(checked(starts_, "starts", FLOAT, {shape.rays}, rays_o)),
        far(checked(far_, "far", FLOAT, {shape.rays}, rays_o)),
        aabb(checked(aabb_, "aabb", FLOAT, {6}, rays_o)) {
    require(binaries_.dim() == 3, "binaries: expected [X, Y, Z]");
    const int64_t x = binaries_.size(0), y = binaries_.size(1), z = binaries_.size(2);
    require(x > 0 && y > 0 && z > 0 && x < 4096 && y < 4096 && z < 4096, "binaries: sides must be in [1, 4095]");
    require(max_samples >= 0 && max_samples < (1 << 20), "max_samples must be in [0, 2^20)");
    binaries = checked(binaries_, "binaries", ScalarType::Bool, {x, y, z}, rays_o);
    if (least_.numel() > 0) least = checked(least_, "least", FLOAT, {x, y, z}, rays_o);
    shape.cells[0] = int(x), shape.cells[1] = int(y), shape.cells[2] = int(z);
    const int64_t words = (max_samples + 63) / 64;
    counts = empty({shape.rays}, LONG, rays_o);
    kept = empty({shape.rays, words}, LONG, rays_o);
    in = {floats(origins), floats(directions), floats(starts), floats(far),
          static_cast<const bool*>(binaries.const_data_ptr()), floats(aabb),
          least_.numel() > 0 ? floats(least) : nullptr};
    found = {words, data<int64_t>(counts), data<uint64_t>(kept)};
  }
};

// Of march_rays_fill.
struct FillArguments {
  MarchShape shape;
  Tensor origins, directions, starts, kept, offsets, ray_indices, t_starts, points;
  MarchInputs in;
  MarchFound found;
  MarchSamples out;

  FillArguments(const Tensor& rays_o, const Tensor& rays_d, const Tensor& starts_, const Tensor& kept_,
                const Tensor& offsets_, double step, int64_t total)
      : shape{rays_o.size(0), {}, float(step), 0, 0.0},
        origins(checked(rays_o, "rays_o", FLOAT, {shape.rays, 3}, rays_o)),
        directions(checked(rays_d, "rays_d", FLOAT, {shape.rays, 3}, rays_o)),
        starts(checked(starts_, "starts", FLOAT, {shape.rays}, rays_o)),
        kept(checked(kept_, "kept", LONG, {shape.rays, kept_.dim() == 2 ? kept_.size(1) : 0}, rays_o)),
        offsets(checked(offsets_, "offsets", LONG, {shape.rays + 1}, rays_o)),
        ray_indices(empty({total}, LONG, rays_o)),
        t_starts(empty({total}, FLOAT, rays_o)),
        points(empty({total, 3}, FLOAT, rays_o)),
        in{floats(origins), floats(directions), floats(starts), nullptr, nullptr, nullptr, nullptr},
        found{kept.size(1), nullptr, data<uint64_t>(kept)},
        out{static_cast<const int64_t*>(offsets.const_data_ptr()), data<int64_t>(ray_indices), floats_out(t_starts),
            floats_out(points)} {}
};

// Of composite and its backward op.
struct CompositeArguments {
  CompositeShape shape;
  int64_t samples;
  Tensor densities, features, t_starts, t_ends, offsets;
  CompositeInputs in;

  CompositeArguments(const Tensor& densities_, const Tensor& features_, const Tensor& t_starts_, const Tensor& t_ends_,
                     const Tensor& offsets_)
      : shape(shape_of(features_, offsets_)),
        samples(features_.size(0)),
        densities(checked(densities_, "densities", FLOAT, {samples}, features_)),
        features(checked(features_, "features", FLOAT, {samples, shape.channels}, features_)),
        t_starts(checked(t_starts_, "t_starts", FLOAT, {samples}, features_)),
        t_ends(checked(t_ends_, "t_ends", FLOAT, {samples}, features_)),
        offsets(checked(offsets_, "offsets", LONG, {shape.rays + 1}, features_)),
        in{floats(densities), floats(features), floats(t_starts), floats(t_ends),
           static_cast<const int64_t*>(offsets.const_data_ptr())} {}

 private:
  static CompositeShape shape_of(const Tensor& features, const Tensor& offsets) {
    require(features.dim() == 2 && features.size(1) >= 1 && features.size(1) <= MAX_CHANNELS,
            "features: expected [S, C] with C from 1 to 8");
    require(offsets.dim() == 1 && offsets.size(0) >= 1, "offsets: expected [R + 1]");
    return {offsets.size(0) - 1, int(features.size(1))};
  }
};

struct CompositeResults {
  Tensor image, opacity, depth, weights;
  CompositeOutputs out;

  explicit CompositeResults(const CompositeArguments& a)
      : image(empty({a.shape.rays, a.shape.channels}, FLOAT, a.features)),
        opacity(empty({a.shape.rays, 1}, FLOAT, a.features)),
        depth(empty({a.shape.rays, 1}, FLOAT, a.features)),
        weights(empty({a.samples}, FLOAT, a.features)),
        out{floats_out(image), floats_out(opacity), floats_out(depth), floats_out(weights)} {}
};

struct CompositeBackward {
  Tensor weights, image, opacity, depth, upstream_weights, grad_densities, grad_features;
  CompositeGradients grad;

  CompositeBackward(const CompositeArguments& a, const Tensor& weights_, const Tensor& grad_image,
                    const Tensor& grad_opacity, const Tensor& grad_depth, const Tensor& grad_weights)
      : weights(checked(weights_, "weights", FLOAT, {a.samples}, a.features)),
        image(checked(grad_image, "grad_image", FLOAT, {a.shape.rays, a.shape.channels}, a.features)),
        opacity(checked(grad_opacity, "grad_opacity", FLOAT, {a.shape.rays, 1}, a.features)),
        depth(checked(grad_depth, "grad_depth", FLOAT, {a.shape.rays, 1}, a.features)),
        upstream_weights(checked(grad_weights, "grad_weights", FLOAT, {a.samples}, a.features)),
        grad_densities(empty({a.samples}, FLOAT, a.features)),
        grad_features(empty({a.samples, a.shape.channels}, FLOAT, a.features)),
        grad{floats(weights),          floats(image),           floats(opacity),          floats(depth),
             floats(upstream_weights), floats_out(grad_densities), floats_out(grad_features)} {}
};

}  // namespace sds3d
