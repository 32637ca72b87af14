// The pixel loops on CUDA: a block is a tile, a thread a pixel, and the splats of a tile pass through shared memory in
// batches as large as the block.
#include "../cuda_launch.h"
#include "rasterize_gaussians_cuda.h"
#include "splat_math.h"

namespace sds3d {

namespace {

constexpr int PIXELS = TILE * TILE;  // threads per block, and splats per batch
constexpr int WARPS = PIXELS / WARP;
constexpr int SLOTS = PIXELS / RECORD;  // hits whose records a block adds up together, a thread per field

template <int C>
struct Batch {
  Splat splats[PIXELS];
  float features[PIXELS][C];
  int32_t record[PIXELS];  // where each gradient record goes
};

struct Pixel {
  int64_t view, index;  // index into [B, H, W], flattened
  bool inside;          // the last row and column of tiles may be cut off
  int x, y;             // in the tile
  float left, top;      // centre of the tile's first pixel

  __device__ Pixel(const RasterShape& shape, int64_t tile, int thread) : x(thread % TILE), y(thread / TILE) {
    view = tile / shape.tiles();
    const int64_t in_view = tile % shape.tiles();
    const int64_t column = in_view % shape.tiles_x() * TILE, row = in_view / shape.tiles_x() * TILE;
    left = float(column) + 0.5f;
    top = float(row) + 0.5f;
    inside = column + x < shape.width && row + y < shape.height;
    index = (view * shape.height + row + y) * shape.width + column + x;
  }

