// The mesh operators on the CPU: checks, allocation and threading. Views, and in rasterize_triangles bands of rows, are
// shared out among the threads; what is added up is added up in one order, whatever their number.
#include <algorithm>

#include "cpu_features.h"
#include "mesh_arguments.h"

namespace sds3d {

namespace {

constexpr int64_t PIXEL_GRAIN = 4096;

const TriangleKernels& triangle_kernels() {
#if SDS3D_X86
  if (instruction_set() >= InstructionSet::AVX2) return TRIANGLE_KERNELS_AVX2;
#endif
  return TRIANGLE_KERNELS_BASELINE;
}

std::tuple<Tensor, Tensor, Tensor> rasterize_triangles_cpu(Tensor points, Tensor faces, int64_t height, int64_t width) {
  const TriangleArguments a(points, faces, height, width);
  const TriangleResults r(a);
  const int64_t threads = torch::stable::get_num_threads(), views = std::max<int64_t>(a.shape.views, 1);
  // Each band goes through all faces of its view, so there are only as many as threads need.
  const int64_t bands = std::clamp<int64_t>((threads + views - 1) / views, 1, height);
  const auto rasterize = triangle_kernels().forward;
  torch::stable::parallel_for(0, a.shape.views * bands, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t view = task / bands, band = task % bands;
      rasterize(a.shape, a.in, r.out, view, int(band * height / bands), int((band + 1) * height / bands));
    }
  });
  return {r.face, r.barycentric, r.depth};
}

Tensor rasterize_triangles_backward_cpu(Tensor points, Tensor faces, Tensor face, Tensor grad_barycentric,
                                        bool /*deterministic: on the CPU it always is*/) {
  require(face.dim() == 3, "face: expected [B, H, W]");
  const TriangleArguments a(points, faces, face.size(1), face.size(2));
  const Tensor seen = checked(face, "face", INT, {a.shape.views, a.shape.height, a.shape.width}, a.points);
  const Tensor grad =
      checked(grad_barycentric, "grad_barycentric", FLOAT, {a.shape.views, a.shape.height, a.shape.width, 3}, a.points);
  const Tensor grad_points = zeros({a.shape.views, a.shape.vertices, 3}, FLOAT, a.points);
  const auto backward = triangle_kernels().backward;
  torch::stable::parallel_for(0, a.shape.views, 1, [&](int64_t begin, int64_t end) {
    for (int64_t view = begin; view < end; ++view) {
      backward(a.shape, a.in, ints(seen), floats(grad), floats_out(grad_points), view);
    }
  });
  return grad_points;
}

Tensor interpolate_cpu(Tensor attributes, Tensor faces, Tensor face, Tensor barycentric) {
  const InterpolateArguments a(attributes, faces, face, barycentric);
  const Tensor out = empty({a.shape.views, face.size(1), face.size(2), a.shape.channels}, FLOAT, a.attributes);
  torch::stable::parallel_for(0, a.all_pixels(), PIXEL_GRAIN, [&](int64_t begin, int64_t end) {
    interpolate(a.shape, a.in, floats_out(out), begin, end);
  });
  return out;
}

// Attributes that all views share are added up by one thread, view after view.
std::tuple<Tensor, Tensor> interpolate_backward_cpu(Tensor attributes, Tensor faces, Tensor face, Tensor barycentric,
                                                    Tensor grad, bool for_attributes, bool for_barycentric,
                                                    bool /*deterministic*/) {
  const InterpolateArguments a(attributes, faces, face, barycentric);
  const int64_t h = face.size(1), w = face.size(2);
  const Tensor upstream = checked(grad, "grad", FLOAT, {a.shape.views, h, w, a.shape.channels}, a.attributes);
  const Tensor none = empty({0}, FLOAT, a.attributes);
  const Tensor grad_attributes = !for_attributes ? none
                                 : a.shape.shared
                                     ? zeros({a.shape.vertices, a.shape.channels}, FLOAT, a.attributes)
                                     : zeros({a.shape.views, a.shape.vertices, a.shape.channels}, FLOAT, a.attributes);
  const Tensor grad_barycentric = for_barycentric ? empty({a.shape.views, h, w, 3}, FLOAT, a.attributes) : none;
  const int64_t tasks = a.shape.shared && for_attributes ? 1 : std::max<int64_t>(a.shape.views, 1);
  const int64_t share = a.all_pixels() / tasks;
  torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    interpolate_backward(a.shape, a.in, floats(upstream), for_attributes ? floats_out(grad_attributes) : nullptr,
                         for_barycentric ? floats_out(grad_barycentric) : nullptr, begin * share, end * share);
  });
  return {grad_attributes, grad_barycentric};
}

