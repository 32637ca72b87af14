// Launchers of marching on CUDA; all pointers are device pointers.
#pragma once

#include <cuda_runtime_api.h>

#include "march_rays.h"

namespace sds3d {

// Both: a thread per ray.
cudaError_t launch_march_count(const MarchShape& shape, const MarchInputs& in, const MarchFound& found,
                               cudaStream_t stream);
cudaError_t launch_march_fill(const MarchShape& shape, const MarchInputs& in, const MarchFound& found,
                              const MarchSamples& out, cudaStream_t stream);

}  // namespace sds3d
