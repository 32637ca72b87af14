// One pixel that sees a face, forward and backward: the same for CPU and CUDA.
#pragma once

#include "interpolate.h"

namespace sds3d {

// A number of channels known to the compiler; 0: known at run time only.
template <int N>
struct Channels {
  static constexpr int count = N;
};

// Where the attributes of corner i of the pixel's face begin.
SDS3D_HD int64_t corner_at(const InterpolateShape& shape, const InterpolateInputs& in, int64_t pixel, int i) {
  const int64_t first = shape.shared ? 0 : pixel / shape.pixels * shape.vertices;
  return (first + in.faces[3 * int64_t(in.face[pixel]) + i]) * shape.channels;
}

template <int N>
SDS3D_HD void interpolate_pixel(const InterpolateShape& shape, const InterpolateInputs& in, float* out, int64_t pixel) {
  const int channels = N > 0 ? N : shape.channels;
  const float* a = in.attributes + corner_at(shape, in, pixel, 0);
  const float* b = in.attributes + corner_at(shape, in, pixel, 1);
  const float* c = in.attributes + corner_at(shape, in, pixel, 2);
  const float* w = in.barycentric + 3 * pixel;
  for (int k = 0; k < channels; ++k) out[pixel * channels + k] = w[0] * a[k] + w[1] * b[k] + w[2] * c[k];
}

// Hands `add` the place and the addend of each corner's attribute.
template <int N, class Add>
SDS3D_HD void attribute_gradient(const InterpolateShape& shape, const InterpolateInputs& in, const float* upstream,
                                 int64_t pixel, const Add& add) {
  const int channels = N > 0 ? N : shape.channels;
  for (int i = 0; i < 3; ++i) {
    const int64_t at = corner_at(shape, in, pixel, i);
    const float weight = in.barycentric[3 * pixel + i];
    for (int k = 0; k < channels; ++k) add(at + k, weight * upstream[pixel * channels + k]);
  }
}

template <int N>
SDS3D_HD void barycentric_gradient(const InterpolateShape& shape, const InterpolateInputs& in, const float* upstream,
                                   float* grad_barycentric, int64_t pixel) {
  const int channels = N > 0 ? N : shape.channels;
  for (int i = 0; i < 3; ++i) {
    const float* attribute = in.attributes + corner_at(shape, in, pixel, i);
    float sum = 0.0f;
    for (int k = 0; k < channels; ++k) sum += attribute[k] * upstream[pixel * channels + k];
    grad_barycentric[3 * pixel + i] = sum;
  }
}

}  // namespace sds3d
