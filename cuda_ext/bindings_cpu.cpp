// The CPU operators: checks, allocation and threading around the raw-pointer kernels.
#include <algorithm>
#include <atomic>

#include "arguments.h"
#include "cpu_features.h"
#include "volume_arguments.h"

namespace sds3d {

namespace {

constexpr int64_t SPLAT_GRAIN = 1024;    // splats per task: about 50 microseconds of projection
constexpr int64_t PREPARE_GRAIN = 4096;  // views and splats
constexpr int64_t ADAM_GRAIN = 16384;    // rows per task: about as long
constexpr int64_t POINT_GRAIN = 2048;    // points per task of the hash encoding
constexpr int64_t RAY_GRAIN = 512;       // rays per task

// The variant of some kernels that this processor runs.
template <class Kernels>
const Kernels& chosen(const Kernels& baseline, const Kernels& avx2, const Kernels& avx512) {
  switch (instruction_set()) {
    case InstructionSet::AVX512:
      return avx512;
    case InstructionSet::AVX2:
      return avx2;
    default:
      return baseline;
  }
}
#if SDS3D_X86
#define SDS3D_CHOSEN(NAME) chosen(NAME##_BASELINE, NAME##_AVX2, NAME##_AVX512)
#else
#define SDS3D_CHOSEN(NAME) NAME##_BASELINE
#endif

std::tuple<Tensor, Tensor, Tensor, Tensor> project_gaussians_cpu(Tensor means, Tensor quats, Tensor scales,
                                                                 Tensor opacities, Tensor camera_to_world,
                                                                 Tensor intrinsics, int64_t height, int64_t width,
                                                                 double near, double dilation) {
  const ProjectArguments a(means, quats, scales, opacities, camera_to_world, intrinsics, height, width, near, dilation);
  const ProjectResults r(a);
  const ProjectKernels& kernels = SDS3D_CHOSEN(PROJECT_KERNELS);
  torch::stable::parallel_for(0, a.shape.splats, SPLAT_GRAIN,
                              [&](int64_t begin, int64_t end) { kernels.forward(a.shape, a.in, r.out, begin, end); });
  return {r.means2d, r.conics, r.depths, r.radii};
}

std::tuple<Tensor, Tensor, Tensor> project_gaussians_backward_cpu(Tensor means, Tensor quats, Tensor scales,
                                                                  Tensor opacities, Tensor camera_to_world,
                                                                  Tensor intrinsics, Tensor radii, Tensor grad_means2d,
                                                                  Tensor grad_conics, Tensor grad_depths,
                                                                  int64_t height, int64_t width, double near,
                                                                  double dilation) {
  const ProjectArguments a(means, quats, scales, opacities, camera_to_world, intrinsics, height, width, near, dilation);
  const ProjectBackward r(a, radii, grad_means2d, grad_conics, grad_depths);
  const ProjectKernels& kernels = SDS3D_CHOSEN(PROJECT_KERNELS);
  torch::stable::parallel_for(0, a.shape.splats, SPLAT_GRAIN, [&](int64_t begin, int64_t end) {
    kernels.backward(a.shape, a.in, floats(r.radii), r.grad, begin, end);
  });
  return {r.grad_means, r.grad_quats, r.grad_scales};
}

// Each band of tile rows goes through all splats of its view, so there are only as many as threads need.
int64_t bands_per_view(const RasterShape& shape) {
  const int64_t threads = torch::stable::get_num_threads();
  return std::clamp<int64_t>((threads + shape.views - 1) / std::max<int64_t>(shape.views, 1), 1, shape.tiles_y());
}

// Tiles are dealt one by one, because dense tiles would stall a thread that owns a fixed share.
template <class Function>
void for_each_tile(const RasterShape& shape, const Function& function) {
  const int64_t tiles = shape.views * shape.tiles();
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), tiles);
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      for (int64_t tile = next++; tile < tiles; tile = next++) function(tile);
    }
  });
}

