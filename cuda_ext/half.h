// Half precision to float in integer arithmetic, so that host and device share it and no CUDA header is needed.
#pragma once

#include "common.h"

namespace sds3d {

SDS3D_HD float half_to_float(uint16_t half) {
  union {
    uint32_t u;
    float f;
  } bits = {uint32_t(half & 0x7fffu) << 13};
  bits.f *= 5.192296858534828e+33f;  // 2^112, the difference of the exponents' offsets; halves below 2^-14 come out too
  if (bits.f >= 65536.0f) bits.u |= 0x7f800000u;  // infinity, or NaN with its bits
  bits.u |= uint32_t(half & 0x8000u) << 16;
  return bits.f;
}

// [B, N, C] colours of splats, as float32 or half precision.
struct Features {
  const void* values;
  bool half;
  SDS3D_SHAPE_FN float at(int64_t index) const {
    return half ? half_to_float(static_cast<const uint16_t*>(values)[index]) : static_cast<const float*>(values)[index];
  }
};

}  // namespace sds3d
