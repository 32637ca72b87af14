// Projection on CUDA; the formulas are those of the CPU.
#include "../cuda_launch.h"
#include "project_gaussians_cuda.h"
#include "projection_math.h"

namespace sds3d {

namespace {

__device__ __forceinline__ View view_of(const ProjectShape& shape, const ProjectInputs& in, int64_t b) {
  return load_view(in.camera_to_world + 16 * b, in.intrinsics + 9 * b, shape.height, shape.width);
}

__global__ void project_forward_kernel(ProjectShape shape, ProjectInputs in, ProjectOutputs out) {
  const int64_t k = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (k >= shape.views * shape.splats) return;
  const Gaussian g = load_gaussian(in, k % shape.splats);
  const View view = view_of(shape, in, k / shape.splats);
  project_splat(g, view, shape, out.means2d + 2 * k, out.conics + 3 * k, out.depths + k, out.extents + 2 * k);
}

__global__ void project_backward_kernel(ProjectShape shape, ProjectInputs in, const float* extents,
                                        ProjectGradients grad) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= shape.splats) return;
  const Gaussian g = load_gaussian(in, i);
  GaussianGradient sum = {};
  bool visible = false;
  for (int64_t b = 0; b < shape.views; ++b) {
    const int64_t k = b * shape.splats + i;
    if (extents[2 * k] == 0.0f) continue;
    visible = true;
    add_view_gradient(g, view_of(shape, in, b), shape.dilation, grad.means2d + 2 * k, grad.conics + 3 * k,
                      grad.depths[k], &sum);
  }
  if (visible) {
    write_gradient(g, sum, grad.grad_means + 3 * i, grad.grad_quats + 4 * i, grad.grad_scales + 3 * i);
    return;
  }
  for (int c = 0; c < 3; ++c) grad.grad_means[3 * i + c] = grad.grad_scales[3 * i + c] = 0.0f;
  for (int c = 0; c < 4; ++c) grad.grad_quats[4 * i + c] = 0.0f;
}

}  // namespace

cudaError_t launch_project_forward(const ProjectShape& shape, const ProjectInputs& in, const ProjectOutputs& out,
                                   cudaStream_t stream) {
  const int64_t items = shape.views * shape.splats;
  if (items == 0) return cudaSuccess;
  SDS3D_LAUNCH(project_forward_kernel, blocks_for(items), THREADS, stream, shape, in, out);
  return cudaGetLastError();
}

cudaError_t launch_project_backward(const ProjectShape& shape, const ProjectInputs& in, const float* extents,
                                    const ProjectGradients& grad, cudaStream_t stream) {
  if (shape.splats == 0) return cudaSuccess;
  SDS3D_LAUNCH(project_backward_kernel, blocks_for(shape.splats), THREADS, stream, shape, in, extents, grad);
  return cudaGetLastError();
}

}  // namespace sds3d
