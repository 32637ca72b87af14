// Volume rendering on CUDA; the formulas are those of the CPU.
#include "../cuda_launch.h"
#include "composite_cuda.h"
#include "composite_math.h"

namespace sds3d {

namespace {

__global__ void composite_forward_kernel(CompositeShape shape, CompositeInputs in, CompositeOutputs out) {
  const int64_t ray = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (ray < shape.rays) composite_ray(shape, in, out, ray);
}

__global__ void composite_backward_kernel(CompositeShape shape, CompositeInputs in, CompositeGradients grad) {
  const int64_t ray = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (ray < shape.rays) composite_ray_backward(shape, in, grad, ray);
}

}  // namespace

cudaError_t launch_composite_forward(const CompositeShape& shape, const CompositeInputs& in,
                                     const CompositeOutputs& out, cudaStream_t stream) {
  if (shape.rays == 0) return cudaSuccess;
  SDS3D_LAUNCH(composite_forward_kernel, blocks_for(shape.rays), THREADS, stream, shape, in, out);
  return cudaGetLastError();
}

cudaError_t launch_composite_backward(const CompositeShape& shape, const CompositeInputs& in,
                                      const CompositeGradients& grad, cudaStream_t stream) {
  if (shape.rays == 0) return cudaSuccess;
  SDS3D_LAUNCH(composite_backward_kernel, blocks_for(shape.rays), THREADS, stream, shape, in, grad);
  return cudaGetLastError();
}

}  // namespace sds3d
