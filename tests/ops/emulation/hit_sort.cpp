// The host twin of cuda_ext/rasterize_gaussians/hit_sort.cu, which calls CUB.
#include "rasterize_gaussians/hit_sort.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace sds3d {

constexpr size_t SCRATCH_BYTES = 64;

cudaError_t hit_sort_scratch(int64_t, size_t* bytes) {
  *bytes = SCRATCH_BYTES;
  return cudaSuccess;
}

cudaError_t exclusive_sum(void*, size_t bytes, const int64_t* in, int64_t* out, int64_t count, cudaStream_t) {
  if (bytes < SCRATCH_BYTES) return cudaErrorInvalidValue;
  std::exclusive_scan(in, in + count, out, int64_t(0));
  return cudaSuccess;
}

cudaError_t sort_hits(void*, size_t bytes, const uint64_t* keys, uint64_t* sorted_keys, const TileHit* hits,
                      TileHit* sorted_hits, int64_t count, int key_bits, cudaStream_t) {
  if (bytes < SCRATCH_BYTES || key_bits < 1 || key_bits > 64) return cudaErrorInvalidValue;
  const uint64_t used = key_bits == 64 ? ~uint64_t(0) : (uint64_t(1) << key_bits) - 1;
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), int64_t(0));
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return (keys[a] & used) < (keys[b] & used); });
  for (int64_t i = 0; i < count; ++i) {
    sorted_keys[i] = keys[order[i]];
    sorted_hits[i] = hits[order[i]];
  }
  return cudaSuccess;
}

}  // namespace sds3d
