// Selective Adam on the CPU: stretches of rows that were seen are one flat loop each, which the compiler vectorizes.
#include "selective_adam.h"

namespace sds3d {

namespace {

void update_stretch(const AdamStep step, const float* __restrict__ grad, float* __restrict__ parameter,
                    float* __restrict__ exp_avg, float* __restrict__ exp_avg_sq, int64_t count) {
  for (int64_t i = 0; i < count; ++i) adam_update(step, grad[i], parameter + i, exp_avg + i, exp_avg_sq + i);
}

}  // namespace

void selective_adam(const AdamStep& step, const AdamTensors& t, int64_t width, int64_t begin, int64_t end) {
  int64_t row = begin;
  while (row < end) {
    const int64_t first = row;
    while (row < end && t.visible[row]) ++row;
    const int64_t at = first * width;
    update_stretch(step, t.grad + at, t.parameter + at, t.exp_avg + at, t.exp_avg_sq + at, (row - first) * width);
    while (row < end && !t.visible[row]) ++row;
  }
}

}  // namespace sds3d
