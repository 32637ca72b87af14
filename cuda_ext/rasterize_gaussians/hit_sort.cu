#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "hit_sort.h"

namespace sds3d {

cudaError_t hit_sort_scratch(int64_t count, size_t* bytes) {
  size_t scan = 0, sort = 0;
  const int64_t* sums = nullptr;
  const uint64_t* keys = nullptr;
  const TileHit* hits = nullptr;
  cudaError_t error = cub::DeviceScan::ExclusiveSum(nullptr, scan, sums, (int64_t*)nullptr, int(count));
  if (error != cudaSuccess) return error;
  error = cub::DeviceRadixSort::SortPairs(nullptr, sort, keys, (uint64_t*)nullptr, hits, (TileHit*)nullptr, int(count));
  *bytes = scan > sort ? scan : sort;
  return error;
}

cudaError_t exclusive_sum(void* scratch, size_t bytes, const int64_t* in, int64_t* out, int64_t count,
                          cudaStream_t stream) {
  return cub::DeviceScan::ExclusiveSum(scratch, bytes, in, out, int(count), stream);
}

cudaError_t sort_hits(void* scratch, size_t bytes, const uint64_t* keys, uint64_t* sorted_keys, const TileHit* hits,
                      TileHit* sorted_hits, int64_t count, int key_bits, cudaStream_t stream) {
  return cub::DeviceRadixSort::SortPairs(scratch, bytes, keys, sorted_keys, hits, sorted_hits, int(count), 0, key_bits,
                                         stream);
}

}  // namespace sds3d
