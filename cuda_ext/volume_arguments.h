// The radiance field's operators' arguments, checked and turned into the kernels' structs: the same for CPU and CUDA.
#pragma once

#include "composite/composite.h"
#include "hash_encode/hash_encode.h"
#include "march_rays/march_rays.h"
#include "tensors.h"

namespace sds3d {

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
    in = {floats(origins),
          floats(directions),
          floats(starts),
          floats(far),
          static_cast<const bool*>(binaries.const_data_ptr()),
          floats(aabb),
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
        grad{floats(weights),          floats(image),
             floats(opacity),          floats(depth),
             floats(upstream_weights), floats_out(grad_densities),
             floats_out(grad_features)} {}
};

}  // namespace sds3d
