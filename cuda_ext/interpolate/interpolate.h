// Attributes of a mesh's vertices at the points that pixels see:  out = sum_i b_i attribute[corner i],  0 without a
// face.
#pragma once

#include "../common.h"

namespace sds3d {

struct InterpolateShape {
  int64_t views, vertices;
  int64_t pixels;  // per view
  int channels;
  bool shared;  // one set of attributes for all views
};

struct InterpolateInputs {
  const float* attributes;   // [V, K] where shared, else [B, V, K]
  const int32_t* faces;      // [F, 3]
  const int32_t* face;       // [B, H, W]
  const float* barycentric;  // [B, H, W, 3]
};

// CPU, pixels [begin, end) of all views.
void interpolate(const InterpolateShape& shape, const InterpolateInputs& in, float* out, int64_t begin, int64_t end);

// CPU, pixels [begin, end): writes the gradient of the barycentrics, if wanted, and adds to that of the attributes,
// which no other thread may do meanwhile.
void interpolate_backward(const InterpolateShape& shape, const InterpolateInputs& in, const float* upstream,
                          float* grad_attributes, float* grad_barycentric, int64_t begin, int64_t end);

}  // namespace sds3d
