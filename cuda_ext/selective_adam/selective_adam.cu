// Selective Adam on CUDA; the formula is that of the CPU.
#include "../cuda_launch.h"
#include "selective_adam_cuda.h"

namespace sds3d {

namespace {

__global__ void selective_adam_kernel(AdamStep step, AdamTensors t, int64_t rows, int64_t width) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= rows * width || !t.visible[i / width]) return;
  adam_update(step, t.grad[i], t.parameter + i, t.exp_avg + i, t.exp_avg_sq + i);
}

}  // namespace

cudaError_t launch_selective_adam(const AdamStep& step, const AdamTensors& t, int64_t rows, int64_t width,
                                  cudaStream_t stream) {
  if (rows * width == 0) return cudaSuccess;
  SDS3D_LAUNCH(selective_adam_kernel, blocks_for(rows * width), THREADS, stream, step, t, rows, width);
  return cudaGetLastError();
}

}  // namespace sds3d
