// Launchers of spherical harmonics on CUDA; all pointers are device pointers.
#pragma once

#include <cuda_runtime_api.h>

#include "spherical_harmonics.h"

namespace sds3d {

// A thread per view and splat.
cudaError_t launch_harmonics_forward(const HarmonicsShape& shape, const HarmonicsInputs& in, float* colors,
                                     cudaStream_t stream);

// A thread per splat, all its views one after the other: no atomics, so the gradients are deterministic.
cudaError_t launch_harmonics_backward(const HarmonicsShape& shape, const HarmonicsInputs& in,
                                      const HarmonicsGradients& grad, cudaStream_t stream);

}  // namespace sds3d
