// Hash encoding on CUDA; where corners lie is decided by the functions that the CPU uses.
#include "../cuda_launch.h"
#include "hash_encode_cuda.h"
#include "hash_math.h"

namespace sds3d {

namespace {

constexpr int CORNERS = 8;  // bit 2: x, bit 1: y, bit 0: z

struct Cell {
  Place x, y, z;

  __device__ __forceinline__ float weight(int k) const {
    return ((k & 4) != 0 ? x.above : 1.0f - x.above) * ((k & 2) != 0 ? y.above : 1.0f - y.above) *
           ((k & 1) != 0 ? z.above : 1.0f - z.above);
  }
  __device__ __forceinline__ int64_t entry(const HashLevel& level, int k) const {
    return level.first + corner_entry(level, x.low + ((k >> 2) & 1), y.low + ((k >> 1) & 1), z.low + (k & 1));
  }
};

__device__ __forceinline__ Cell cell_of(const float* point, const HashLevel& level) {
  return {place_of(point[0], level.cells), place_of(point[1], level.cells), place_of(point[2], level.cells)};
}

__global__ void hash_forward_kernel(HashShape shape, HashInputs in, float* out) {
  const int64_t item = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (item >= shape.points * shape.levels) return;
  const int64_t i = item % shape.points;
  const int l = int(item / shape.points), features = shape.features;
  const Cell cell = cell_of(in.points + 3 * i, shape.level[l]);
  float sum[MAX_FEATURES];
  for (int f = 0; f < features; ++f) sum[f] = 0.0f;
  for (int k = 0; k < CORNERS; ++k) {
    const float* entry = in.table + cell.entry(shape.level[l], k) * features;
    const float weight = cell.weight(k);
    for (int f = 0; f < features; ++f) sum[f] += weight * entry[f];
  }
  for (int f = 0; f < features; ++f) out[(i * shape.levels + l) * features + f] = sum[f];
}

struct AddFloats {
  float* table;
  __device__ __forceinline__ void operator()(int64_t at, float value) const { atomicAdd(table + at, value); }
};

struct AddWhole {
  unsigned long long* sums;  // atomics on 64 bits are unsigned; two's complement adds alike
  double scale;
  __device__ __forceinline__ void operator()(int64_t at, float value) const {
    const long long whole = ::llrint(double(value) * scale);
    atomicAdd(sums + at, static_cast<unsigned long long>(whole));
  }
};

template <class Add>
__global__ void hash_table_gradient_kernel(HashShape shape, const float* points, const float* grad, Add add) {
  const int64_t item = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (item >= shape.points * shape.levels) return;
  const int64_t i = item % shape.points;
  const int l = int(item / shape.points), features = shape.features;
  const Cell cell = cell_of(points + 3 * i, shape.level[l]);
  const float* upstream = grad + (i * shape.levels + l) * features;
  for (int k = 0; k < CORNERS; ++k) {
    const int64_t at = cell.entry(shape.level[l], k) * features;
    const float weight = cell.weight(k);
    for (int f = 0; f < features; ++f) add(at + f, weight * upstream[f]);
  }
}

__global__ void hash_whole_to_floats_kernel(const int64_t* sums, double scale, int64_t count, float* out) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i < count) out[i] = float(double(sums[i]) / scale);
}

__global__ void hash_point_gradient_kernel(HashShape shape, HashInputs in, const float* grad, float* grad_points) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= shape.points) return;
  float sum[3] = {0.0f, 0.0f, 0.0f};
  for (int l = 0; l < shape.levels; ++l) {
    const Cell cell = cell_of(in.points + 3 * i, shape.level[l]);
    const float* upstream = grad + (i * shape.levels + l) * shape.features;
    float value[CORNERS];  // <upstream, entry>
    for (int k = 0; k < CORNERS; ++k) {
      const float* entry = in.table + cell.entry(shape.level[l], k) * shape.features;
      value[k] = 0.0f;
      for (int f = 0; f < shape.features; ++f) value[k] += upstream[f] * entry[f];
    }
    add_point_gradient(value, cell.x, cell.y, cell.z, float(shape.level[l].cells), sum);
  }
  for (int c = 0; c < 3; ++c) grad_points[3 * i + c] = sum[c];
}

}  // namespace

cudaError_t launch_hash_forward(const HashShape& shape, const HashInputs& in, float* out, cudaStream_t stream) {
  const int64_t items = shape.points * shape.levels;
  if (items == 0) return cudaSuccess;
  SDS3D_LAUNCH(hash_forward_kernel, blocks_for(items), THREADS, stream, shape, in, out);
  return cudaGetLastError();
}

cudaError_t launch_hash_table_gradient(const HashShape& shape, const float* points, const float* grad,
                                       float* grad_table, cudaStream_t stream) {
  const int64_t items = shape.points * shape.levels;
  if (items == 0) return cudaSuccess;
  const AddFloats add = {grad_table};
  SDS3D_LAUNCH(hash_table_gradient_kernel, blocks_for(items), THREADS, stream, shape, points, grad, add);
  return cudaGetLastError();
}

cudaError_t launch_hash_table_gradient_exact(const HashShape& shape, const float* points, const float* grad,
                                             double scale, int64_t entries, int64_t* sums, float* grad_table,
                                             cudaStream_t stream) {
  const int64_t items = shape.points * shape.levels, count = entries * shape.features;
  if (count == 0) return cudaSuccess;
  if (items > 0) {
    const AddWhole add = {reinterpret_cast<unsigned long long*>(sums), scale};
    SDS3D_LAUNCH(hash_table_gradient_kernel, blocks_for(items), THREADS, stream, shape, points, grad, add);
  }
  SDS3D_LAUNCH(hash_whole_to_floats_kernel, blocks_for(count), THREADS, stream, sums, scale, count, grad_table);
  return cudaGetLastError();
}

cudaError_t launch_hash_point_gradient(const HashShape& shape, const HashInputs& in, const float* grad,
                                       float* grad_points, cudaStream_t stream) {
  if (shape.points == 0) return cudaSuccess;
  SDS3D_LAUNCH(hash_point_gradient_kernel, blocks_for(shape.points), THREADS, stream, shape, in, grad, grad_points);
  return cudaGetLastError();
}

}  // namespace sds3d
