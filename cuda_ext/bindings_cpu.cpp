// The CPU operators: checks, allocation and threading around the raw-pointer kernels.
#include <algorithm>
#include <atomic>
#include <string>

#include "cpu_features.h"
#include "project_gaussians/project_gaussians.h"
#include "rasterize_gaussians/rasterize_gaussians.h"
#include "tensors.h"

namespace sds3d {

namespace {

constexpr auto FLOAT = ScalarType::Float;
constexpr auto INT = ScalarType::Int;
constexpr int64_t SPLAT_GRAIN = 1024;  // splats per task: about 50 microseconds of projection

ProjectShape project_shape(const Tensor& means, const Tensor& camera_to_world, int64_t height, int64_t width,
                           double near, double dilation) {
  require(height > 0 && width > 0 && height < 32768 && width < 32768, "height and width must be in [1, 32767]");
  return {camera_to_world.size(0), means.size(0), int(height), int(width), float(near), float(dilation)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> project_gaussians_cpu(Tensor means, Tensor quats, Tensor scales,
                                                                 Tensor opacities, Tensor camera_to_world,
                                                                 Tensor intrinsics, int64_t height, int64_t width,
                                                                 double near, double dilation) {
  const ProjectShape shape = project_shape(means, camera_to_world, height, width, near, dilation);
  const int64_t b = shape.views, n = shape.splats;
  means = checked(means, "means", FLOAT, {n, 3}, means);
  quats = checked(quats, "quats", FLOAT, {n, 4}, means);
  scales = checked(scales, "scales", FLOAT, {n, 3}, means);
  opacities = checked(opacities, "opacities", FLOAT, {n}, means);
  camera_to_world = checked(camera_to_world, "camera_to_world", FLOAT, {b, 4, 4}, means);
  intrinsics = checked(intrinsics, "intrinsics", FLOAT, {b, 3, 3}, means);
  const Tensor means2d = empty({b, n, 2}, FLOAT, means), conics = empty({b, n, 3}, FLOAT, means);
  const Tensor depths = empty({b, n}, FLOAT, means), extents = empty({b, n, 2}, FLOAT, means);

  const ProjectInputs in = {floats(means),     floats(quats),           floats(scales),
                            floats(opacities), floats(camera_to_world), floats(intrinsics)};
  const ProjectOutputs out = {floats_out(means2d), floats_out(conics), floats_out(depths), floats_out(extents)};
  torch::stable::parallel_for(0, n, SPLAT_GRAIN,
                              [&](int64_t begin, int64_t end) { project_forward(shape, in, out, begin, end); });
  return {means2d, conics, depths, extents};
}

std::tuple<Tensor, Tensor, Tensor> project_gaussians_backward_cpu(
    Tensor means, Tensor quats, Tensor scales, Tensor opacities, Tensor camera_to_world, Tensor intrinsics,
    Tensor extents, Tensor grad_means2d, Tensor grad_conics, Tensor grad_depths, int64_t height, int64_t width,
    double near, double dilation) {
  const ProjectShape shape = project_shape(means, camera_to_world, height, width, near, dilation);
  const int64_t b = shape.views, n = shape.splats;
  means = checked(means, "means", FLOAT, {n, 3}, means);
  quats = checked(quats, "quats", FLOAT, {n, 4}, means);
  scales = checked(scales, "scales", FLOAT, {n, 3}, means);
  opacities = checked(opacities, "opacities", FLOAT, {n}, means);
  camera_to_world = checked(camera_to_world, "camera_to_world", FLOAT, {b, 4, 4}, means);
  intrinsics = checked(intrinsics, "intrinsics", FLOAT, {b, 3, 3}, means);
  extents = checked(extents, "extents", FLOAT, {b, n, 2}, means);
  grad_means2d = checked(grad_means2d, "grad_means2d", FLOAT, {b, n, 2}, means);
  grad_conics = checked(grad_conics, "grad_conics", FLOAT, {b, n, 3}, means);
  grad_depths = checked(grad_depths, "grad_depths", FLOAT, {b, n}, means);
  const Tensor grad_means = empty({n, 3}, FLOAT, means), grad_quats = empty({n, 4}, FLOAT, means);
  const Tensor grad_scales = empty({n, 3}, FLOAT, means);

  const ProjectInputs in = {floats(means),     floats(quats),           floats(scales),
                            floats(opacities), floats(camera_to_world), floats(intrinsics)};
  const ProjectGradients grad = {floats(grad_means2d),   floats(grad_conics),    floats(grad_depths),
                                 floats_out(grad_means), floats_out(grad_quats), floats_out(grad_scales)};
  torch::stable::parallel_for(0, n, SPLAT_GRAIN, [&](int64_t begin, int64_t end) {
    project_backward(shape, in, floats(extents), grad, begin, end);
  });
  return {grad_means, grad_quats, grad_scales};
}

RasterShape raster_shape(const Tensor& features, int64_t height, int64_t width) {
  require(features.dim() == 3, "features: expected [B, N, C]");
  const int64_t c = features.size(2);
  require(c == 3 || c == 4 || c == 7, "features: C must be 3 (rgb), 4 (rgb, depth) or 7 (rgb, depth, normal)");
  require(height > 0 && width > 0 && height < 32768 && width < 32768, "height and width must be in [1, 32767]");
  const RasterShape shape = {features.size(0), features.size(1), int(c), int(height), int(width)};
  require(shape.views * shape.splats < INT32_MAX && shape.views * shape.tiles() < INT32_MAX,
          "rasterize_gaussians: views * splats and views * tiles must be below 2^31");
  return shape;
}

const TileKernels& tile_kernels() {
  switch (instruction_set()) {
#if SDS3D_X86
    case InstructionSet::AVX512:
      return TILE_KERNELS_AVX512;
    case InstructionSet::AVX2:
      return TILE_KERNELS_AVX2;
#endif
    default:
      return TILE_KERNELS_BASELINE;
  }
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
  if (total > MAX_TILE_HITS) {
    throw std::runtime_error("rasterize_gaussians: the splats meet " + std::to_string(total) +
                             " tiles, more than the limit of " + std::to_string(MAX_TILE_HITS) +
                             "; they are far too large for this image, or too many views are rendered at once");
  }
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
    Tensor means2d, Tensor conics, Tensor opacities, Tensor features, Tensor extents, Tensor depths, Tensor background,
    int64_t height, int64_t width) {
  const RasterShape shape = raster_shape(features, height, width);
  const int64_t b = shape.views, n = shape.splats, c = shape.channels, tiles = shape.tiles();
  means2d = checked(means2d, "means2d", FLOAT, {b, n, 2}, means2d);
  conics = checked(conics, "conics", FLOAT, {b, n, 3}, means2d);
  opacities = checked(opacities, "opacities", FLOAT, {n}, means2d);
  features = checked(features, "features", FLOAT, {b, n, c}, means2d);
  extents = checked(extents, "extents", FLOAT, {b, n, 2}, means2d);
  depths = checked(depths, "depths", FLOAT, {b, n}, means2d);
  background = checked(background, "background", FLOAT, {b, c}, means2d);
  const SplatInputs in = {floats(means2d),  floats(conics),  floats(opacities),
                          floats(features), floats(extents), floats(depths)};

  const Tensor splats = empty({b, n, int64_t(sizeof(Splat) / sizeof(float))}, FLOAT, means2d);
  const Tensor tile_offsets = empty({b * tiles + 1}, INT, means2d), record_offsets = empty({b * n + 1}, INT, means2d);
  std::vector<TileBox> boxes(b * n);
  std::vector<int32_t> order(b * n);
  std::vector<uint32_t> scratch(b * n * 4);
  std::vector<int64_t> tile_counts(b * tiles), drawable(b);
  torch::stable::parallel_for(0, b, 1, [&](int64_t begin, int64_t end) {
    for (int64_t v = begin; v < end; ++v) {
      drawable[v] = prepare_view(shape, in, v, data<Splat>(splats) + v * n, boxes.data() + v * n, order.data() + v * n,
                                 tile_counts.data() + v * tiles, scratch.data() + 4 * v * n);
    }
  });
  const int64_t total = offsets_from_counts(shape, tile_counts.data(), boxes.data(), data<int32_t>(tile_offsets),
                                            data<int32_t>(record_offsets));

  const Tensor hits = empty({total, 2}, INT, means2d);
  std::vector<int32_t> cursors(data<int32_t>(tile_offsets), data<int32_t>(tile_offsets) + b * tiles);
  torch::stable::parallel_for(0, b, 1, [&](int64_t begin, int64_t end) {
    for (int64_t v = begin; v < end; ++v) {
      list_hits(shape, v, boxes.data() + v * n, order.data() + v * n, drawable[v], data<int32_t>(record_offsets),
                cursors.data() + v * tiles, data<TileHit>(hits));
    }
  });

  const Tensor image = empty({b, height, width, c}, FLOAT, means2d);
  const Tensor transmittance = empty({b, height, width, 1}, FLOAT, means2d);
  const TileLists lists = {data<Splat>(splats), data<int32_t>(tile_offsets), data<int32_t>(record_offsets),
                           data<TileHit>(hits)};
  const RasterImages out = {floats(background), floats_out(image), floats_out(transmittance)};
  const auto forward = tile_kernels().forward;
  for_each_tile(shape, [&](int64_t tile) { forward(shape, in.features, lists, out, tile); });
  return {image, transmittance, splats, tile_offsets, record_offsets, hits};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> rasterize_gaussians_backward_cpu(
    Tensor conics, Tensor opacities, Tensor features, Tensor image, Tensor transmittance, Tensor splats,
    Tensor tile_offsets, Tensor record_offsets, Tensor hits, Tensor grad_image, Tensor grad_transmittance) {
  require(image.dim() == 4, "image: expected [B, H, W, C]");
  const int64_t height = image.size(1), width = image.size(2);
  const RasterShape shape = raster_shape(features, height, width);
  const int64_t b = shape.views, n = shape.splats, c = shape.channels, total = hits.size(0);
  conics = checked(conics, "conics", FLOAT, {b, n, 3}, image);
  opacities = checked(opacities, "opacities", FLOAT, {n}, image);
  features = checked(features, "features", FLOAT, {b, n, c}, image);
  image = checked(image, "image", FLOAT, {b, height, width, c}, image);
  transmittance = checked(transmittance, "transmittance", FLOAT, {b, height, width, 1}, image);
  splats = checked(splats, "splats", FLOAT, {b, n, int64_t(sizeof(Splat) / sizeof(float))}, image);
  tile_offsets = checked(tile_offsets, "tile_offsets", INT, {b * shape.tiles() + 1}, image);
  record_offsets = checked(record_offsets, "record_offsets", INT, {b * n + 1}, image);
  hits = checked(hits, "hits", INT, {total, 2}, image);
  grad_image = checked(grad_image, "grad_image", FLOAT, {b, height, width, c}, image);
  grad_transmittance = checked(grad_transmittance, "grad_transmittance", FLOAT, {b, height, width, 1}, image);
  const Tensor grad_means2d = empty({b, n, 2}, FLOAT, image), grad_conics = empty({b, n, 3}, FLOAT, image);
  const Tensor grad_opacities = empty({n}, FLOAT, image), grad_features = empty({b, n, c}, FLOAT, image);

  const Tensor records = empty({total, RECORD}, FLOAT, image);
  const TileLists lists = {data<Splat>(splats), data<int32_t>(tile_offsets), data<int32_t>(record_offsets),
                           data<TileHit>(hits)};
  const RasterGradients gradients = {floats(image), floats(transmittance), floats(grad_image),
                                     floats(grad_transmittance), floats_out(records)};
  const auto backward = tile_kernels().backward;
  for_each_tile(shape, [&](int64_t tile) { backward(shape, floats(features), lists, gradients, tile); });

  const SplatInputs in = {nullptr, floats(conics), floats(opacities), floats(features), nullptr, nullptr};
  const SplatGradients out = {floats_out(grad_means2d), floats_out(grad_conics), floats_out(grad_opacities),
                              floats_out(grad_features)};
  torch::stable::parallel_for(0, n, SPLAT_GRAIN, [&](int64_t begin, int64_t end) {
    sum_records(shape, in, data<int32_t>(record_offsets), floats(records), out, begin, end);
  });
  return {grad_means2d, grad_conics, grad_opacities, grad_features};
}

}  // namespace

}  // namespace sds3d

STABLE_TORCH_LIBRARY_IMPL(sds3d, CPU, m) {
  m.impl("project_gaussians", TORCH_BOX(&sds3d::project_gaussians_cpu));
  m.impl("project_gaussians_backward", TORCH_BOX(&sds3d::project_gaussians_backward_cpu));
  m.impl("rasterize_gaussians", TORCH_BOX(&sds3d::rasterize_gaussians_cpu));
  m.impl("rasterize_gaussians_backward", TORCH_BOX(&sds3d::rasterize_gaussians_backward_cpu));
}
