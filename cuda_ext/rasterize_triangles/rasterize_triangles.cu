// Triangles on CUDA. A warp per view and face takes the pixels of the face's box; the nearest face of a pixel is the
// largest of 64-bit keys, the depth above and the face's index below, both inverted: the order of the threads does not
// matter.
#include "../exact_sums_cuda.h"
#include "rasterize_triangles_cuda.h"
#include "triangle_math.h"

namespace sds3d {

namespace {

__global__ void nearest_faces_kernel(TriangleShape shape, TriangleInputs in, unsigned long long* nearest) {
  const int64_t item = (int64_t(blockIdx.x) * THREADS + threadIdx.x) / WARP;
  if (item >= shape.views * shape.faces) return;
  const int64_t view = item / shape.faces, face = item % shape.faces;
  const Triangle t = triangle_at(shape, in, view, face);
  if (t.x0 > t.x1 || t.y0 > t.y1) return;
  const int width = t.x1 - t.x0 + 1;
  const int64_t box = int64_t(width) * (t.y1 - t.y0 + 1);
  for (int64_t k = threadIdx.x % WARP; k < box; k += WARP) {
    const int x = t.x0 + int(k % width), y = t.y0 + int(k / width);
    const Sample s = sample_at(t, float(x) + 0.5f, float(y) + 0.5f);
    if (!(s.depth < INFINITY)) continue;
    const unsigned long long key = (static_cast<unsigned long long>(~__float_as_uint(s.depth)) << 32) | ~unsigned(face);
    atomicMax(nearest + view * shape.pixels() + int64_t(y) * shape.width + x, key);
  }
}

__global__ void write_pixels_kernel(TriangleShape shape, TriangleInputs in, const unsigned long long* nearest,
                                    TriangleOutputs out) {
  const int64_t item = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (item >= shape.views * shape.pixels()) return;
  const int64_t view = item / shape.pixels(), pixel = item % shape.pixels();
  const unsigned long long key = nearest[item];
  const int32_t face = key == 0 ? -1 : int32_t(~unsigned(key & 0xffffffffu));
  Sample s = {{0.0f, 0.0f, 0.0f}, INFINITY};
  if (face >= 0) {
    s = sample_at(triangle_at(shape, in, view, face), float(pixel % shape.width) + 0.5f,
                  float(pixel / shape.width) + 0.5f);
  }
  out.face[item] = face;
  for (int i = 0; i < 3; ++i) out.barycentric[3 * item + i] = s.barycentric[i];
  out.depth[item] = s.depth;
}

template <class Add>
__global__ void triangle_gradient_kernel(TriangleShape shape, TriangleInputs in, const int32_t* face,
                                         const float* grad_barycentric, Add add) {
  const int64_t item = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (item >= shape.views * shape.pixels() || face[item] < 0) return;
  const int64_t view = item / shape.pixels(), pixel = item % shape.pixels();
  float result[3][3];
  pixel_gradient(triangle_at(shape, in, view, face[item]), float(pixel % shape.width) + 0.5f,
                 float(pixel / shape.width) + 0.5f, grad_barycentric + 3 * item, result);
  for (int i = 0; i < 3; ++i) {
    const int64_t vertex = view * shape.vertices + in.faces[3 * int64_t(face[item]) + i];
    for (int k = 0; k < 3; ++k) add(3 * vertex + k, result[i][k]);
  }
}

}  // namespace

cudaError_t launch_rasterize_triangles(const TriangleShape& shape, const TriangleInputs& in,
                                       unsigned long long* nearest, const TriangleOutputs& out, cudaStream_t stream) {
  const int64_t warps = shape.views * shape.faces, pixels = shape.views * shape.pixels();
  if (pixels == 0) return cudaSuccess;
  if (warps > 0) {
    SDS3D_LAUNCH(nearest_faces_kernel, blocks_for(warps * WARP), THREADS, stream, shape, in, nearest);
  }
  SDS3D_LAUNCH(write_pixels_kernel, blocks_for(pixels), THREADS, stream, shape, in, nearest, out);
  return cudaGetLastError();
}

cudaError_t launch_rasterize_triangles_backward(const TriangleShape& shape, const TriangleInputs& in,
                                                const int32_t* face, const float* grad_barycentric,
                                                const ExactSums& sums, cudaStream_t stream) {
  const int64_t pixels = shape.views * shape.pixels();
  return launch_sums(sums, stream, [&](auto add) {
    SDS3D_LAUNCH(triangle_gradient_kernel, blocks_for(pixels), THREADS, stream, shape, in, face, grad_barycentric, add);
  });
}

}  // namespace sds3d
