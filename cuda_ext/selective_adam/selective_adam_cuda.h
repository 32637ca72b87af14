// Launcher of selective Adam on CUDA; all pointers are device pointers.
#pragma once

#include <cuda_runtime_api.h>

#include "selective_adam.h"

namespace sds3d {

// A thread per number.
cudaError_t launch_selective_adam(const AdamStep& step, const AdamTensors& t, int64_t rows, int64_t width,
                                  cudaStream_t stream);

}  // namespace sds3d
