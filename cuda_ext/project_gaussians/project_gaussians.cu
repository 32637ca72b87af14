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
  store_projection(project_splat(g, view, shape), out, k);
}

__global__ void project_backward_kernel(ProjectShape shape, ProjectInputs in, const float* radii,
                                        ProjectGradients grad) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= shape.splats) return;
  const Gaussian g = load_gaussian(in, i);
  GaussianGradient sum = {};
  bool visible = false;
  for (int64_t b = 0; b < shape.views; ++b) {
    const int64_t k = b * shape.splats + i;
    if (radii[2 * k] == 0.0f) continue;
    visible = true;
    add(view_gradient(g, view_of(shape, in, b), shape.dilation, true, load_upstream(grad, k)), &sum);
  }
  store_gradient(splat_gradient(g, sum, visible), grad, i);
}

}  // namespace

cudaError_t launch_project_forward(const ProjectShape& shape, const ProjectInputs& in, const ProjectOutputs& out,
                                   cudaStream_t stream) {
  const int64_t items = shape.views * shape.splats;
  if (items == 0) return cudaSuccess;
  SDS3D_LAUNCH(project_forward_kernel, blocks_for(items), THREADS, stream, shape, in, out);
  return cudaGetLastError();
}

cudaError_t launch_project_backward(const ProjectShape& shape, const ProjectInputs& in, const float* radii,
                                    const ProjectGradients& grad, cudaStream_t stream) {
  if (shape.splats == 0) return cudaSuccess;
  SDS3D_LAUNCH(project_backward_kernel, blocks_for(shape.splats), THREADS, stream, shape, in, radii, grad);
  return cudaGetLastError();
}

}  // namespace sds3d