// tile_counts [B * tiles] to offsets and box sizes [B * N] to record offsets; returns the number of hits.
int64_t offsets_from_counts(const RasterShape& shape, const int64_t* tile_counts, const TileBox* boxes,
                            int32_t* tile_offsets, int32_t* record_offsets) {
  const int64_t tiles = shape.views * shape.tiles(), splats = shape.views * shape.splats;
  int64_t total = 0;
  for (int64_t i = 0; i < splats; ++i) total += boxes[i].count();
  require_few_hits(total);
  int32_t sum = 0;
  for (int64_t i = 0; i < tiles; ++i) {
    tile_offsets[i] = sum;
    sum += int32_t(tile_counts[i]);
  }
  tile_offsets[tiles] = sum;
  sum = 0;
  for (int64_t i = 0; i < splats; ++i) {
    record_offsets[i] = sum;
    sum += int32_t(boxes[i].count());
  }
  record_offsets[splats] = sum;
  return total;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> rasterize_gaussians_cpu(
    Tensor means2d, Tensor conics, Tensor opacities, Tensor features, Tensor radii, Tensor depths, Tensor background,
    int64_t height, int64_t width, int64_t /*max_intersections: there is no device to wait for*/) {
  const RasterArguments a(means2d, conics, opacities, features, radii, depths, background, height, width);
  require(a.features.scalar_type() == FLOAT, "rasterize_gaussians: colours in half precision are for CUDA");
  const int64_t b = a.shape.views, n = a.shape.splats, tiles = a.shape.tiles();
  const TileKernels& kernels = SDS3D_CHOSEN(TILE_KERNELS);
  RasterLists l(a);
  std::vector<TileBox> boxes(b * n);
  std::vector<int32_t> order(b * n);
  std::vector<uint32_t> scratch(b * n * 4);
  std::vector<int64_t> tile_counts(b * tiles), drawable(b);
  torch::stable::parallel_for(0, b * n, PREPARE_GRAIN, [&](int64_t begin, int64_t end) {
    for (int64_t v = begin / n; v * n < end; ++v) {
      kernels.prepare(a.shape, a.in, v, std::max<int64_t>(begin - v * n, 0), std::min<int64_t>(end - v * n, n),
                      data<Splat>(l.splats) + v * n, boxes.data() + v * n);
    }
  });
  torch::stable::parallel_for(0, b, 1, [&](int64_t begin, int64_t end) {
    for (int64_t v = begin; v < end; ++v) {
      drawable[v] = order_view(a.shape, a.in.depths, v, boxes.data() + v * n, order.data() + v * n,
                               tile_counts.data() + v * tiles, scratch.data() + 4 * v * n);
    }
  });
  const int64_t total = offsets_from_counts(a.shape, tile_counts.data(), boxes.data(), data<int32_t>(l.tile_offsets),
                                            data<int32_t>(l.record_offsets));

  l.hits = empty({total, 2}, INT, a.features);
  const TileLists lists = l.pointers();
  std::vector<int32_t> cursors(lists.tile_offsets, lists.tile_offsets + b * tiles);
  const int64_t bands = bands_per_view(a.shape);
  torch::stable::parallel_for(0, b * bands, 1, [&](int64_t begin, int64_t end) {
    for (int64_t band = begin; band < end; ++band) {
      const int64_t v = band / bands, place = band % bands, rows = a.shape.tiles_y();
      list_hits(a.shape, v, int(place * rows / bands), int((place + 1) * rows / bands), boxes.data() + v * n,
                order.data() + v * n, drawable[v], lists.record_offsets, cursors.data() + v * tiles, lists.hits);
    }
  });

  const RasterResults r(a);
  for_each_tile(a.shape, [&](int64_t tile) { kernels.forward(a.shape, a.in.features, lists, r.out, tile); });
  return {r.image, r.transmittance, l.splats, l.tile_offsets, l.record_offsets, l.hits};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> rasterize_gaussians_backward_cpu(
    Tensor conics, Tensor opacities, Tensor features, Tensor image, Tensor transmittance, Tensor splats,
    Tensor tile_offsets, Tensor record_offsets, Tensor hits, Tensor grad_image, Tensor grad_transmittance,
    bool /*deterministic: on the CPU they always are*/) {
  RasterBackward r(conics, opacities, features, image, transmittance, splats, tile_offsets, record_offsets, hits,
                   grad_image, grad_transmittance);
  const Tensor records = empty({r.total, RECORD}, FLOAT, r.features);
  r.grad.records = floats_out(records);
  const auto backward = SDS3D_CHOSEN(TILE_KERNELS).backward;
  for_each_tile(r.shape, [&](int64_t tile) { backward(r.shape, r.in.features, r.lists, r.grad, tile); });
  torch::stable::parallel_for(0, r.shape.splats, SPLAT_GRAIN, [&](int64_t begin, int64_t end) {
    sum_records(r.shape, r.in, r.lists.record_offsets, r.grad.records, r.out, begin, end);
  });
  return {r.grad_means2d, r.grad_conics, r.grad_opacities, r.grad_features};
}

void selective_adam_cpu(Tensor parameter, Tensor exp_avg, Tensor exp_avg_sq, Tensor grad, Tensor visible, double lr,
                        double beta1, double beta2, double eps, int64_t step) {
  const AdamArguments a(parameter, exp_avg, exp_avg_sq, grad, visible, lr, beta1, beta2, eps, step);
  torch::stable::parallel_for(0, a.rows, ADAM_GRAIN, [&](int64_t begin, int64_t end) {
    selective_adam(a.step, a.tensors, a.width, begin, end);
  });
}

Tensor spherical_harmonics_cpu(Tensor coefficients, Tensor means, Tensor camera_to_world) {
  const HarmonicsArguments a(coefficients, means, camera_to_world);
  const Tensor colors = empty({a.shape.views, a.shape.splats, 3}, FLOAT, a.means);
  torch::stable::parallel_for(0, a.shape.splats, SPLAT_GRAIN, [&](int64_t begin, int64_t end) {
    harmonics_forward(a.shape, a.in, floats_out(colors), begin, end);
  });
  return colors;
}

std::tuple<Tensor, Tensor> spherical_harmonics_backward_cpu(Tensor coefficients, Tensor means, Tensor camera_to_world,
                                                            Tensor grad_colors) {
  const HarmonicsArguments a(coefficients, means, camera_to_world);
  const HarmonicsBackward r(a, grad_colors);
  torch::stable::parallel_for(0, a.shape.splats, SPLAT_GRAIN, [&](int64_t begin, int64_t end) {
    harmonics_backward(a.shape, a.in, r.grad, begin, end);
  });
  return {r.grad_coefficients, r.grad_means};
}

Tensor hash_encode_cpu(Tensor points, Tensor table, std::vector<int64_t> resolutions, std::vector<int64_t> sizes) {
  const HashArguments a(points, table, resolutions, sizes);
  const Tensor out = empty({a.shape.points, a.width()}, FLOAT, a.table);
  const HashKernels& kernels = SDS3D_CHOSEN(HASH_KERNELS);
  torch::stable::parallel_for(0, a.shape.points, POINT_GRAIN, [&](int64_t begin, int64_t end) {
    kernels.forward(a.shape, a.in, floats_out(out), begin, end);
  });
  return out;
}

// The table's gradient is a level's work for one thread: no two write to one place, and the order is always the same.
std::tuple<Tensor, Tensor> hash_encode_backward_cpu(Tensor points, Tensor table, std::vector<int64_t> resolutions,
                                                    std::vector<int64_t> sizes, Tensor grad, bool for_points,
                                                    bool /*deterministic: on the CPU it always is*/,
                                                    double /*largest*/) {
  const HashArguments a(points, table, resolutions, sizes);
  const Tensor upstream = checked(grad, "grad", FLOAT, {a.shape.points, a.width()}, a.table);
  const Tensor grad_table = zeros({a.entries, a.shape.features}, FLOAT, a.table);
  const Tensor grad_points = empty({for_points ? a.shape.points : 0, 3}, FLOAT, a.table);
  const HashKernels& kernels = SDS3D_CHOSEN(HASH_KERNELS);
  torch::stable::parallel_for(0, a.shape.levels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t l = begin; l < end; ++l) {
      kernels.table_gradient(a.shape, a.in.points, floats(upstream), floats_out(grad_table), int(l));
    }
  });
  if (for_points) {
    torch::stable::parallel_for(0, a.shape.points, POINT_GRAIN, [&](int64_t begin, int64_t end) {
      kernels.point_gradient(a.shape, a.in, floats(upstream), floats_out(grad_points), begin, end);
    });
  }
  return {grad_table, grad_points};
}

