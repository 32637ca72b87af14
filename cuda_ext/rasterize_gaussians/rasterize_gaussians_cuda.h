// Launchers of compositing on CUDA, in the order of use; all pointers are device pointers. The tile lists are the same
// as on the CPU, without the hits of tiles that a splat's box meets and the splat does not: hits of one splat are
// numbered row by row of its box, splat after splat.
#pragma once

#include <cuda_runtime_api.h>

#include "../half.h"
#include "rasterize_gaussians.h"

namespace sds3d {

// A thread per view and splat. `counts` [B * N + 1] gets the number of tiles that each splat meets, and a last 0.
cudaError_t launch_prepare_splats(const RasterShape& shape, const SplatInputs& in, Splat* splats, TileBox* boxes,
                                  int64_t* counts, cudaStream_t stream);

// A thread per view and splat. `offsets` [B * N + 1] is the exclusive sum of the counts. Writes lists.record_offsets,
// and key (view and tile, then depth) and hit of every tile that a splat meets, unsorted. Both have room for `capacity`
// hits: more are left out, and keys without a hit sort behind all others.
cudaError_t launch_list_hits(const RasterShape& shape, const float* depths, const TileBox* boxes,
                             const int64_t* offsets, int64_t capacity, const TileLists& lists, uint64_t* keys,
                             TileHit* hits, cudaStream_t stream);

// How many bits of the keys above are in use.
int hit_key_bits(const RasterShape& shape);

// A thread per view and tile, and one more: where each tile begins in the `total` sorted keys; the last is where they
// end.
cudaError_t launch_tile_offsets(const RasterShape& shape, const uint64_t* sorted_keys, int64_t total,
                                int32_t* tile_offsets, cudaStream_t stream);

// A block per view and tile, a thread per pixel. All of `out` is NaN where `needed`, a number of hits on the device, is
// more than the `capacity` of the lists: an image that misses splats must not pass for one.
cudaError_t launch_rasterize_forward(const RasterShape& shape, const Features& features, const TileLists& lists,
                                     const int64_t* needed, int64_t capacity, const RasterImages& out,
                                     cudaStream_t stream);

// A block per view and tile, a thread per pixel. `grad.records` is zero on entry. It is [B * N, RECORD], and warps add
// to it with atomics, so the last bits of the gradients vary from run to run; or with per_hit [K, RECORD], and they do
// not.
cudaError_t launch_rasterize_backward(const RasterShape& shape, const Features& features, const TileLists& lists,
                                      const RasterGradients& grad, bool per_hit, cudaStream_t stream);

// A thread per splat: from these records to gradients, in a fixed order, opacities summed over views.
cudaError_t launch_splat_gradients(const RasterShape& shape, const SplatInputs& in, const int32_t* record_offsets,
                                   const float* records, bool per_hit, const SplatGradients& out, cudaStream_t stream);

}  // namespace sds3d
