// Launchers of projection on CUDA; all pointers are device pointers.
#pragma once

#include <cuda_runtime_api.h>

#include "project_gaussians.h"

namespace sds3d {

// A thread per view and splat.
cudaError_t launch_project_forward(const ProjectShape& shape, const ProjectInputs& in, const ProjectOutputs& out,
                                   cudaStream_t stream);

// A thread per splat, all its views one after the other: no atomics, so the gradients are deterministic.
cudaError_t launch_project_backward(const ProjectShape& shape, const ProjectInputs& in, const float* radii,
                                    const ProjectGradients& grad, cudaStream_t stream);

}  // namespace sds3d
