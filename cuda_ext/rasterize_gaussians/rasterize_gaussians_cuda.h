// Launchers of compositing on CUDA, in the order of use; all pointers are device pointers. The tile lists are the same
// as on the CPU: hits of one splat are numbered row by row of its box, splat after splat.
#pragma once

#include <cuda_runtime_api.h>

#include "rasterize_gaussians.h"

namespace sds3d {

// A thread per view and splat. `counts` [B * N + 1] gets the number of tiles that each splat meets, and a last 0.
cudaError_t launch_prepare_splats(const RasterShape& shape, const SplatInputs& in, Splat* splats, TileBox* boxes,
                                  int64_t* counts, cudaStream_t stream);

// A thread per view and splat. `offsets` [B * N + 1] is the exclusive sum of the counts. Writes record_offsets, and key
// (view and tile, then depth) and hit of every tile that a splat meets, unsorted.
cudaError_t launch_list_hits(const RasterShape& shape, const float* depths, const TileBox* boxes,
                             const int64_t* offsets, int32_t* record_offsets, uint64_t* keys, TileHit* hits,
                             cudaStream_t stream);

// How many bits of the keys above are in use.
int hit_key_bits(const RasterShape& shape);

// A thread per view and tile, and one more: where each tile begins in the `total` sorted keys.
cudaError_t launch_tile_offsets(const RasterShape& shape, const uint64_t* sorted_keys, int64_t total,
                                int32_t* tile_offsets, cudaStream_t stream);

// A block per view and tile, a thread per pixel.
cudaError_t launch_rasterize_forward(const RasterShape& shape, const float* features, const TileLists& lists,
                                     const RasterImages& out, cudaStream_t stream);

// A block per view and tile, a thread per pixel. `grad.records` is zero on entry. It is [B * N, RECORD], and warps add to it
// with atomics, so the last bits of the gradients vary from run to run; or with per_hit [K, RECORD], and they do not.
cudaError_t launch_rasterize_backward(const RasterShape& shape, const float* features, const TileLists& lists,
                                      const RasterGradients& grad, bool per_hit, cudaStream_t stream);

// A thread per splat: from these records to gradients, in a fixed order, opacities summed over views.
cudaError_t launch_splat_gradients(const RasterShape& shape, const SplatInputs& in, const int32_t* record_offsets,
                                   const float* records, bool per_hit, const SplatGradients& out,
                                   cudaStream_t stream);

}  // namespace sds3d
