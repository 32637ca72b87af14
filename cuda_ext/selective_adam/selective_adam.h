// Adam (Kingma and Ba 2015) on the rows of a parameter that were seen, in one pass over memory. float32, contiguous.
//
//   m = m + (1 - beta1) (g - m),   v = beta2 v + (1 - beta2) g^2
//   parameter = parameter - lr / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
//
// Rows that were not seen keep parameter, m and v; `step` counts all steps, seen or not. Axes: N rows of D numbers.
#pragma once

#include "../common.h"

namespace sds3d {

// The factors that are the same for all numbers of a step.
struct AdamStep {
  float one_minus_beta1, beta2, one_minus_beta2;
  float step_size;            // lr / (1 - beta1^step)
  float root_of_correction2;  // sqrt(1 - beta2^step)
  float eps;
};

struct AdamTensors {
  float* parameter;     // [N, D]
  float* exp_avg;       // [N, D], m
  float* exp_avg_sq;    // [N, D], v
  const float* grad;    // [N, D]
  const bool* visible;  // [N]
};

SDS3D_HD AdamStep adam_step(double lr, double beta1, double beta2, double eps, double step) {
  AdamStep s;
  s.one_minus_beta1 = float(1.0 - beta1);
  s.beta2 = float(beta2);
  s.one_minus_beta2 = float(1.0 - beta2);
  s.step_size = float(lr / (1.0 - ::pow(beta1, step)));
  s.root_of_correction2 = float(::sqrt(1.0 - ::pow(beta2, step)));
  s.eps = float(eps);
  return s;
}

SDS3D_HD void adam_update(const AdamStep& s, float grad, float* parameter, float* exp_avg, float* exp_avg_sq) {
  const float m = *exp_avg + s.one_minus_beta1 * (grad - *exp_avg);
  const float v = *exp_avg_sq * s.beta2 + s.one_minus_beta2 * grad * grad;
  *exp_avg = m;
  *exp_avg_sq = v;
  *parameter -= s.step_size * m / (::sqrtf(v) / s.root_of_correction2 + s.eps);
}

// CPU, rows [begin, end).
void selective_adam(const AdamStep& step, const AdamTensors& t, int64_t width, int64_t begin, int64_t end);

}  // namespace sds3d
