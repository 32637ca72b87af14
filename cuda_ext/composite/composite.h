// Volume rendering of packed samples (Max 1995; Mildenhall et al. 2020): kernel interface. float32, row-major,
// contiguous.
//
//   d_i = density_i (t_end_i - t_start_i),   T_i = exp(-sum_{j < i} d_j),   w_i = T_i (1 - exp(-d_i))
//   image = sum w_i features_i,   opacity = sum w_i,   depth = sum w_i (t_start_i + t_end_i) / 2
//
// Samples of ray r lie from offsets[r] to offsets[r + 1], front to back. Axes: R rays, S samples, C channels.
#pragma once

#include "../common.h"

namespace sds3d {

constexpr int MAX_CHANNELS = 8;
// What gets through below this counts as none: numbers on their way to 0 are slow where they have lost their exponent,
// here and in everything that their gradients reach.
constexpr float TRANSMITTANCE_FLOOR = 1e-12f;

struct CompositeShape {
  int64_t rays;
  int channels;
};

struct CompositeInputs {
  const float* densities;  // [S]
  const float* features;   // [S, C]
  const float* t_starts;   // [S]
  const float* t_ends;     // [S]
  const int64_t* offsets;  // [R + 1]
};

struct CompositeOutputs {
  float* image;    // [R, C]
  float* opacity;  // [R]
  float* depth;    // [R]
  float* weights;  // [S]
};

struct CompositeGradients {
  const float* weights;       // [S], of the forward pass
  const float* image;         // [R, C], upstream
  const float* opacity;       // [R], upstream
  const float* depth;         // [R], upstream
  const float* grad_weights;  // [S], upstream
  float* grad_densities;      // [S]
  float* grad_features;       // [S, C]
};

// CPU, rays [begin, end).
void composite_forward(const CompositeShape& shape, const CompositeInputs& in, const CompositeOutputs& out,
                       int64_t begin, int64_t end);
void composite_backward(const CompositeShape& shape, const CompositeInputs& in, const CompositeGradients& grad,
                        int64_t begin, int64_t end);

}  // namespace sds3d
