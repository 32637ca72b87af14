// The renderer of solids, CPU only: checks, allocation and threading, by view.
#include <cmath>

#include "cpu_features.h"
#include "render_solids/render_solids.h"
#include "tensors.h"

namespace sds3d {

namespace {

RenderSolids solid_renderer() {
#if SDS3D_X86
  if (instruction_set() >= InstructionSet::AVX2) return RENDER_SOLIDS_AVX2;
#endif
  return RENDER_SOLIDS_BASELINE;
}

// Evenly spread directions (a Fibonacci sphere).
std::vector<float> dot_directions() {
  std::vector<float> directions;
  for (int i = 0; i < DOTS; ++i) {
    const double z = 1.0 - (2.0 * i + 1.0) / DOTS, flat = std::sqrt(1.0 - z * z);
    const double turn = 3.141592653589793 * (1.0 + std::sqrt(5.0)) * (i + 0.5);
    for (double value : {flat * std::cos(turn), flat * std::sin(turn), z}) directions.push_back(float(value));
  }
  return directions;
}

bool is_known(const SolidRow& row) {
  const auto within = [](float value, int last) { return value >= 0.0f && value <= float(last); };
  return within(row.shape, int(SolidKind::ROOF)) && within(row.pattern, int(Pattern::TWO_TONE)) &&
         within(row.material, int(Material::WOODEN)) && within(row.axis, 2);
}

std::tuple<Tensor, Tensor, Tensor> render_solids_cpu(Tensor solids_, Tensor ranges_, Tensor camera_to_world_,
                                                     Tensor to_camera_, int64_t height, int64_t width,
                                                     int64_t samples) {
  require(solids_.dim() == 2 && ranges_.dim() == 2, "expected solids [N, 25] and ranges [B, 2]");
  require(samples > 0 && height > 0 && width > 0 && height * samples < 32768 && width * samples < 32768,
          "height * samples and width * samples must be in [1, 32767]");
  const int64_t views = ranges_.size(0), count = solids_.size(0);
  const Tensor solids = checked(solids_, "solids", FLOAT, {count, SOLID_NUMBERS}, solids_);
  const Tensor ranges = checked(ranges_, "ranges", LONG, {views, 2}, solids_);
  const Tensor camera_to_world = checked(camera_to_world_, "camera_to_world", FLOAT, {views, 4, 4}, solids_);
  const Tensor to_camera = checked(to_camera_, "to_camera", FLOAT, {views, 3, 3}, solids_);
  static const std::vector<float> dots = dot_directions();
  const SolidInputs in = {static_cast<const SolidRow*>(solids.const_data_ptr()),
                          static_cast<const int64_t*>(ranges.const_data_ptr()), floats(camera_to_world),
                          floats(to_camera), dots.data()};
  int64_t most = 0;
  for (int64_t view = 0; view < views; ++view) {
    const int64_t begin = in.ranges[2 * view], end = in.ranges[2 * view + 1];
    require(begin >= 0 && begin <= end && end <= count, "ranges: there are no such solids");
    most = end - begin > most ? end - begin : most;
  }
  for (int64_t k = 0; k < count; ++k)
    require(is_known(in.solids[k]), "solids: a shape, pattern, material or axis is unknown");
  const SolidShape shape = {views, int(height), int(width), int(samples)};
  const Tensor rgba = empty({views, height, width, 4}, FLOAT, solids),
               depth = empty({views, height, width}, FLOAT, solids);
  const Tensor part = empty({views, height, width}, INT, solids);
  const SolidOutputs out = {floats_out(rgba), floats_out(depth), data<int32_t>(part)};
  const RenderSolids render = solid_renderer();
  torch::stable::parallel_for(0, views, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(size_t(solid_scratch(shape, most)));
    for (int64_t view = begin; view < end; ++view) render(shape, in, out, view, scratch.data());
  });
  return {rgba, depth, part};
}

}  // namespace

}  // namespace sds3d

STABLE_TORCH_LIBRARY_IMPL(sds3d, CPU, m) { m.impl("render_solids", TORCH_BOX(&sds3d::render_solids_cpu)); }
