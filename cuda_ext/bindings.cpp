// The operators as torch sees them: schemas, and what is compiled in. Autograd and fakes are in sds3d/ops/*.py.
#include <torch/csrc/stable/library.h>

#include "cpu_features.h"

namespace sds3d {

namespace {

int64_t set_instruction_limit(int64_t level) { return int64_t(limit_instruction_set(level)); }
bool has_cuda_kernels() {
#if SDS3D_CUDA
  return true;
#else
  return false;
#endif
}

}  // namespace

}  // namespace sds3d

STABLE_TORCH_LIBRARY(sds3d, m) {
  m.def("limit_instruction_set(int level) -> int");
  m.def("has_cuda_kernels() -> bool");
  m.def(
      "project_gaussians(Tensor means, Tensor quats, Tensor scales, Tensor opacities, Tensor camera_to_world, "
      "Tensor intrinsics, int height, int width, float near, float dilation) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "project_gaussians_backward(Tensor means, Tensor quats, Tensor scales, Tensor opacities, Tensor camera_to_world, "
      "Tensor intrinsics, Tensor radii, Tensor grad_means2d, Tensor grad_conics, Tensor grad_depths, int height, "
      "int width, float near, float dilation) -> (Tensor, Tensor, Tensor)");
  m.def(
      "rasterize_gaussians(Tensor means2d, Tensor conics, Tensor opacities, Tensor features, Tensor radii, "
      "Tensor depths, Tensor background, int height, int width, int max_intersections) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "rasterize_gaussians_backward(Tensor conics, Tensor opacities, Tensor features, Tensor image, "
      "Tensor transmittance, Tensor splats, Tensor tile_offsets, Tensor record_offsets, Tensor hits, Tensor "
      "grad_image, "
      "Tensor grad_transmittance, bool deterministic) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "selective_adam(Tensor(a!) parameter, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, Tensor grad, Tensor visible, "
      "float lr, float beta1, float beta2, float eps, int step) -> ()");
  m.def("rasterize_triangles(Tensor points, Tensor faces, int height, int width) -> (Tensor, Tensor, Tensor)");
  m.def(
      "rasterize_triangles_backward(Tensor points, Tensor faces, Tensor face, Tensor grad_barycentric, "
      "bool deterministic) -> Tensor");
  m.def("interpolate(Tensor attributes, Tensor faces, Tensor face, Tensor barycentric) -> Tensor");
  m.def(
      "interpolate_backward(Tensor attributes, Tensor faces, Tensor face, Tensor barycentric, Tensor grad, "
      "bool for_attributes, bool for_barycentric, bool deterministic) -> (Tensor, Tensor)");
  m.def(
      "outline_crossings(Tensor points, Tensor faces, Tensor edges, Tensor depth, float tolerance) -> "
      "(Tensor, Tensor)");
  m.def("blend_outlines(Tensor color, Tensor points, Tensor index, Tensor value, bool deterministic) -> Tensor");
  m.def(
      "blend_outlines_backward(Tensor color, Tensor points, Tensor index, Tensor value, Tensor grad, bool for_color, "
      "bool for_points, bool deterministic) -> (Tensor, Tensor)");
  m.def(
      "remesh(Tensor vertices, Tensor faces, Tensor size, float edge_length, int iterations, float crease_deg, "
      "int most_faces) -> (Tensor, Tensor)");
  m.def("finish_mesh(Tensor vertices, Tensor faces, Tensor thickness, int rounds, float crease_deg) -> Tensor");
  m.def("mesh_thickness(Tensor vertices, Tensor faces, Tensor normals) -> Tensor");
  m.def(
      "render_solids(Tensor solids, Tensor ranges, Tensor camera_to_world, Tensor to_camera, int height, int width, "
      "int samples) -> (Tensor, Tensor, Tensor)");
  m.def("spherical_harmonics(Tensor coefficients, Tensor means, Tensor camera_to_world) -> Tensor");
  m.def(
      "spherical_harmonics_backward(Tensor coefficients, Tensor means, Tensor camera_to_world, Tensor grad_colors) "
      "-> (Tensor, Tensor)");
  m.def("hash_encode(Tensor points, Tensor table, int[] resolutions, int[] sizes) -> Tensor");
  m.def(
      "hash_encode_backward(Tensor points, Tensor table, int[] resolutions, int[] sizes, Tensor grad, bool for_points, "
      "bool deterministic, float largest) -> (Tensor, Tensor)");
  m.def(
      "march_rays_count(Tensor rays_o, Tensor rays_d, Tensor starts, Tensor far, Tensor binaries, Tensor aabb, "
      "Tensor least, float step, int max_samples, float most_depth) -> (Tensor, Tensor)");
  m.def(
      "march_rays_fill(Tensor rays_o, Tensor rays_d, Tensor starts, Tensor kept, Tensor offsets, float step, int "
      "total) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "composite(Tensor densities, Tensor features, Tensor t_starts, Tensor t_ends, Tensor offsets) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "composite_backward(Tensor densities, Tensor features, Tensor t_starts, Tensor t_ends, Tensor offsets, "
      "Tensor weights, Tensor grad_image, Tensor grad_opacity, Tensor grad_depth, Tensor grad_weights) "
      "-> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(sds3d, CompositeExplicitAutograd, m) {
  m.impl("limit_instruction_set", TORCH_BOX(&sds3d::set_instruction_limit));
  m.impl("has_cuda_kernels", TORCH_BOX(&sds3d::has_cuda_kernels));
}
