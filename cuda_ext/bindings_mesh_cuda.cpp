// The mesh operators on CUDA: checks, allocation and order of launches on torch's current stream.
#include "cuda_glue.h"
#include "interpolate/interpolate_cuda.h"
#include "mesh_arguments.h"
#include "outlines/outlines_cuda.h"
#include "rasterize_gaussians/hit_sort.h"
#include "rasterize_triangles/rasterize_triangles_cuda.h"

namespace sds3d {

namespace {

// A zeroed result, and what it takes to sum into it.
struct Sums {
  Tensor values, whole, largest;
  ExactSums pointers;

  Sums(const std::vector<int64_t>& shape, bool deterministic, const Tensor& like) : values(zeros(shape, FLOAT, like)) {
    pointers = {floats_out(values), nullptr, nullptr, values.numel()};
    if (!deterministic) return;
    whole = zeros(shape, LONG, like);
    largest = zeros({1}, INT, like);
    pointers.whole = data<unsigned long long>(whole);
    pointers.largest = data<unsigned>(largest);
  }
};

std::tuple<Tensor, Tensor, Tensor> rasterize_triangles_cuda(Tensor points, Tensor faces, int64_t height,
                                                            int64_t width) {
  const TriangleArguments a(points, faces, height, width);
  const TriangleResults r(a);
  const OnDevice on(a.points);
  const Tensor nearest = zeros({a.shape.views, a.shape.height, a.shape.width}, LONG, a.points);
  check(launch_rasterize_triangles(a.shape, a.in, data<unsigned long long>(nearest), r.out, on.stream),
        "rasterize_triangles");
  return {r.face, r.barycentric, r.depth};
}

Tensor rasterize_triangles_backward_cuda(Tensor points, Tensor faces, Tensor face, Tensor grad_barycentric,
                                         bool deterministic) {
  require(face.dim() == 3, "face: expected [B, H, W]");
  const TriangleArguments a(points, faces, face.size(1), face.size(2));
  const Tensor seen = checked(face, "face", INT, {a.shape.views, a.shape.height, a.shape.width}, a.points);
  const Tensor grad =
      checked(grad_barycentric, "grad_barycentric", FLOAT, {a.shape.views, a.shape.height, a.shape.width, 3}, a.points);
  const OnDevice on(a.points);
  const Sums sums({a.shape.views, a.shape.vertices, 3}, deterministic, a.points);
  check(launch_rasterize_triangles_backward(a.shape, a.in, ints(seen), floats(grad), sums.pointers, on.stream),
        "rasterize_triangles_backward");
  return sums.values;
}

Tensor interpolate_cuda(Tensor attributes, Tensor faces, Tensor face, Tensor barycentric) {
  const InterpolateArguments a(attributes, faces, face, barycentric);
  const Tensor out = empty({a.shape.views, face.size(1), face.size(2), a.shape.channels}, FLOAT, a.attributes);
  const OnDevice on(a.attributes);
  check(launch_interpolate(a.shape, a.in, floats_out(out), on.stream), "interpolate");
  return out;
}

std::tuple<Tensor, Tensor> interpolate_backward_cuda(Tensor attributes, Tensor faces, Tensor face, Tensor barycentric,
                                                     Tensor grad, bool for_attributes, bool for_barycentric,
                                                     bool deterministic) {
  const InterpolateArguments a(attributes, faces, face, barycentric);
  const int64_t h = face.size(1), w = face.size(2);
  const Tensor upstream = checked(grad, "grad", FLOAT, {a.shape.views, h, w, a.shape.channels}, a.attributes);
  const OnDevice on(a.attributes);
  const Tensor none = empty({0}, FLOAT, a.attributes);
  Tensor grad_attributes = none, grad_barycentric = none;
  if (for_attributes) {
    std::vector<int64_t> size = {a.shape.vertices, a.shape.channels};
    if (!a.shape.shared) size.insert(size.begin(), a.shape.views);
    const Sums sums(size, deterministic, a.attributes);
    check(launch_attribute_gradient(a.shape, a.in, floats(upstream), sums.pointers, on.stream), "interpolate_backward");
    grad_attributes = sums.values;
  }
  if (for_barycentric) {
    grad_barycentric = empty({a.shape.views, h, w, 3}, FLOAT, a.attributes);
    check(launch_barycentric_gradient(a.shape, a.in, floats(upstream), floats_out(grad_barycentric), on.stream),
          "interpolate_backward");
  }
  return {grad_attributes, grad_barycentric};
}

// Waits for the device once: the number of crossings decides how much memory they take.
std::tuple<Tensor, Tensor> outline_crossings_cuda(Tensor points, Tensor faces, Tensor edges, Tensor depth,
                                                  double tolerance) {
  const OutlineArguments a(points, faces, edges, depth, tolerance);
  const int64_t count = a.edges.size(0), items = a.mesh.shape.views * count;
  const char* what = "outline_crossings";
  const OnDevice on(a.depth);
  const Tensor counts = empty({items + 1}, LONG, a.depth), offsets = empty({items + 1}, LONG, a.depth);
  check(launch_count_crossings(a.mesh.shape, a.in, count, data<int64_t>(counts), on.stream), what);
  size_t bytes = 0;
  check(hit_sort_scratch(items + 1, &bytes), what);
  const Tensor scratch = empty({int64_t(bytes)}, ScalarType::Byte, a.depth);
  check(exclusive_sum(data<void>(scratch), bytes, data<int64_t>(counts), data<int64_t>(offsets), items + 1, on.stream),
        what);
  int64_t total = 0;
  check(cudaMemcpyAsync(&total, data<int64_t>(offsets) + items, sizeof(total), cudaMemcpyDeviceToHost, on.stream),
        what);
  check(cudaStreamSynchronize(on.stream), what);
  const Tensor index = empty({total, CROSSING_INTS}, INT, a.depth);
  const Tensor value = empty({total, CROSSING_FLOATS}, FLOAT, a.depth);
  const Crossings out = {data<int32_t>(index), floats_out(value)};
  check(launch_write_crossings(a.mesh.shape, a.in, count, data<int64_t>(offsets), out, on.stream), what);
  return {index, value};
}

Tensor blend_outlines_cuda(Tensor color, Tensor points, Tensor index, Tensor value, bool deterministic) {
  const BlendArguments a(color, points, index, value);
  const OnDevice on(a.color);
  const Sums sums({a.views, color.size(1), color.size(2), a.shape.channels}, deterministic, a.color);
  check(launch_blend_outlines(a.shape, a.in, sums.pointers, on.stream), "blend_outlines");
  check(launch_add(a.in.color, sums.pointers.values, sums.pointers.count, on.stream), "blend_outlines");
  return sums.values;
}

std::tuple<Tensor, Tensor> blend_outlines_backward_cuda(Tensor color, Tensor points, Tensor index, Tensor value,
                                                        Tensor grad, bool for_color, bool for_points,
                                                        bool deterministic) {
  const BlendArguments a(color, points, index, value);
  const Tensor upstream =
      checked(grad, "grad", FLOAT, {a.views, a.color.size(1), a.color.size(2), a.shape.channels}, a.color);
  const char* what = "blend_outlines_backward";
  const OnDevice on(a.color);
  const Tensor none = empty({0}, FLOAT, a.color);
  Tensor grad_color = none, grad_points = none;
  if (for_color) {
    const Sums sums({a.views, color.size(1), color.size(2), a.shape.channels}, deterministic, a.color);
    check(launch_blend_color_gradient(a.shape, a.in, floats(upstream), sums.pointers, on.stream), what);
    check(launch_add(floats(upstream), sums.pointers.values, sums.pointers.count, on.stream), what);
    grad_color = sums.values;
  }
  if (for_points) {
    const Sums sums({a.views, a.shape.vertices, 3}, deterministic, a.color);
    check(launch_blend_point_gradient(a.shape, a.in, floats(upstream), sums.pointers, on.stream), what);
    grad_points = sums.values;
  }
  return {grad_color, grad_points};
}

}  // namespace

}  // namespace sds3d

STABLE_TORCH_LIBRARY_IMPL(sds3d, CUDA, m) {
  m.impl("rasterize_triangles", TORCH_BOX(&sds3d::rasterize_triangles_cuda));
  m.impl("rasterize_triangles_backward", TORCH_BOX(&sds3d::rasterize_triangles_backward_cuda));
  m.impl("interpolate", TORCH_BOX(&sds3d::interpolate_cuda));
  m.impl("interpolate_backward", TORCH_BOX(&sds3d::interpolate_backward_cuda));
  m.impl("outline_crossings", TORCH_BOX(&sds3d::outline_crossings_cuda));
  m.impl("blend_outlines", TORCH_BOX(&sds3d::blend_outlines_cuda));
  m.impl("blend_outlines_backward", TORCH_BOX(&sds3d::blend_outlines_backward_cuda));
}
