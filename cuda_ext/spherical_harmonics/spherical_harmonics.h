// Colours that depend on the direction of view: real spherical harmonics up to degree 3. float32, row-major,
// contiguous.
//
//   colors = sum_k Y_k(d) coefficients_k,   d = (mean - origin of the camera) / length
//
// Y_k: orthonormal on the sphere, with the Condon-Shortley phase, in the order l = 0..3, m = -l..l (the order and signs
// of the 3DGS file format). Where d is undefined or not finite, only k = 0 counts. Axes: B views, N splats, K = 1, 4,
// 9, 16.
#pragma once

#include "../common.h"

namespace sds3d {

struct HarmonicsShape {
  int64_t views, splats;
  int terms;  // K
};

struct HarmonicsInputs {
  const float* coefficients;     // [N, K, 3]
  const float* means;            // [N, 3]
  const float* camera_to_world;  // [B, 4, 4]
};

struct HarmonicsGradients {
  const float* colors;       // [B, N, 3], upstream
  float* grad_coefficients;  // [N, K, 3]
  float* grad_means;         // [N, 3]
};

// CPU, splats [begin, end), all views. `colors` is [B, N, 3].
void harmonics_forward(const HarmonicsShape& shape, const HarmonicsInputs& in, float* colors, int64_t begin,
                       int64_t end);
void harmonics_backward(const HarmonicsShape& shape, const HarmonicsInputs& in, const HarmonicsGradients& grad,
                        int64_t begin, int64_t end);

}  // namespace sds3d
