// One ray's sums, forward and backward: the same for CPU and CUDA.
#pragma once

#include "composite.h"

namespace sds3d {

// T_{i+1} of T_i and exp(-d_i).
SDS3D_HD float after_sample(float transmittance, float passes) {
  const float left = transmittance * passes;
  return left < TRANSMITTANCE_FLOOR ? 0.0f : left;
}

SDS3D_HD void composite_ray(const CompositeShape& shape, const CompositeInputs& in, const CompositeOutputs& out,
                            int64_t ray) {
  const int channels = shape.channels;
  float color[MAX_CHANNELS], opacity = 0.0f, depth = 0.0f, transmittance = 1.0f;
  for (int c = 0; c < channels; ++c) color[c] = 0.0f;
  for (int64_t i = in.offsets[ray]; i < in.offsets[ray + 1]; ++i) {
    const float alpha = -::expm1f(-in.densities[i] * (in.t_ends[i] - in.t_starts[i]));
    const float weight = transmittance * alpha;
    out.weights[i] = weight;
    for (int c = 0; c < channels; ++c) color[c] += weight * in.features[i * channels + c];
    opacity += weight;
    depth += weight * ((in.t_starts[i] + in.t_ends[i]) / 2.0f);
    transmittance = after_sample(transmittance, 1.0f - alpha);
  }
  for (int c = 0; c < channels; ++c) out.image[ray * channels + c] = color[c];
  out.opacity[ray] = opacity;
  out.depth[ray] = depth;
}

// With G_i = dL/dw_i, that of the sums included:  dL/dd_i = G_i T_{i+1} - sum_{j > i} G_j w_j.
SDS3D_HD void composite_ray_backward(const CompositeShape& shape, const CompositeInputs& in,
                                     const CompositeGradients& grad, int64_t ray) {
  const int channels = shape.channels;
  const float* upstream = grad.image + ray * channels;
  const int64_t begin = in.offsets[ray], end = in.offsets[ray + 1];
  float transmittance = 1.0f, behind = 0.0f;
  for (int64_t i = begin; i < end; ++i) {  // T_{i+1}, kept where the gradient will be
    const float passes = 1.0f + ::expm1f(-in.densities[i] * (in.t_ends[i] - in.t_starts[i]));
    transmittance = after_sample(transmittance, passes);
    grad.grad_densities[i] = transmittance;
  }
  for (int64_t i = end - 1; i >= begin; --i) {
    const float weight = grad.weights[i];
    float g = grad.grad_weights[i] + grad.opacity[ray] + grad.depth[ray] * ((in.t_starts[i] + in.t_ends[i]) / 2.0f);
    for (int c = 0; c < channels; ++c) {
      g += upstream[c] * in.features[i * channels + c];
      grad.grad_features[i * channels + c] = weight * upstream[c];
    }
    grad.grad_densities[i] = (g * grad.grad_densities[i] - behind) * (in.t_ends[i] - in.t_starts[i]);
    behind += g * weight;
  }
}

}  // namespace sds3d
