// Launchers of interpolation on CUDA; all pointers are device pointers. A thread per pixel.
#pragma once

#include <cuda_runtime_api.h>

#include "../exact_sums.h"
#include "interpolate.h"

namespace sds3d {

cudaError_t launch_interpolate(const InterpolateShape& shape, const InterpolateInputs& in, float* out,
                               cudaStream_t stream);

// `sums` are those of the attributes' gradient.
cudaError_t launch_attribute_gradient(const InterpolateShape& shape, const InterpolateInputs& in, const float* upstream,
                                      const ExactSums& sums, cudaStream_t stream);
cudaError_t launch_barycentric_gradient(const InterpolateShape& shape, const InterpolateInputs& in,
                                        const float* upstream, float* grad_barycentric, cudaStream_t stream);

}  // namespace sds3d
