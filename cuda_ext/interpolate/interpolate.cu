// Interpolation on CUDA; the formulas are those of the CPU.
#include "../exact_sums_cuda.h"
#include "interpolate_cuda.h"
#include "interpolate_math.h"

namespace sds3d {

namespace {

__global__ void interpolate_kernel(InterpolateShape shape, InterpolateInputs in, float* out) {
  const int64_t pixel = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (pixel >= shape.views * shape.pixels) return;
  if (in.face[pixel] >= 0) return interpolate_pixel<0>(shape, in, out, pixel);
  for (int k = 0; k < shape.channels; ++k) out[pixel * shape.channels + k] = 0.0f;
}

template <class Add>
__global__ void attribute_gradient_kernel(InterpolateShape shape, InterpolateInputs in, const float* upstream,
                                          Add add) {
  const int64_t pixel = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (pixel >= shape.views * shape.pixels || in.face[pixel] < 0) return;
  attribute_gradient<0>(shape, in, upstream, pixel, add);
}

__global__ void barycentric_gradient_kernel(InterpolateShape shape, InterpolateInputs in, const float* upstream,
                                            float* grad_barycentric) {
  const int64_t pixel = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (pixel >= shape.views * shape.pixels) return;
  if (in.face[pixel] >= 0) return barycentric_gradient<0>(shape, in, upstream, grad_barycentric, pixel);
  for (int i = 0; i < 3; ++i) grad_barycentric[3 * pixel + i] = 0.0f;
}

}  // namespace

cudaError_t launch_interpolate(const InterpolateShape& shape, const InterpolateInputs& in, float* out,
                               cudaStream_t stream) {
  const int64_t pixels = shape.views * shape.pixels;
  if (pixels == 0) return cudaSuccess;
  SDS3D_LAUNCH(interpolate_kernel, blocks_for(pixels), THREADS, stream, shape, in, out);
  return cudaGetLastError();
}

cudaError_t launch_attribute_gradient(const InterpolateShape& shape, const InterpolateInputs& in, const float* upstream,
                                      const ExactSums& sums, cudaStream_t stream) {
  const int64_t pixels = shape.views * shape.pixels;
  return launch_sums(sums, stream, [&](auto add) {
    SDS3D_LAUNCH(attribute_gradient_kernel, blocks_for(pixels), THREADS, stream, shape, in, upstream, add);
  });
}

cudaError_t launch_barycentric_gradient(const InterpolateShape& shape, const InterpolateInputs& in,
                                        const float* upstream, float* grad_barycentric, cudaStream_t stream) {
  const int64_t pixels = shape.views * shape.pixels;
  if (pixels == 0) return cudaSuccess;
  SDS3D_LAUNCH(barycentric_gradient_kernel, blocks_for(pixels), THREADS, stream, shape, in, upstream, grad_barycentric);
  return cudaGetLastError();
}

}  // namespace sds3d
