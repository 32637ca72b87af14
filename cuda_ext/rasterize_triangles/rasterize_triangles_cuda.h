// Launchers of the triangle rasterizer on CUDA; all pointers are device pointers.
#pragma once

#include <cuda_runtime_api.h>

#include "../exact_sums.h"
#include "rasterize_triangles.h"

namespace sds3d {

// `nearest` [B, H, W] is scratch memory, zeroed by the caller. A warp per view and face, then a thread per pixel.
cudaError_t launch_rasterize_triangles(const TriangleShape& shape, const TriangleInputs& in,
                                       unsigned long long* nearest, const TriangleOutputs& out, cudaStream_t stream);

// A thread per pixel; `sums` are those of the points' gradient [B, V, 3].
cudaError_t launch_rasterize_triangles_backward(const TriangleShape& shape, const TriangleInputs& in,
                                                const int32_t* face, const float* grad_barycentric,
                                                const ExactSums& sums, cudaStream_t stream);

}  // namespace sds3d