std::tuple<Tensor, Tensor> outline_crossings_cpu(Tensor points, Tensor faces, Tensor edges, Tensor depth,
                                                 double tolerance) {
  const OutlineArguments a(points, faces, edges, depth, tolerance);
  const int64_t views = a.mesh.shape.views;
  std::vector<std::vector<int32_t>> index(views);
  std::vector<std::vector<float>> value(views);
  torch::stable::parallel_for(0, views, 1, [&](int64_t begin, int64_t end) {
    for (int64_t view = begin; view < end; ++view) {
      outline_crossings(a.mesh.shape, a.in, view, a.edges.size(0), &index[view], &value[view]);
    }
  });
  int64_t total = 0;
  for (const auto& part : index) total += int64_t(part.size()) / CROSSING_INTS;
  const Tensor all_index = empty({total, CROSSING_INTS}, INT, a.depth);
  const Tensor all_value = empty({total, CROSSING_FLOATS}, FLOAT, a.depth);
  int32_t* next_index = data<int32_t>(all_index);
  float* next_value = floats_out(all_value);
  for (int64_t view = 0; view < views; ++view) {
    next_index = std::copy(index[view].begin(), index[view].end(), next_index);
    next_value = std::copy(value[view].begin(), value[view].end(), next_value);
  }
  return {all_index, all_value};
}

// Crossings come in the order of views, so that each view's are one piece, and a thread's own.
template <class Function>
void for_each_view(const BlendArguments& a, const Function& function) {
  const auto first_of = [&](int64_t view) {
    int64_t low = 0, high = a.shape.crossings;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (a.in.index[middle * CROSSING_INTS] < view) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  torch::stable::parallel_for(0, a.views, 1, [&](int64_t begin, int64_t end) {
    for (int64_t view = begin; view < end; ++view) function(first_of(view), first_of(view + 1));
  });
}

Tensor blend_outlines_cpu(Tensor color, Tensor points, Tensor index, Tensor value, bool /*deterministic*/) {
  const BlendArguments a(color, points, index, value);
  const Tensor out = torch::stable::clone(a.color);
  for_each_view(a, [&](int64_t begin, int64_t end) { blend_outlines(a.shape, a.in, floats_out(out), begin, end); });
  return out;
}

std::tuple<Tensor, Tensor> blend_outlines_backward_cpu(Tensor color, Tensor points, Tensor index, Tensor value,
                                                       Tensor grad, bool for_color, bool for_points,
                                                       bool /*deterministic*/) {
  const BlendArguments a(color, points, index, value);
  const Tensor upstream =
      checked(grad, "grad", FLOAT, {a.views, a.color.size(1), a.color.size(2), a.shape.channels}, a.color);
  const Tensor none = empty({0}, FLOAT, a.color);
  const Tensor grad_color = for_color ? torch::stable::clone(upstream) : none;
  const Tensor grad_points = for_points ? zeros({a.views, a.shape.vertices, 3}, FLOAT, a.color) : none;
  for_each_view(a, [&](int64_t begin, int64_t end) {
    blend_outlines_backward(a.shape, a.in, floats(upstream), for_color ? floats_out(grad_color) : nullptr,
                            for_points ? floats_out(grad_points) : nullptr, begin, end);
  });
  return {grad_color, grad_points};
}

}  // namespace

}  // namespace sds3d

STABLE_TORCH_LIBRARY_IMPL(sds3d, CPU, m) {
  m.impl("rasterize_triangles", TORCH_BOX(&sds3d::rasterize_triangles_cpu));
  m.impl("rasterize_triangles_backward", TORCH_BOX(&sds3d::rasterize_triangles_backward_cpu));
  m.impl("interpolate", TORCH_BOX(&sds3d::interpolate_cpu));
  m.impl("interpolate_backward", TORCH_BOX(&sds3d::interpolate_backward_cpu));
  m.impl("outline_crossings", TORCH_BOX(&sds3d::outline_crossings_cpu));
  m.impl("blend_outlines", TORCH_BOX(&sds3d::blend_outlines_cpu));
  m.impl("blend_outlines_backward", TORCH_BOX(&sds3d::blend_outlines_backward_cpu));
}