  // From the splat's mean to this pixel, rounded as the CPU kernels do.
  __device__ float dx(const Splat& splat) const { return float(x) + (left - splat.x); }
  __device__ float dy(const Splat& splat) const { return float(y) + (top - splat.y); }
};

__device__ __forceinline__ float log2_alpha_at(const Splat& splat, float dx, float dy) {
  const float q = dy * splat.rise;
  return log2_alpha(dx * splat.slope + dy * splat.shear, fnma(q, q, splat.log2_opacity));
}

// One hit per thread; returns how many there are. The caller synchronizes before and after. Records are one per hit, or
// one per splat that all its hits add to.
template <int C, bool PER_HIT>
__device__ __forceinline__ int load_batch(const Features& features, const TileLists& lists, int32_t begin, int32_t end,
                                          Batch<C>* batch) {
  const int thread = threadIdx.x, count = end - begin < PIXELS ? end - begin : PIXELS;
  if (thread < count) {
    const TileHit hit = lists.hits[begin + thread];
    const int32_t index = hit.splat;
    batch->record[thread] = PER_HIT ? hit.record : hit.splat;
    batch->splats[thread] = lists.splats[index];
    for (int c = 0; c < C; ++c) batch->features[thread][c] = features.at(int64_t(index) * C + c);
  }
  return count;
}

template <int C>
__global__ void __launch_bounds__(PIXELS)
    rasterize_forward_kernel(RasterShape shape, Features features, TileLists lists, const int64_t* needed,
                             int64_t capacity, RasterImages out) {
  __shared__ Batch<C> batch;
  const Pixel pixel(shape, blockIdx.x, threadIdx.x);
  float transmittance = pixel.inside ? 1.0f : -1.0f;  // negative: the pixel has ended
  float color[C];
  for (int c = 0; c < C; ++c) color[c] = 0.0f;

  const int32_t end = lists.tile_offsets[blockIdx.x + 1];
  for (int32_t begin = lists.tile_offsets[blockIdx.x]; begin < end; begin += PIXELS) {
    if (__syncthreads_count(transmittance > 0.0f) == 0) break;  // and all have left the previous batch
    const int count = load_batch<C, false>(features, lists, begin, end, &batch);
    __syncthreads();
    for (int j = 0; j < count && transmittance > 0.0f; ++j) {
      const Splat splat = batch.splats[j];
      const float power = log2_alpha_at(splat, pixel.dx(splat), pixel.dy(splat));
      const bool hit = is_hit(power, transmittance);
      if (!hit) continue;
      const auto b = blend(power, transmittance, hit);
      transmittance = next_transmittance(b, transmittance);
      for (int c = 0; c < C; ++c) color[c] = fma(b.weight, batch.features[j][c], color[c]);
    }
  }

  if (!pixel.inside) return;
  const float rest = *needed > capacity ? NAN : ::fabsf(transmittance);
  out.transmittance[pixel.index] = rest;
  for (int c = 0; c < C; ++c) {
    out.image[pixel.index * C + c] = color[c] + rest * out.background[pixel.view * C + c];
  }
}

__device__ __forceinline__ float warp_sum(float value) {
  for (int offset = WARP / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(FULL_WARP, value, offset);
  return value;
}

// Adds up the warp's records: lane f gets the sum of field f.
template <int C>
__device__ __forceinline__ float sum_record(const float (&fields)[SUM_FEATURES + C]) {
  const int lane = threadIdx.x % WARP;
  float mine = 0.0f;
  for (int f = 0; f < SUM_FEATURES + C; ++f) {
    const float sum = warp_sum(fields[f]);
    if (lane == f) mine = sum;
  }
  return mine;
}

// What the warps of a block found for the last hits, [warp][hit][field].
struct WarpSums {
  float of[WARPS][SLOTS][RECORD];
};

// Adds the warps' sums up in their order and writes `count` records, those of hits first, first + 1, ... of the batch.
__device__ __forceinline__ void write_records(const WarpSums& sums, const int32_t* record, int first, int count,
                                              float* records) {
  __syncthreads();
  const int slot = threadIdx.x / RECORD, field = threadIdx.x % RECORD;
  if (slot < count) {
    float sum = 0.0f;
    for (int w = 0; w < WARPS; ++w) sum += sums.of[w][slot][field];
    records[int64_t(record[first + slot]) * RECORD + field] = sum;
  }
  __syncthreads();
}

// Front to back, replaying the forward pass: nothing per pixel and splat is stored between the two. Warps add to their
// splat's record with atomics, in whatever order they come; with PER_HIT a block writes each hit's record once instead.
template <int C, bool PER_HIT>
__global__ void __launch_bounds__(PIXELS)
    rasterize_backward_kernel(RasterShape shape, Features features, TileLists lists, RasterGradients grad) {
  __shared__ Batch<C> batch;
  __shared__ WarpSums sums;
  constexpr int FIELDS = SUM_FEATURES + C;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const Pixel pixel(shape, blockIdx.x, threadIdx.x);
  float transmittance = pixel.inside ? 1.0f : -1.0f;
  float ahead = 0.0f, upstream[C];  // ahead: what is to come of <image, upstream>, see grad_log_alpha
  for (int c = 0; c < C; ++c) upstream[c] = 0.0f;
  if (pixel.inside) {
    ahead = grad.transmittance[pixel.index] * grad.grad_transmittance[pixel.index];
    for (int c = 0; c < C; ++c) {
      upstream[c] = grad.grad_image[pixel.index * C + c];
      ahead += grad.image[pixel.index * C + c] * upstream[c];
    }
  }

  const int32_t end = lists.tile_offsets[blockIdx.x + 1];
  for (int32_t begin = lists.tile_offsets[blockIdx.x]; begin < end; begin += PIXELS) {
    if (__syncthreads_count(transmittance > 0.0f) == 0) break;
    const int count = load_batch<C, PER_HIT>(features, lists, begin, end, &batch);
    __syncthreads();
    // All lanes stay in the loop, whether their pixel has ended or not: they add up records together.
    for (int j = 0; j < count; ++j) {
      const Splat splat = batch.splats[j];
      const float dx = pixel.dx(splat), dy = pixel.dy(splat), power = log2_alpha_at(splat, dx, dy);
      const bool hit = is_hit(power, transmittance), some = __any_sync(FULL_WARP, hit);
      float mine = 0.0f;
      if (some) {
        const auto b = blend(power, transmittance, hit);
        transmittance = next_transmittance(b, transmittance);
        float fields[FIELDS], dot = 0.0f;
        for (int c = 0; c < C; ++c) {
          dot = fma(upstream[c], batch.features[j][c], dot);
          fields[SUM_FEATURES + c] = upstream[c] * b.weight;
        }
        dot = dot * b.weight;
        ahead -= dot;
        const float g = grad_log_alpha(b, dot, ahead);
        fields[SUM_G] = g;
        fields[SUM_GX] = g * dx;
        fields[SUM_GXX] = g * dx * dx;
        fields[SUM_GY] = g * dy;
        fields[SUM_GXY] = g * dx * dy;
        fields[SUM_GYY] = g * dy * dy;
        mine = sum_record<C>(fields);
      }
      if (!PER_HIT) {
        if (some && lane < FIELDS) atomicAdd(grad.records + int64_t(batch.record[j]) * RECORD + lane, mine);
        continue;
      }
      if (lane < RECORD) sums.of[warp][j % SLOTS][lane] = mine;
      const int waiting = j % SLOTS + 1;
      if (waiting == SLOTS || j + 1 == count) {
        write_records(sums, batch.record, j + 1 - waiting, waiting, grad.records);
      }
    }
  }
}

template <int C>
cudaError_t forward(const RasterShape& shape, const Features& features, const TileLists& lists, const int64_t* needed,
                    int64_t capacity, const RasterImages& out, cudaStream_t stream) {
  SDS3D_LAUNCH(rasterize_forward_kernel<C>, unsigned(shape.views * shape.tiles()), PIXELS, stream, shape, features,
               lists, needed, capacity, out);
  return cudaGetLastError();
}

template <int C>
cudaError_t backward(const RasterShape& shape, const Features& features, const TileLists& lists,
                     const RasterGradients& grad, bool per_hit, cudaStream_t stream) {
  const unsigned blocks = unsigned(shape.views * shape.tiles());
  if (per_hit) {
    SDS3D_LAUNCH((rasterize_backward_kernel<C, true>), blocks, PIXELS, stream, shape, features, lists, grad);
  } else {
    SDS3D_LAUNCH((rasterize_backward_kernel<C, false>), blocks, PIXELS, stream, shape, features, lists, grad);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_rasterize_forward(const RasterShape& shape, const Features& features, const TileLists& lists,
                                     const int64_t* needed, int64_t capacity, const RasterImages& out,
                                     cudaStream_t stream) {
  if (shape.views == 0) return cudaSuccess;
  if (shape.channels == 3) return forward<3>(shape, features, lists, needed, capacity, out, stream);
  if (shape.channels == 4) return forward<4>(shape, features, lists, needed, capacity, out, stream);
  if (shape.channels == 5) return forward<5>(shape, features, lists, needed, capacity, out, stream);
  return forward<8>(shape, features, lists, needed, capacity, out, stream);
}

cudaError_t launch_rasterize_backward(const RasterShape& shape, const Features& features, const TileLists& lists,
                                      const RasterGradients& grad, bool per_hit, cudaStream_t stream) {
  if (shape.views == 0) return cudaSuccess;
  if (shape.channels == 3) return backward<3>(shape, features, lists, grad, per_hit, stream);
  if (shape.channels == 4) return backward<4>(shape, features, lists, grad, per_hit, stream);
  if (shape.channels == 5) return backward<5>(shape, features, lists, grad, per_hit, stream);
  return backward<8>(shape, features, lists, grad, per_hit, stream);
}

}  // namespace sds3d
