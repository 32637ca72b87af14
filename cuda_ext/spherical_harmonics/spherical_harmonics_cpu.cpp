// Spherical harmonics on the CPU: a splat at a time, all its views, so that its gradients need no second pass.
#include <algorithm>

#include "harmonics_math.h"

namespace sds3d {

void harmonics_forward(const HarmonicsShape& shape, const HarmonicsInputs& in, float* colors, int64_t begin,
                       int64_t end) {
  for (int64_t b = 0; b < shape.views; ++b) {
    const float* camera = in.camera_to_world + 16 * b;
    for (int64_t i = begin; i < end; ++i) {
      const Direction d = direction_to(in.means + 3 * i, camera);
      harmonics_color(shape.terms, in.coefficients + 3 * shape.terms * i, d, colors + 3 * (b * shape.splats + i));
    }
  }
}

void harmonics_backward(const HarmonicsShape& shape, const HarmonicsInputs& in, const HarmonicsGradients& grad,
                        int64_t begin, int64_t end) {
  const int64_t width = 3 * shape.terms;
  for (int64_t i = begin; i < end; ++i) {
    float sum[3 * MAX_TERMS] = {}, grad_mean[3] = {};
    for (int64_t b = 0; b < shape.views; ++b) {
      const Direction d = direction_to(in.means + 3 * i, in.camera_to_world + 16 * b);
      add_harmonics_view(shape.terms, in.coefficients + width * i, d, grad.colors + 3 * (b * shape.splats + i), sum,
                         grad_mean);
    }
    std::copy_n(sum, width, grad.grad_coefficients + width * i);
    std::copy_n(grad_mean, 3, grad.grad_means + 3 * i);
  }
}

}  // namespace sds3d