std::tuple<Tensor, Tensor> march_rays_count_cpu(Tensor rays_o, Tensor rays_d, Tensor starts, Tensor far,
                                                Tensor binaries, Tensor aabb, Tensor least, double step,
                                                int64_t max_samples, double most_depth) {
  const MarchArguments a(rays_o, rays_d, starts, far, binaries, aabb, least, step, max_samples, most_depth);
  torch::stable::parallel_for(0, a.shape.rays, RAY_GRAIN,
                              [&](int64_t begin, int64_t end) { march_count(a.shape, a.in, a.found, begin, end); });
  return {a.counts, a.kept};
}

std::tuple<Tensor, Tensor, Tensor> march_rays_fill_cpu(Tensor rays_o, Tensor rays_d, Tensor starts, Tensor kept,
                                                       Tensor offsets, double step, int64_t total) {
  const FillArguments a(rays_o, rays_d, starts, kept, offsets, step, total);
  torch::stable::parallel_for(0, a.shape.rays, RAY_GRAIN, [&](int64_t begin, int64_t end) {
    march_fill(a.shape, a.in, a.found, a.out, begin, end);
  });
  return {a.ray_indices, a.t_starts, a.points};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> composite_cpu(Tensor densities, Tensor features, Tensor t_starts,
                                                         Tensor t_ends, Tensor offsets) {
  const CompositeArguments a(densities, features, t_starts, t_ends, offsets);
  const CompositeResults r(a);
  torch::stable::parallel_for(0, a.shape.rays, RAY_GRAIN,
                              [&](int64_t begin, int64_t end) { composite_forward(a.shape, a.in, r.out, begin, end); });
  return {r.image, r.opacity, r.depth, r.weights};
}

std::tuple<Tensor, Tensor> composite_backward_cpu(Tensor densities, Tensor features, Tensor t_starts, Tensor t_ends,
                                                  Tensor offsets, Tensor weights, Tensor grad_image,
                                                  Tensor grad_opacity, Tensor grad_depth, Tensor grad_weights) {
  const CompositeArguments a(densities, features, t_starts, t_ends, offsets);
  const CompositeBackward r(a, weights, grad_image, grad_opacity, grad_depth, grad_weights);
  torch::stable::parallel_for(0, a.shape.rays, RAY_GRAIN, [&](int64_t begin, int64_t end) {
    composite_backward(a.shape, a.in, r.grad, begin, end);
  });
  return {r.grad_densities, r.grad_features};
}

}  // namespace

}  // namespace sds3d

