// Outlines on CUDA; the formulas are those of the CPU.
#include "../exact_sums_cuda.h"
#include "outline_math.h"
#include "outlines_cuda.h"

namespace sds3d {

namespace {

// Hands `take` each crossing of one edge.
template <class Take>
__device__ __forceinline__ void crossings_of_edge(const TriangleShape& shape, const OutlineInputs& in, int64_t view,
                                                  int64_t edge, const Take& take) {
  const int32_t third = outline_corner(shape, in, view, edge);
  if (third < 0) return;
  for (int steep = 0; steep < 2; ++steep) {
    const OutlineWalk walk = outline_walk(shape, in, view, edge, third, steep == 1);
    Crossing crossing;
    for (int k = walk.first; k <= walk.last; ++k) {
      if (crossing_at(shape, in, walk, view, k, &crossing)) take(walk, crossing);
    }
  }
}

__global__ void count_crossings_kernel(TriangleShape shape, OutlineInputs in, int64_t edges, int64_t* counts) {
  const int64_t item = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (item > shape.views * edges) return;
  int64_t found = 0;
  if (item < shape.views * edges) {
    crossings_of_edge(shape, in, item / edges, item % edges, [&](const OutlineWalk&, const Crossing&) { ++found; });
  }
  counts[item] = found;
}

__global__ void write_crossings_kernel(TriangleShape shape, OutlineInputs in, int64_t edges, const int64_t* offsets,
                                       Crossings out) {
  const int64_t item = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (item >= shape.views * edges || offsets[item] == offsets[item + 1]) return;
  const int64_t view = item / edges;
  int64_t at = offsets[item];
  crossings_of_edge(shape, in, view, item % edges, [&](const OutlineWalk& walk, const Crossing& crossing) {
    write_crossing(out, at++, view, walk, crossing);
  });
}

template <class Add>
__global__ void blend_outlines_kernel(BlendShape shape, BlendInputs in, Add add) {
  const int64_t n = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (n < shape.crossings) blend_crossing(shape, in, n, add);
}

template <class Add>
__global__ void blend_color_gradient_kernel(BlendShape shape, BlendInputs in, const float* upstream, Add add) {
  const int64_t n = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (n < shape.crossings) blend_color_gradient(shape, in, upstream, n, add);
}

template <class Add>
__global__ void blend_point_gradient_kernel(BlendShape shape, BlendInputs in, const float* upstream, Add add) {
  const int64_t n = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (n < shape.crossings) blend_point_gradient(shape, in, upstream, n, add);
}

__global__ void add_kernel(const float* in, float* out, int64_t count) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i < count) out[i] += in[i];
}

}  // namespace

cudaError_t launch_count_crossings(const TriangleShape& shape, const OutlineInputs& in, int64_t edges, int64_t* counts,
                                   cudaStream_t stream) {
  const int64_t items = shape.views * edges + 1;
  SDS3D_LAUNCH(count_crossings_kernel, blocks_for(items), THREADS, stream, shape, in, edges, counts);
  return cudaGetLastError();
}

cudaError_t launch_write_crossings(const TriangleShape& shape, const OutlineInputs& in, int64_t edges,
                                   const int64_t* offsets, const Crossings& out, cudaStream_t stream) {
  const int64_t items = shape.views * edges;
  if (items == 0) return cudaSuccess;
  SDS3D_LAUNCH(write_crossings_kernel, blocks_for(items), THREADS, stream, shape, in, edges, offsets, out);
  return cudaGetLastError();
}

cudaError_t launch_blend_outlines(const BlendShape& shape, const BlendInputs& in, const ExactSums& sums,
                                  cudaStream_t stream) {
  if (shape.crossings == 0) return cudaSuccess;
  return launch_sums(sums, stream, [&](auto add) {
    SDS3D_LAUNCH(blend_outlines_kernel, blocks_for(shape.crossings), THREADS, stream, shape, in, add);
  });
}

cudaError_t launch_blend_color_gradient(const BlendShape& shape, const BlendInputs& in, const float* upstream,
                                        const ExactSums& sums, cudaStream_t stream) {
  if (shape.crossings == 0) return cudaSuccess;
  return launch_sums(sums, stream, [&](auto add) {
    SDS3D_LAUNCH(blend_color_gradient_kernel, blocks_for(shape.crossings), THREADS, stream, shape, in, upstream, add);
  });
}

cudaError_t launch_blend_point_gradient(const BlendShape& shape, const BlendInputs& in, const float* upstream,
                                        const ExactSums& sums, cudaStream_t stream) {
  if (shape.crossings == 0) return cudaSuccess;
  return launch_sums(sums, stream, [&](auto add) {
    SDS3D_LAUNCH(blend_point_gradient_kernel, blocks_for(shape.crossings), THREADS, stream, shape, in, upstream, add);
  });
}

cudaError_t launch_add(const float* in, float* out, int64_t count, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  SDS3D_LAUNCH(add_kernel, blocks_for(count), THREADS, stream, in, out, count);
  return cudaGetLastError();
}

}  // namespace sds3d
