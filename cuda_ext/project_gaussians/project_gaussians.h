// Projection of 3D Gaussians: EWA splatting (Zwicker et al. 2001). float32, row-major, all pointers contiguous.
//
//   covariance2d = J W R S S^T R^T W^T J^T + dilation I,   radii = sqrt(2 ln(255 opacity) diag(covariance2d))
//
// Culled splats (see project_splat) get all-zero outputs and gradients. Axes: B views, N splats.
#pragma once

#include "../common.h"

namespace sds3d {

struct ProjectShape {
  int64_t views, splats;
  int height, width;
  float near, dilation;
};

struct ProjectInputs {
  const float* means;            // [N, 3]
  const float* quats;            // [N, 4] wxyz, any length but zero
  const float* scales;           // [N, 3]
  const float* opacities;        // [N]
  const float* camera_to_world;  // [B, 4, 4], x right, y down, z forward
  const float* intrinsics;       // [B, 3, 3], no skew
};

struct ProjectOutputs {
  float* means2d;  // [B, N, 2] pixels
  float* conics;   // [B, N, 3] xx, xy, yy
  float* depths;   // [B, N]
  float* radii;    // [B, N, 2]
};

struct ProjectGradients {
  const float* means2d;  // upstream, shaped as the outputs
  const float* conics;
  const float* depths;
  float* grad_means;   // [N, 3]
  float* grad_quats;   // [N, 4]
  float* grad_scales;  // [N, 3]
};

// CPU, splats [begin, end), all views; compiled once per instruction set.
struct ProjectKernels {
  void (*forward)(const ProjectShape&, const ProjectInputs&, const ProjectOutputs&, int64_t begin, int64_t end);
  void (*backward)(const ProjectShape&, const ProjectInputs&, const float* radii, const ProjectGradients&,
                   int64_t begin, int64_t end);
};
extern const ProjectKernels PROJECT_KERNELS_BASELINE, PROJECT_KERNELS_AVX2, PROJECT_KERNELS_AVX512;

}  // namespace sds3d
