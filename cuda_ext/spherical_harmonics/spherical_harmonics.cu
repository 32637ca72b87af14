// Spherical harmonics on CUDA; the formulas are those of the CPU.
#include "../cuda_launch.h"
#include "harmonics_math.h"
#include "spherical_harmonics_cuda.h"

namespace sds3d {

namespace {

__global__ void harmonics_forward_kernel(HarmonicsShape shape, HarmonicsInputs in, float* colors) {
  const int64_t k = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (k >= shape.views * shape.splats) return;
  const int64_t i = k % shape.splats;
  const Direction d = direction_to(in.means + 3 * i, in.camera_to_world + k / shape.splats * 16);
  harmonics_color(shape.terms, in.coefficients + 3 * shape.terms * i, d, colors + 3 * k);
}

__global__ void harmonics_backward_kernel(HarmonicsShape shape, HarmonicsInputs in, HarmonicsGradients grad) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= shape.splats) return;
  const int width = 3 * shape.terms;
  float sum[3 * MAX_TERMS], grad_mean[3] = {0.0f, 0.0f, 0.0f};
  for (int f = 0; f < width; ++f) sum[f] = 0.0f;
  for (int64_t b = 0; b < shape.views; ++b) {
    const Direction d = direction_to(in.means + 3 * i, in.camera_to_world + 16 * b);
    add_harmonics_view(shape.terms, in.coefficients + width * i, d, grad.colors + 3 * (b * shape.splats + i), sum,
                       grad_mean);
  }
  for (int f = 0; f < width; ++f) grad.grad_coefficients[width * i + f] = sum[f];
  for (int c = 0; c < 3; ++c) grad.grad_means[3 * i + c] = grad_mean[c];
}

}  // namespace

cudaError_t launch_harmonics_forward(const HarmonicsShape& shape, const HarmonicsInputs& in, float* colors,
                                     cudaStream_t stream) {
  const int64_t items = shape.views * shape.splats;
  if (items == 0) return cudaSuccess;
  SDS3D_LAUNCH(harmonics_forward_kernel, blocks_for(items), THREADS, stream, shape, in, colors);
  return cudaGetLastError();
}

cudaError_t launch_harmonics_backward(const HarmonicsShape& shape, const HarmonicsInputs& in,
                                      const HarmonicsGradients& grad, cudaStream_t stream) {
  if (shape.splats == 0) return cudaSuccess;
  SDS3D_LAUNCH(harmonics_backward_kernel, blocks_for(shape.splats), THREADS, stream, shape, in, grad);
  return cudaGetLastError();
}

}  // namespace sds3d
