// Interpolation on the CPU, compiled for the numbers of channels that scenes use.
#include <algorithm>

#include "interpolate_math.h"

namespace sds3d {

namespace {

// Calls `function` with the number of channels as a constant where it is a common one, and as 0 where it is not.
template <class Function>
void with_channels(int channels, const Function& function) {
  switch (channels) {
    case 1:
      return function(Channels<1>{});
    case 3:
      return function(Channels<3>{});
    case 4:
      return function(Channels<4>{});
    case 6:
      return function(Channels<6>{});
    case 7:
      return function(Channels<7>{});
    default:
      return function(Channels<0>{});
  }
}

}  // namespace

void interpolate(const InterpolateShape& shape, const InterpolateInputs& in, float* out, int64_t begin, int64_t end) {
  std::fill(out + begin * shape.channels, out + end * shape.channels, 0.0f);
  with_channels(shape.channels, [&](auto channels) {
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      if (in.face[pixel] >= 0) interpolate_pixel<channels.count>(shape, in, out, pixel);
    }
  });
}

void interpolate_backward(const InterpolateShape& shape, const InterpolateInputs& in, const float* upstream,
                          float* grad_attributes, float* grad_barycentric, int64_t begin, int64_t end) {
  if (grad_barycentric != nullptr) std::fill(grad_barycentric + 3 * begin, grad_barycentric + 3 * end, 0.0f);
  const auto add = [grad_attributes](int64_t at, float value) { grad_attributes[at] += value; };
  with_channels(shape.channels, [&](auto channels) {
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      if (in.face[pixel] < 0) continue;
      if (grad_attributes != nullptr) attribute_gradient<channels.count>(shape, in, upstream, pixel, add);
      if (grad_barycentric != nullptr)
        barycentric_gradient<channels.count>(shape, in, upstream, grad_barycentric, pixel);
    }
  });
}

}  // namespace sds3d
