// Projection on the CPU: a splat at a time, all its views, so that its gradients need no second pass.
#include <algorithm>
#include <vector>

#include "projection_math.h"

namespace sds3d {

namespace {

std::vector<View> load_views(const ProjectShape& shape, const ProjectInputs& in) {
  std::vector<View> views(shape.views);
  for (int64_t b = 0; b < shape.views; ++b) {
    views[b] = load_view(in.camera_to_world + 16 * b, in.intrinsics + 9 * b, shape.height, shape.width);
  }
  return views;
}

}  // namespace

void project_forward(const ProjectShape& shape, const ProjectInputs& in, const ProjectOutputs& out, int64_t begin,
                     int64_t end) {
  const std::vector<View> views = load_views(shape, in);
  for (int64_t i = begin; i < end; ++i) {
    const Gaussian g = load_gaussian(in, i);
    for (int64_t b = 0; b < shape.views; ++b) {
      const int64_t k = b * shape.splats + i;
      project_splat(g, views[b], shape, out.means2d + 2 * k, out.conics + 3 * k, out.depths + k, out.extents + 2 * k);
    }
  }
}

void project_backward(const ProjectShape& shape, const ProjectInputs& in, const float* extents,
                      const ProjectGradients& grad, int64_t begin, int64_t end) {
  const std::vector<View> views = load_views(shape, in);
  for (int64_t i = begin; i < end; ++i) {
    const Gaussian g = load_gaussian(in, i);
    GaussianGradient sum = {};
    bool visible = false;
    for (int64_t b = 0; b < shape.views; ++b) {
      const int64_t k = b * shape.splats + i;
      if (extents[2 * k] == 0.0f) continue;
      visible = true;
      add_view_gradient(g, views[b], shape.dilation, grad.means2d + 2 * k, grad.conics + 3 * k, grad.depths[k], &sum);
    }
    if (visible) {
      write_gradient(g, sum, grad.grad_means + 3 * i, grad.grad_quats + 4 * i, grad.grad_scales + 3 * i);
    } else {
      std::fill_n(grad.grad_means + 3 * i, 3, 0.0f);
      std::fill_n(grad.grad_quats + 4 * i, 4, 0.0f);
      std::fill_n(grad.grad_scales + 3 * i, 3, 0.0f);
    }
  }
}

}  // namespace sds3d
