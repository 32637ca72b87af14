// From splats to tile lists, and from summed gradient records back to splats. All views go through one sort.
#include "../cuda_launch.h"
#include "rasterize_gaussians_cuda.h"
#include "splat_math.h"

namespace sds3d {

namespace {

constexpr int DEPTH_BITS = 32;  // the low bits of a key

// Calls `act(x, y)` for the tiles of the box that the splat reaches, row by row.
template <class Act>
__device__ __forceinline__ void for_each_tile_reached(const Splat& splat, const TileBox& box, Act act) {
  for (int y = box.y0; y < box.y1; ++y) {
    for (int x = box.x0; x < box.x1; ++x) {
      if (reaches_tile(splat, x, y)) act(x, y);
    }
  }
}

__global__ void prepare_splats_kernel(RasterShape shape, SplatInputs in, Splat* splats, TileBox* boxes,
                                      int64_t* counts) {
  const int64_t k = int64_t(blockIdx.x) * THREADS + threadIdx.x, total = shape.views * shape.splats;
  if (k == total) counts[k] = 0;
  if (k >= total) return;
  TileBox box = {0, 0, 0, 0};
  if (prepare_splat(in.means2d + 2 * k, in.conics + 3 * k, in.opacities[k % shape.splats], in.radii + 2 * k,
                    in.depths[k], &splats[k])) {
    box = tile_box(splats[k], in.radii + 2 * k, shape.width, shape.height);
  }
  boxes[k] = box;
  int64_t count = 0;
  for_each_tile_reached(splats[k], box, [&](int, int) { ++count; });
  counts[k] = count;
}

__global__ void list_hits_kernel(RasterShape shape, const float* depths, const Splat* splats, const TileBox* boxes,
                                 const int64_t* offsets, int64_t capacity, int32_t* record_offsets, uint64_t* keys,
                                 TileHit* hits) {
  const int64_t k = int64_t(blockIdx.x) * THREADS + threadIdx.x, total = shape.views * shape.splats;
  if (k > total) return;
  int64_t slot = offsets[k];
  record_offsets[k] = int32_t(slot < capacity ? slot : capacity);
  if (k == total) return;
  const int64_t first_tile = k / shape.splats * shape.tiles();
  const TileBox box = boxes[k];
  const uint32_t depth = sortable_bits(depths[k]);
  for_each_tile_reached(splats[k], box, [&](int x, int y) {
    if (slot < capacity) {
      const uint64_t tile = uint64_t(first_tile + int64_t(y) * shape.tiles_x() + x);
      keys[slot] = tile << DEPTH_BITS | depth;
      hits[slot] = TileHit{int32_t(k), int32_t(slot)};
    }
    ++slot;
  });
}

__global__ void tile_offsets_kernel(int64_t tiles, const uint64_t* sorted_keys, int64_t total, int32_t* tile_offsets) {
  const int64_t tile = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (tile > tiles) return;
  int64_t low = 0, high = total;  // the first key of this tile or a later one
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (int64_t(sorted_keys[middle] >> DEPTH_BITS) < tile) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  tile_offsets[tile] = int32_t(low);
}

__global__ void splat_gradients_kernel(RasterShape shape, SplatInputs in, const int32_t* record_offsets,
                                       const float* records, bool per_hit, SplatGradients out) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= shape.splats) return;
  const int channels = shape.channels;
  float grad_opacity = 0.0f;
  for (int64_t view = 0; view < shape.views; ++view) {
    const int64_t k = view * shape.splats + i;
    const int64_t begin = record_offsets[k], end = record_offsets[k + 1];
    float *grad_mean = out.means2d + 2 * k, *grad_conic = out.conics + 3 * k, *grad = out.features + channels * k;
    // A culled splat may hold NaN; its gradient is an exact zero.
    if (begin == end) {
      for (int c = 0; c < 2; ++c) grad_mean[c] = 0.0f;
      for (int c = 0; c < 3; ++c) grad_conic[c] = 0.0f;
      for (int c = 0; c < channels; ++c) grad[c] = 0.0f;
      continue;
    }
    float sum[RECORD];
    for (int f = 0; f < RECORD; ++f) sum[f] = per_hit ? 0.0f : records[k * RECORD + f];
    for (int64_t r = begin; per_hit && r < end; ++r) {
      for (int f = 0; f < RECORD; ++f) sum[f] += records[r * RECORD + f];
    }
    grad_opacity += splat_gradients(sum, in.conics + 3 * k, in.opacities[i], channels, grad_mean, grad_conic, grad);
  }
  out.opacities[i] = grad_opacity;
}

}  // namespace

cudaError_t launch_prepare_splats(const RasterShape& shape, const SplatInputs& in, Splat* splats, TileBox* boxes,
                                  int64_t* counts, cudaStream_t stream) {
  const int64_t items = shape.views * shape.splats + 1;
  SDS3D_LAUNCH(prepare_splats_kernel, blocks_for(items), THREADS, stream, shape, in, splats, boxes, counts);
  return cudaGetLastError();
}

cudaError_t launch_list_hits(const RasterShape& shape, const float* depths, const TileBox* boxes,
                             const int64_t* offsets, int64_t capacity, const TileLists& lists, uint64_t* keys,
                             TileHit* hits, cudaStream_t stream) {
  const int64_t items = shape.views * shape.splats + 1;
  if (capacity > 0) {  // else there may be no memory to set
    const cudaError_t error = cudaMemsetAsync(keys, 0xff, capacity * sizeof(uint64_t), stream);
    if (error != cudaSuccess) return error;
  }
  SDS3D_LAUNCH(list_hits_kernel, blocks_for(items), THREADS, stream, shape, depths, lists.splats, boxes, offsets,
               capacity, lists.record_offsets, keys, hits);
  return cudaGetLastError();
}

int hit_key_bits(const RasterShape& shape) {
  int bits = DEPTH_BITS;
  for (int64_t tiles = shape.views * shape.tiles(); tiles > 0; tiles >>= 1) ++bits;
  return bits;
}

cudaError_t launch_tile_offsets(const RasterShape& shape, const uint64_t* sorted_keys, int64_t total,
                                int32_t* tile_offsets, cudaStream_t stream) {
  const int64_t tiles = shape.views * shape.tiles();
  SDS3D_LAUNCH(tile_offsets_kernel, blocks_for(tiles + 1), THREADS, stream, tiles, sorted_keys, total, tile_offsets);
  return cudaGetLastError();
}

cudaError_t launch_splat_gradients(const RasterShape& shape, const SplatInputs& in, const int32_t* record_offsets,
                                   const float* records, bool per_hit, const SplatGradients& out, cudaStream_t stream) {
  if (shape.splats == 0) return cudaSuccess;
  SDS3D_LAUNCH(splat_gradients_kernel, blocks_for(shape.splats), THREADS, stream, shape, in, record_offsets, records,
               per_hit, out);
  return cudaGetLastError();
}

}  // namespace sds3d
