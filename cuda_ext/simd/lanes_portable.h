// Sixteen floats as four 4-wide vectors in the GCC and Clang vector extension: SSE2, NEON, or whatever the target has.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace sds3d {
namespace SDS3D_ISA {

constexpr int RECIPROCAL_STEPS = 0;  // the "estimate" is a division

typedef float Quad __attribute__((vector_size(16)));
typedef int32_t QuadMask __attribute__((vector_size(16)));

struct Mask {
  QuadMask q[4];
};

struct Lanes {
  Quad q[4];
  Lanes() = default;
  Lanes(float value) {
    for (Quad& quad : q) quad = Quad{value, value, value, value};
  }
  static Lanes load(const float* p) {
    Lanes a;
    std::memcpy(a.q, p, sizeof(a.q));
    return a;
  }
  void store(float* p) const { std::memcpy(p, q, sizeof(q)); }
};

template <class Function>
static inline Lanes each(Function function) {
  Lanes r;
  for (int i = 0; i < 4; ++i) r.q[i] = function(i);
  return r;
}
template <class Function>
static inline Mask each_mask(Function function) {
  Mask r;
  for (int i = 0; i < 4; ++i) r.q[i] = function(i);
  return r;
}

static inline QuadMask bits_of(Quad a) { return reinterpret_cast<QuadMask>(a); }
static inline Quad floats_of(QuadMask a) { return reinterpret_cast<Quad>(a); }
static inline Quad select(QuadMask m, Quad a, Quad b) { return floats_of((m & bits_of(a)) | (~m & bits_of(b))); }

// Written out instead of left to -ffp-contract: forward and backward must round alike.
#if defined(__aarch64__)
static inline Quad multiply_add(Quad a, Quad b, Quad c) { return vfmaq_f32(c, a, b); }
static inline Quad multiply_subtract(Quad a, Quad b, Quad c) { return vfmsq_f32(c, a, b); }
#else
static inline Quad multiply_add(Quad a, Quad b, Quad c) { return a * b + c; }
static inline Quad multiply_subtract(Quad a, Quad b, Quad c) { return c - a * b; }
#endif

static inline Lanes operator+(Lanes a, Lanes b) {
  return each([&](int i) { return a.q[i] + b.q[i]; });
}
static inline Lanes operator-(Lanes a, Lanes b) {
  return each([&](int i) { return a.q[i] - b.q[i]; });
}
static inline Lanes operator*(Lanes a, Lanes b) {
  return each([&](int i) { return a.q[i] * b.q[i]; });
}
static inline Lanes fma(Lanes a, Lanes b, Lanes c) {  // a b + c
  return each([&](int i) { return multiply_add(a.q[i], b.q[i], c.q[i]); });
}
static inline Lanes fnma(Lanes a, Lanes b, Lanes c) {  // c - a b
  return each([&](int i) { return multiply_subtract(a.q[i], b.q[i], c.q[i]); });
}

static inline Mask operator>(Lanes a, Lanes b) {
  return each_mask([&](int i) { return a.q[i] > b.q[i]; });
}
static inline Mask operator>=(Lanes a, Lanes b) {
  return each_mask([&](int i) { return a.q[i] >= b.q[i]; });
}
static inline Mask operator<=(Lanes a, Lanes b) {
  return each_mask([&](int i) { return a.q[i] <= b.q[i]; });
}
static inline Mask operator&(Mask a, Mask b) {
  return each_mask([&](int i) { return a.q[i] & b.q[i]; });
}
static inline uint32_t to_bits(Mask a) {
  uint32_t bits = 0;
  for (int i = 0; i < 16; ++i) bits |= (static_cast<uint32_t>(a.q[i / 4][i % 4]) & 1u) << i;
  return bits;
}
static inline bool any(Mask a) {
  const QuadMask m = (a.q[0] | a.q[1]) | (a.q[2] | a.q[3]);
  int64_t halves[2];
  std::memcpy(halves, &m, sizeof(halves));
  return (halves[0] | halves[1]) != 0;
}
static inline Lanes where(Mask m, Lanes a, Lanes b) {
  return each([&](int i) { return select(m.q[i], a.q[i], b.q[i]); });
}
static inline Lanes zero_unless(Mask m, Lanes a) {
  return each([&](int i) { return floats_of(m.q[i] & bits_of(a.q[i])); });
}
static inline Lanes min(Lanes a, Lanes b) { return where(a <= b, a, b); }
static inline Lanes max(Lanes a, Lanes b) { return where(a >= b, a, b); }
static inline Lanes abs(Lanes a) {
  return each([&](int i) { return floats_of(bits_of(a.q[i]) & 0x7fffffff); });
}

// To the nearest whole number, for |a| < 2^22; needs value-safe arithmetic (no -ffast-math).
static inline Lanes round(Lanes a) {
  const Lanes magic(12582912.0f);
  return (a + magic) - magic;
}
static inline Lanes scale_by_power(Lanes a, Lanes whole) {
  // Adding 2^23 + 127 leaves the biased exponent in the low bits: no float-to-int conversion, defined for any input.
  const Lanes biased = max(whole, Lanes(-126.0f)) + Lanes(8388735.0f);
  return each([&](int i) { return a.q[i] * floats_of((bits_of(biased.q[i]) & 0xff) << 23); });
}
static inline Lanes reciprocal_estimate(Lanes a) {
  return each([&](int i) { return 1.0f / a.q[i]; });
}

// out[i] = sum of the lanes of a[i], i < 16.
static inline void sum_each(const Lanes* a, float* out) {
  for (int i = 0; i < 16; ++i) {
    const Quad s = (a[i].q[0] + a[i].q[1]) + (a[i].q[2] + a[i].q[3]);
    out[i] = (s[0] + s[2]) + (s[1] + s[3]);
  }
}

}  // namespace SDS3D_ISA
}  // namespace sds3d
