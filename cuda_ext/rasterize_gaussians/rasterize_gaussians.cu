// The pixel loops on CUDA: a block is a tile, a thread a pixel, and the splats of a tile pass through shared memory in
// batches as large as the block.
#include "../cuda_launch.h"
#include "rasterize_gaussians_cuda.h"
#include "splat_math.h"

namespace sds3d {

namespace {

constexpr int PIXELS = TILE * TILE;  // threads per block, and splats per batch

template <int C>
struct Batch {
  Splat splats[PIXELS];
  float features[PIXELS][C];
  int32_t index[PIXELS];  // into [B, N], flattened
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

// One hit per thread; returns how many there are. The caller synchronizes before and after.
template <int C>
__device__ __forceinline__ int load_batch(const float* features, const TileLists& lists, int32_t begin, int32_t end,
                                          Batch<C>* batch) {
  const int thread = threadIdx.x, count = end - begin < PIXELS ? end - begin : PIXELS;
  if (thread < count) {
    const int32_t index = lists.hits[begin + thread].splat;
    batch->index[thread] = index;
    batch->splats[thread] = lists.splats[index];
    for (int c = 0; c < C; ++c) batch->features[thread][c] = features[int64_t(index) * C + c];
  }
  return count;
}

template <int C>
__global__ void __launch_bounds__(PIXELS)
    rasterize_forward_kernel(RasterShape shape, const float* features, TileLists lists, RasterImages out) {
  __shared__ Batch<C> batch;
  const Pixel pixel(shape, blockIdx.x, threadIdx.x);
  float transmittance = pixel.inside ? 1.0f : -1.0f;  // negative: the pixel has ended
  float color[C];
  for (int c = 0; c < C; ++c) color[c] = 0.0f;

  const int32_t end = lists.tile_offsets[blockIdx.x + 1];
  for (int32_t begin = lists.tile_offsets[blockIdx.x]; begin < end; begin += PIXELS) {
    if (__syncthreads_count(transmittance > 0.0f) == 0) break;  // and all have left the previous batch
    const int count = load_batch<C>(features, lists, begin, end, &batch);
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
  const float rest = ::fabsf(transmittance);
  out.transmittance[pixel.index] = rest;
  for (int c = 0; c < C; ++c) {
    out.image[pixel.index * C + c] = color[c] + rest * out.background[pixel.view * C + c];
  }
}

__device__ __forceinline__ float warp_sum(float value) {
  for (int offset = WARP / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(FULL_WARP, value, offset);
  return value;
}

// Adds up the warp's records; lane f then adds field f to the splat's record, so that one instruction adds them all.
template <int C>
__device__ __forceinline__ void add_record(const float (&fields)[SUM_FEATURES + C], float* record) {
  const int lane = threadIdx.x % WARP;
  float mine = 0.0f;
  for (int f = 0; f < SUM_FEATURES + C; ++f) {
    const float sum = warp_sum(fields[f]);
    if (lane == f) mine = sum;
  }
  if (lane < SUM_FEATURES + C) atomicAdd(record + lane, mine);
}

// Front to back, replaying the forward pass: nothing per pixel and splat is stored between the two.
template <int C>
__global__ void __launch_bounds__(PIXELS)
    rasterize_backward_kernel(RasterShape shape, const float* features, TileLists lists, RasterGradients grad) {
  __shared__ Batch<C> batch;
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
    const int count = load_batch<C>(features, lists, begin, end, &batch);
    __syncthreads();
    // All lanes stay in the loop, whether their pixel has ended or not: they add up records together.
    for (int j = 0; j < count; ++j) {
      const Splat splat = batch.splats[j];
      const float dx = pixel.dx(splat), dy = pixel.dy(splat), power = log2_alpha_at(splat, dx, dy);
      const bool hit = is_hit(power, transmittance);
      if (!__any_sync(FULL_WARP, hit)) continue;
      const auto b = blend(power, transmittance, hit);
      transmittance = next_transmittance(b, transmittance);
      float fields[SUM_FEATURES + C], dot = 0.0f;
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
      add_record<C>(fields, grad.records + int64_t(batch.index[j]) * RECORD);
    }
  }
}

template <int C>
cudaError_t forward(const RasterShape& shape, const float* features, const TileLists& lists, const RasterImages& out,
                    cudaStream_t stream) {
  SDS3D_LAUNCH(rasterize_forward_kernel<C>, unsigned(shape.views * shape.tiles()), PIXELS, stream, shape, features,
               lists, out);
  return cudaGetLastError();
}

template <int C>
cudaError_t backward(const RasterShape& shape, const float* features, const TileLists& lists,
                     const RasterGradients& grad, cudaStream_t stream) {
  SDS3D_LAUNCH(rasterize_backward_kernel<C>, unsigned(shape.views * shape.tiles()), PIXELS, stream, shape, features,
               lists, grad);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_rasterize_forward(const RasterShape& shape, const float* features, const TileLists& lists,
                                     const RasterImages& out, cudaStream_t stream) {
  if (shape.views == 0) return cudaSuccess;
  if (shape.channels == 3) return forward<3>(shape, features, lists, out, stream);
  if (shape.channels == 4) return forward<4>(shape, features, lists, out, stream);
  return forward<7>(shape, features, lists, out, stream);
}

cudaError_t launch_rasterize_backward(const RasterShape& shape, const float* features, const TileLists& lists,
                                      const RasterGradients& grad, cudaStream_t stream) {
  if (shape.views == 0) return cudaSuccess;
  if (shape.channels == 3) return backward<3>(shape, features, lists, grad, stream);
  if (shape.channels == 4) return backward<4>(shape, features, lists, grad, stream);
  return backward<7>(shape, features, lists, grad, stream);
}

}  // namespace sds3d