STABLE_TORCH_LIBRARY_IMPL(sds3d, CPU, m) {
  m.impl("project_gaussians", TORCH_BOX(&sds3d::project_gaussians_cpu));
  m.impl("project_gaussians_backward", TORCH_BOX(&sds3d::project_gaussians_backward_cpu));
  m.impl("rasterize_gaussians", TORCH_BOX(&sds3d::rasterize_gaussians_cpu));
  m.impl("rasterize_gaussians_backward", TORCH_BOX(&sds3d::rasterize_gaussians_backward_cpu));
  m.impl("selective_adam", TORCH_BOX(&sds3d::selective_adam_cpu));
  m.impl("spherical_harmonics", TORCH_BOX(&sds3d::spherical_harmonics_cpu));
  m.impl("spherical_harmonics_backward", TORCH_BOX(&sds3d::spherical_harmonics_backward_cpu));
  m.impl("hash_encode", TORCH_BOX(&sds3d::hash_encode_cpu));
  m.impl("hash_encode_backward", TORCH_BOX(&sds3d::hash_encode_backward_cpu));
  m.impl("march_rays_count", TORCH_BOX(&sds3d::march_rays_count_cpu));
  m.impl("march_rays_fill", TORCH_BOX(&sds3d::march_rays_fill_cpu));
  m.impl("composite", TORCH_BOX(&sds3d::composite_cpu));
  m.impl("composite_backward", TORCH_BOX(&sds3d::composite_backward_cpu));
}
