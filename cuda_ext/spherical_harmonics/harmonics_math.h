// The formulas of spherical harmonics, one splat in one view at a time; shared by CPU and CUDA.
#pragma once

#include "spherical_harmonics.h"

namespace sds3d {

constexpr int MAX_TERMS = 16;
constexpr float MIN_DISTANCE_SQUARED = 1e-20f;

// Normalization: sqrt((2 l + 1) / (4 pi) (l - m)! / (l + m)!), times sqrt(2) for m != 0, with the polynomial's own
// factor.
constexpr float SH_0 = 0.28209479177387814f;
constexpr float SH_1 = 0.4886025119029199f;
constexpr float SH_2_XY = 1.0925484305920792f, SH_2_ZZ = 0.31539156525252005f, SH_2_XX = 0.5462742152960396f;
constexpr float SH_3_3 = 0.5900435899266435f, SH_3_XYZ = 2.890611442640554f, SH_3_1 = 0.4570457994644658f;
constexpr float SH_3_0 = 0.3731763325901154f, SH_3_2 = 1.445305721320277f;

// From the camera to the splat.
struct Direction {
  float x, y, z, inverse_length;  // unit; all zero where there is none
};

SDS3D_HD Direction direction_to(const float* mean, const float* camera_to_world) {
  const float x = mean[0] - camera_to_world[3], y = mean[1] - camera_to_world[7], z = mean[2] - camera_to_world[11];
  const float squared = x * x + y * y + z * z;
  if (!is_finite(squared) || !(squared > MIN_DISTANCE_SQUARED)) return {0.0f, 0.0f, 0.0f, 0.0f};
  const float inverse = 1.0f / ::sqrtf(squared);
  return {x * inverse, y * inverse, z * inverse, inverse};
}

// values[k] = Y_k(d), k < terms.
SDS3D_HD void harmonics(int terms, const Direction& d, float* values) {
  const float x = d.x, y = d.y, z = d.z;
  values[0] = SH_0;
  if (terms < 4) return;
  values[1] = -SH_1 * y;
  values[2] = SH_1 * z;
  values[3] = -SH_1 * x;
  if (terms < 9) return;
  const float xx = x * x, yy = y * y, zz = z * z;
  values[4] = SH_2_XY * x * y;
  values[5] = -SH_2_XY * y * z;
  values[6] = SH_2_ZZ * (2.0f * zz - xx - yy);
  values[7] = -SH_2_XY * x * z;
  values[8] = SH_2_XX * (xx - yy);
  if (terms < 16) return;
  values[9] = -SH_3_3 * y * (3.0f * xx - yy);
  values[10] = SH_3_XYZ * x * y * z;
  values[11] = -SH_3_1 * y * (4.0f * zz - xx - yy);
  values[12] = SH_3_0 * z * (2.0f * zz - 3.0f * xx - 3.0f * yy);
  values[13] = -SH_3_1 * x * (4.0f * zz - xx - yy);
  values[14] = SH_3_2 * z * (xx - yy);
  values[15] = -SH_3_3 * x * (xx - 3.0f * yy);
}

// Adds weights[k] dY_k / d(x, y, z) to `gradient`, the polynomials being taken as functions of all space.
SDS3D_HD void add_harmonics_gradient(int terms, const Direction& d, const float* weights, float* gradient) {
  const float x = d.x, y = d.y, z = d.z;
  const float* w = weights;
  if (terms < 4) return;
  float gx = -SH_1 * w[3], gy = -SH_1 * w[1], gz = SH_1 * w[2];
  if (terms >= 9) {
    gx += SH_2_XY * (w[4] * y - w[7] * z) - 2.0f * SH_2_ZZ * w[6] * x + 2.0f * SH_2_XX * w[8] * x;
    gy += SH_2_XY * (w[4] * x - w[5] * z) - 2.0f * SH_2_ZZ * w[6] * y - 2.0f * SH_2_XX * w[8] * y;
    gz += -SH_2_XY * (w[5] * y + w[7] * x) + 4.0f * SH_2_ZZ * w[6] * z;
  }
  if (terms >= 16) {
    const float xx = x * x, yy = y * y, zz = z * z;
    gx += -6.0f * SH_3_3 * w[9] * x * y + SH_3_XYZ * w[10] * y * z + 2.0f * SH_3_1 * w[11] * x * y -
          6.0f * SH_3_0 * w[12] * x * z - SH_3_1 * w[13] * (4.0f * zz - 3.0f * xx - yy) +
          2.0f * SH_3_2 * w[14] * x * z - 3.0f * SH_3_3 * w[15] * (xx - yy);
    gy += -3.0f * SH_3_3 * w[9] * (xx - yy) + SH_3_XYZ * w[10] * x * z - SH_3_1 * w[11] * (4.0f * zz - xx - 3.0f * yy) -
          6.0f * SH_3_0 * w[12] * y * z + 2.0f * SH_3_1 * w[13] * x * y - 2.0f * SH_3_2 * w[14] * y * z +
          6.0f * SH_3_3 * w[15] * x * y;
    gz += SH_3_XYZ * w[10] * x * y - 8.0f * SH_3_1 * w[11] * y * z +
          SH_3_0 * w[12] * (6.0f * zz - 3.0f * xx - 3.0f * yy) - 8.0f * SH_3_1 * w[13] * x * z +
          SH_3_2 * w[14] * (xx - yy);
  }
  gradient[0] += gx;
  gradient[1] += gy;
  gradient[2] += gz;
}

SDS3D_HD void harmonics_color(int terms, const float* coefficients, const Direction& d, float* color) {
  float values[MAX_TERMS];
  harmonics(terms, d, values);
  color[0] = color[1] = color[2] = 0.0f;
  const int used = d.inverse_length > 0.0f ? terms : 1;
  for (int k = 0; k < used; ++k) {
    for (int c = 0; c < 3; ++c) color[c] += values[k] * coefficients[3 * k + c];
  }
}

// Adds the gradients of one view to those of the splat.
SDS3D_HD void add_harmonics_view(int terms, const float* coefficients, const Direction& d, const float* grad_color,
                                 float* grad_coefficients, float* grad_mean) {
  float values[MAX_TERMS], weights[MAX_TERMS];
  harmonics(terms, d, values);
  const int used = d.inverse_length > 0.0f ? terms : 1;
  for (int k = 0; k < used; ++k) {
    weights[k] = 0.0f;
    for (int c = 0; c < 3; ++c) {
      grad_coefficients[3 * k + c] += values[k] * grad_color[c];
      weights[k] += coefficients[3 * k + c] * grad_color[c];
    }
  }
  if (used == 1) return;
  float g[3] = {0.0f, 0.0f, 0.0f};
  add_harmonics_gradient(terms, d, weights, g);
  const float along = g[0] * d.x + g[1] * d.y + g[2] * d.z;  // changes only the length
  grad_mean[0] += (g[0] - along * d.x) * d.inverse_length;
  grad_mean[1] += (g[1] - along * d.y) * d.inverse_length;
  grad_mean[2] += (g[2] - along * d.z) * d.inverse_length;
}

}  // namespace sds3d
