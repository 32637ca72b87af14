// Volume rendering on the CPU, a ray at a time.
#include "composite_math.h"

namespace sds3d {

void composite_forward(const CompositeShape& shape, const CompositeInputs& in, const CompositeOutputs& out,
                       int64_t begin, int64_t end) {
  for (int64_t ray = begin; ray < end; ++ray) composite_ray(shape, in, out, ray);
}

void composite_backward(const CompositeShape& shape, const CompositeInputs& in, const CompositeGradients& grad,
                        int64_t begin, int64_t end) {
  for (int64_t ray = begin; ray < end; ++ray) composite_ray_backward(shape, in, grad, ray);
}

}  // namespace sds3d
