// Launchers of outlines on CUDA; all pointers are device pointers.
#pragma once

#include <cuda_runtime_api.h>

#include "../exact_sums.h"
#include "outlines.h"

namespace sds3d {

// A thread per view and edge: counts [B E + 1], the last 0; then the crossings from offsets [B E + 1] on, in the order
// of views, edges and rows, as on the CPU.
cudaError_t launch_count_crossings(const TriangleShape& shape, const OutlineInputs& in, int64_t edges, int64_t* counts,
                                   cudaStream_t stream);
cudaError_t launch_write_crossings(const TriangleShape& shape, const OutlineInputs& in, int64_t edges,
                                   const int64_t* offsets, const Crossings& out, cudaStream_t stream);

// A thread per crossing. `sums` are those of the result: changes of the colours; gradients of colours and of points.
cudaError_t launch_blend_outlines(const BlendShape& shape, const BlendInputs& in, const ExactSums& sums,
                                  cudaStream_t stream);
cudaError_t launch_blend_color_gradient(const BlendShape& shape, const BlendInputs& in, const float* upstream,
                                        const ExactSums& sums, cudaStream_t stream);
cudaError_t launch_blend_point_gradient(const BlendShape& shape, const BlendInputs& in, const float* upstream,
                                        const ExactSums& sums, cudaStream_t stream);

// out[i] += in[i].
cudaError_t launch_add(const float* in, float* out, int64_t count, cudaStream_t stream);

}  // namespace sds3d
