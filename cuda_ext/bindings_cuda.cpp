// The CUDA operators: checks, allocation and order of launches on torch's current stream.
#include "arguments.h"
#include "composite/composite_cuda.h"
#include "cuda_glue.h"
#include "hash_encode/hash_encode_cuda.h"
#include "march_rays/march_rays_cuda.h"
#include "project_gaussians/project_gaussians_cuda.h"
#include "rasterize_gaussians/hit_sort.h"
#include "rasterize_gaussians/rasterize_gaussians_cuda.h"
#include "selective_adam/selective_adam_cuda.h"
#include "spherical_harmonics/spherical_harmonics_cuda.h"
#include "volume_arguments.h"

namespace sds3d {

namespace {

struct Scratch {
  Tensor memory;
  size_t bytes = 0;

  Scratch(int64_t count, const Tensor& like) {
    check(hit_sort_scratch(count, &bytes), "rasterize_gaussians: sort");
    memory = empty({int64_t(bytes)}, ScalarType::Byte, like);
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> project_gaussians_cuda(Tensor means, Tensor quats, Tensor scales,
                                                                  Tensor opacities, Tensor camera_to_world,
                                                                  Tensor intrinsics, int64_t height, int64_t width,
                                                                  double near, double dilation) {
  const ProjectArguments a(means, quats, scales, opacities, camera_to_world, intrinsics, height, width, near, dilation);
  const ProjectResults r(a);
  const OnDevice on(a.means);
  check(launch_project_forward(a.shape, a.in, r.out, on.stream), "project_gaussians");
  return {r.means2d, r.conics, r.depths, r.radii};
}

std::tuple<Tensor, Tensor, Tensor> project_gaussians_backward_cuda(Tensor means, Tensor quats, Tensor scales,
                                                                   Tensor opacities, Tensor camera_to_world,
                                                                   Tensor intrinsics, Tensor radii, Tensor grad_means2d,
                                                                   Tensor grad_conics, Tensor grad_depths,
                                                                   int64_t height, int64_t width, double near,
                                                                   double dilation) {
  const ProjectArguments a(means, quats, scales, opacities, camera_to_world, intrinsics, height, width, near, dilation);
  const ProjectBackward r(a, radii, grad_means2d, grad_conics, grad_depths);
  const OnDevice on(a.means);
  check(launch_project_backward(a.shape, a.in, floats(r.radii), r.grad, on.stream), "project_gaussians_backward");
  return {r.grad_means, r.grad_quats, r.grad_scales};
}

Features colors_of(const Tensor& features) {
  return {features.const_data_ptr(), features.scalar_type() == ScalarType::Half};
}

// Fills the tile lists; returns the number of hits, on the device, at the end of the tensor. It decides how much memory
// they take: either the device is waited for once, or there is room for `max_intersections` and it is not.
Tensor fill_lists(const RasterArguments& a, int64_t max_intersections, RasterLists* l, cudaStream_t stream) {
  const int64_t splats = a.shape.views * a.shape.splats;
  const Tensor boxes = empty({splats, int64_t(sizeof(TileBox) / sizeof(int32_t))}, INT, a.features);
  const Tensor counts = empty({splats + 1}, LONG, a.features), offsets = empty({splats + 1}, LONG, a.features);
  check(
      launch_prepare_splats(a.shape, a.in, data<Splat>(l->splats), data<TileBox>(boxes), data<int64_t>(counts), stream),
      "rasterize_gaussians: prepare");
  const Scratch scan(splats + 1, a.features);
  check(exclusive_sum(data<void>(scan.memory), scan.bytes, data<int64_t>(counts), data<int64_t>(offsets), splats + 1,
                      stream),
        "rasterize_gaussians: scan");
  int64_t total = max_intersections;
  if (max_intersections == 0) {
    check(cudaMemcpyAsync(&total, data<int64_t>(offsets) + splats, sizeof(total), cudaMemcpyDeviceToHost, stream),
          "rasterize_gaussians: number of hits");
    check(cudaStreamSynchronize(stream), "rasterize_gaussians: number of hits");
  }
  require_few_hits(total);

  l->hits = empty({total, 2}, INT, a.features);
  const Tensor unsorted = empty({total, 2}, INT, a.features);
  const Tensor keys = empty({total}, LONG, a.features), sorted_keys = empty({total}, LONG, a.features);
  const TileLists lists = l->pointers();
  check(launch_list_hits(a.shape, a.in.depths, data<TileBox>(boxes), data<int64_t>(offsets), total, lists,
                         data<uint64_t>(keys), data<TileHit>(unsorted), stream),
        "rasterize_gaussians: list");
  if (total > 0) {
    const Scratch sort(total, a.features);
    check(sort_hits(data<void>(sort.memory), sort.bytes, data<uint64_t>(keys), data<uint64_t>(sorted_keys),
                    data<TileHit>(unsorted), lists.hits, total, hit_key_bits(a.shape), stream),
          "rasterize_gaussians: sort");
  }
  check(launch_tile_offsets(a.shape, data<uint64_t>(sorted_keys), total, lists.tile_offsets, stream),
        "rasterize_gaussians: tile offsets");
  return offsets;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> rasterize_gaussians_cuda(
    Tensor means2d, Tensor conics, Tensor opacities, Tensor features, Tensor radii, Tensor depths, Tensor background,
    int64_t height, int64_t width, int64_t max_intersections) {
  const RasterArguments a(means2d, conics, opacities, features, radii, depths, background, height, width);
  require(max_intersections >= 0, "rasterize_gaussians: max_intersections must be 0 or more");
  const OnDevice on(a.features);
  RasterLists l(a);
  const Tensor offsets = fill_lists(a, max_intersections, &l, on.stream);
  const int64_t* needed = data<int64_t>(offsets) + a.shape.views * a.shape.splats;
  const RasterResults r(a);
  check(
      launch_rasterize_forward(a.shape, colors_of(a.features), l.pointers(), needed, l.hits.size(0), r.out, on.stream),
      "rasterize_gaussians");
  return {r.image, r.transmittance, l.splats, l.tile_offsets, l.record_offsets, l.hits};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> rasterize_gaussians_backward_cuda(
    Tensor conics, Tensor opacities, Tensor features, Tensor image, Tensor transmittance, Tensor splats,
    Tensor tile_offsets, Tensor record_offsets, Tensor hits, Tensor grad_image, Tensor grad_transmittance,
    bool deterministic) {
  RasterBackward r(conics, opacities, features, image, transmittance, splats, tile_offsets, record_offsets, hits,
                   grad_image, grad_transmittance);
  const OnDevice on(r.features);
  const int64_t records = deterministic ? r.total : r.shape.views * r.shape.splats;
  const Tensor sums = empty({records, RECORD}, FLOAT, r.features);
  r.grad.records = floats_out(sums);
  const char* what = "rasterize_gaussians_backward";
  if (records > 0) check(cudaMemsetAsync(r.grad.records, 0, records * RECORD * sizeof(float), on.stream), what);
  check(launch_rasterize_backward(r.shape, colors_of(r.features), r.lists, r.grad, deterministic, on.stream), what);
  check(launch_splat_gradients(r.shape, r.in, r.lists.record_offsets, r.grad.records, deterministic, r.out, on.stream),
        what);
  return {r.grad_means2d, r.grad_conics, r.grad_opacities, r.grad_features};
}

void selective_adam_cuda(Tensor parameter, Tensor exp_avg, Tensor exp_avg_sq, Tensor grad, Tensor visible, double lr,
                         double beta1, double beta2, double eps, int64_t step) {
  const AdamArguments a(parameter, exp_avg, exp_avg_sq, grad, visible, lr, beta1, beta2, eps, step);
  const OnDevice on(a.grad);
  check(launch_selective_adam(a.step, a.tensors, a.rows, a.width, on.stream), "selective_adam");
}

Tensor spherical_harmonics_cuda(Tensor coefficients, Tensor means, Tensor camera_to_world) {
  const HarmonicsArguments a(coefficients, means, camera_to_world);
  const Tensor colors = empty({a.shape.views, a.shape.splats, 3}, FLOAT, a.means);
  const OnDevice on(a.means);
  check(launch_harmonics_forward(a.shape, a.in, floats_out(colors), on.stream), "spherical_harmonics");
  return colors;
}

std::tuple<Tensor, Tensor> spherical_harmonics_backward_cuda(Tensor coefficients, Tensor means, Tensor camera_to_world,
                                                             Tensor grad_colors) {
  const HarmonicsArguments a(coefficients, means, camera_to_world);
  const HarmonicsBackward r(a, grad_colors);
  const OnDevice on(a.means);
  check(launch_harmonics_backward(a.shape, a.in, r.grad, on.stream), "spherical_harmonics_backward");
  return {r.grad_coefficients, r.grad_means};
}

Tensor hash_encode_cuda(Tensor points, Tensor table, std::vector<int64_t> resolutions, std::vector<int64_t> sizes) {
  const HashArguments a(points, table, resolutions, sizes);
  const Tensor out = empty({a.shape.points, a.width()}, FLOAT, a.table);
  const OnDevice on(a.table);
  check(launch_hash_forward(a.shape, a.in, floats_out(out), on.stream), "hash_encode");
  return out;
}

// `largest`: the largest magnitude in `grad`, for the whole numbers of the deterministic way. An addend is at most 2^40
// of them, so that 2^22 addends to one entry stay below 2^63 and each is rounded far below float32.
std::tuple<Tensor, Tensor> hash_encode_backward_cuda(Tensor points, Tensor table, std::vector<int64_t> resolutions,
                                                     std::vector<int64_t> sizes, Tensor grad, bool for_points,
                                                     bool deterministic, double largest) {
  const HashArguments a(points, table, resolutions, sizes);
  const Tensor upstream = checked(grad, "grad", FLOAT, {a.shape.points, a.width()}, a.table);
  const Tensor grad_table = zeros({a.entries, a.shape.features}, FLOAT, a.table);
  const Tensor grad_points = empty({for_points ? a.shape.points : 0, 3}, FLOAT, a.table);
  const OnDevice on(a.table);
  const char* what = "hash_encode_backward";
  if (deterministic) {
    require(a.shape.points < (int64_t(1) << 22),
            "hash_encode_backward: deterministic sums take fewer than 2^22 points");
    const double scale = largest > 0.0 ? std::exp2(40.0 - std::ceil(std::log2(largest))) : 1.0;
    const Tensor sums = zeros({a.entries, a.shape.features}, LONG, a.table);
    check(launch_hash_table_gradient_exact(a.shape, a.in.points, floats(upstream), scale, a.entries,
                                           data<int64_t>(sums), floats_out(grad_table), on.stream),
          what);
  } else {
    check(launch_hash_table_gradient(a.shape, a.in.points, floats(upstream), floats_out(grad_table), on.stream), what);
  }
  if (for_points) {
    check(launch_hash_point_gradient(a.shape, a.in, floats(upstream), floats_out(grad_points), on.stream), what);
  }
  return {grad_table, grad_points};
}

std::tuple<Tensor, Tensor> march_rays_count_cuda(Tensor rays_o, Tensor rays_d, Tensor starts, Tensor far,
                                                 Tensor binaries, Tensor aabb, Tensor least, double step,
                                                 int64_t max_samples, double most_depth) {
  const MarchArguments a(rays_o, rays_d, starts, far, binaries, aabb, least, step, max_samples, most_depth);
  const OnDevice on(a.origins);
  check(launch_march_count(a.shape, a.in, a.found, on.stream), "march_rays_count");
  return {a.counts, a.kept};
}

std::tuple<Tensor, Tensor, Tensor> march_rays_fill_cuda(Tensor rays_o, Tensor rays_d, Tensor starts, Tensor kept,
                                                        Tensor offsets, double step, int64_t total) {
  const FillArguments a(rays_o, rays_d, starts, kept, offsets, step, total);
  const OnDevice on(a.origins);
  check(launch_march_fill(a.shape, a.in, a.found, a.out, on.stream), "march_rays_fill");
  return {a.ray_indices, a.t_starts, a.points};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> composite_cuda(Tensor densities, Tensor features, Tensor t_starts,
                                                          Tensor t_ends, Tensor offsets) {
  const CompositeArguments a(densities, features, t_starts, t_ends, offsets);
  const CompositeResults r(a);
  const OnDevice on(a.features);
  check(launch_composite_forward(a.shape, a.in, r.out, on.stream), "composite");
  return {r.image, r.opacity, r.depth, r.weights};
}

std::tuple<Tensor, Tensor> composite_backward_cuda(Tensor densities, Tensor features, Tensor t_starts, Tensor t_ends,
                                                   Tensor offsets, Tensor weights, Tensor grad_image,
                                                   Tensor grad_opacity, Tensor grad_depth, Tensor grad_weights) {
  const CompositeArguments a(densities, features, t_starts, t_ends, offsets);
  const CompositeBackward r(a, weights, grad_image, grad_opacity, grad_depth, grad_weights);
  const OnDevice on(a.features);
  check(launch_composite_backward(a.shape, a.in, r.grad, on.stream), "composite_backward");
  return {r.grad_densities, r.grad_features};
}

}  // namespace

}  // namespace sds3d

STABLE_TORCH_LIBRARY_IMPL(sds3d, CUDA, m) {
  m.impl("project_gaussians", TORCH_BOX(&sds3d::project_gaussians_cuda));
  m.impl("project_gaussians_backward", TORCH_BOX(&sds3d::project_gaussians_backward_cuda));
  m.impl("rasterize_gaussians", TORCH_BOX(&sds3d::rasterize_gaussians_cuda));
  m.impl("rasterize_gaussians_backward", TORCH_BOX(&sds3d::rasterize_gaussians_backward_cuda));
  m.impl("selective_adam", TORCH_BOX(&sds3d::selective_adam_cuda));
  m.impl("spherical_harmonics", TORCH_BOX(&sds3d::spherical_harmonics_cuda));
  m.impl("spherical_harmonics_backward", TORCH_BOX(&sds3d::spherical_harmonics_backward_cuda));
  m.impl("hash_encode", TORCH_BOX(&sds3d::hash_encode_cuda));
  m.impl("hash_encode_backward", TORCH_BOX(&sds3d::hash_encode_backward_cuda));
  m.impl("march_rays_count", TORCH_BOX(&sds3d::march_rays_count_cuda));
  m.impl("march_rays_fill", TORCH_BOX(&sds3d::march_rays_fill_cuda));
  m.impl("composite", TORCH_BOX(&sds3d::composite_cuda));
  m.impl("composite_backward", TORCH_BOX(&sds3d::composite_backward_cuda));
}
