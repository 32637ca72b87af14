// The seam to the library that sorts and scans on the device (CUB): hit_sort.cu, or a host's own twin of it.
#pragma once

#include <cuda_runtime_api.h>

#include "rasterize_gaussians.h"

namespace sds3d {

// Bytes of scratch memory that both functions below can work with, for this many items.
cudaError_t hit_sort_scratch(int64_t count, size_t* bytes);

// out[i] = in[0] + ... + in[i - 1], i < count < 2^31.
cudaError_t exclusive_sum(void* scratch, size_t bytes, const int64_t* in, int64_t* out, int64_t count,
                          cudaStream_t stream);

// Sorts hits by the lowest `key_bits` bits of their keys; stable; count < 2^31.
cudaError_t sort_hits(void* scratch, size_t bytes, const uint64_t* keys, uint64_t* sorted_keys, const TileHit* hits,
                      TileHit* sorted_hits, int64_t count, int key_bits, cudaStream_t stream);

}  // namespace sds3d
