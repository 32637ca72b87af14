// Launchers of volume rendering on CUDA; all pointers are device pointers.
#pragma once

#include <cuda_runtime_api.h>

#include "composite.h"

namespace sds3d {

// Both: a thread per ray, so nothing is added up in an order that varies.
cudaError_t launch_composite_forward(const CompositeShape& shape, const CompositeInputs& in,
                                     const CompositeOutputs& out, cudaStream_t stream);
cudaError_t launch_composite_backward(const CompositeShape& shape, const CompositeInputs& in,
                                      const CompositeGradients& grad, cudaStream_t stream);

}  // namespace sds3d
