// Marching on CUDA; a ray's march is that of the CPU.
#include "../cuda_launch.h"
#include "march_math.h"
#include "march_rays_cuda.h"

namespace sds3d {

namespace {

__global__ void march_count_kernel(MarchShape shape, MarchInputs in, MarchFound found) {
  const int64_t ray = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (ray < shape.rays) count_ray(shape, in, found, ray);
}

__global__ void march_fill_kernel(MarchShape shape, MarchInputs in, MarchFound found, MarchSamples out) {
  const int64_t ray = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (ray < shape.rays) fill_ray(shape, in, found, out, ray);
}

}  // namespace

cudaError_t launch_march_count(const MarchShape& shape, const MarchInputs& in, const MarchFound& found,
                               cudaStream_t stream) {
  if (shape.rays == 0) return cudaSuccess;
  SDS3D_LAUNCH(march_count_kernel, blocks_for(shape.rays), THREADS, stream, shape, in, found);
  return cudaGetLastError();
}

cudaError_t launch_march_fill(const MarchShape& shape, const MarchInputs& in, const MarchFound& found,
                              const MarchSamples& out, cudaStream_t stream) {
  if (shape.rays == 0) return cudaSuccess;
  SDS3D_LAUNCH(march_fill_kernel, blocks_for(shape.rays), THREADS, stream, shape, in, found, out);
  return cudaGetLastError();
}

}  // namespace sds3d
