// Sixteen floats in one 512-bit register. Needs AVX-512F and DQ.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace sds3d {
namespace SDS3D_ISA {

constexpr int RECIPROCAL_STEPS = 1;  // the estimate has 14 bits

struct Mask {
  __mmask16 m;
};

struct Lanes {
  __m512 v;
  Lanes() = default;
  Lanes(__m512 value) : v(value) {}
  Lanes(float value) : v(_mm512_set1_ps(value)) {}
  static Lanes load(const float* p) { return _mm512_loadu_ps(p); }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
};

static inline Lanes operator+(Lanes a, Lanes b) { return _mm512_add_ps(a.v, b.v); }
static inline Lanes operator-(Lanes a, Lanes b) { return _mm512_sub_ps(a.v, b.v); }
static inline Lanes operator*(Lanes a, Lanes b) { return _mm512_mul_ps(a.v, b.v); }
static inline Lanes fma(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }    // a b + c
static inline Lanes fnma(Lanes a, Lanes b, Lanes c) { return _mm512_fnmadd_ps(a.v, b.v, c.v); }  // c - a b
static inline Lanes min(Lanes a, Lanes b) { return _mm512_min_ps(a.v, b.v); }
static inline Lanes max(Lanes a, Lanes b) { return _mm512_max_ps(a.v, b.v); }
static inline Lanes abs(Lanes a) { return _mm512_abs_ps(a.v); }
static inline Lanes round(Lanes a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline Lanes scale_by_power(Lanes a, Lanes whole) { return _mm512_scalef_ps(a.v, whole.v); }
static inline Lanes reciprocal_estimate(Lanes a) { return _mm512_rcp14_ps(a.v); }

static inline Mask operator>(Lanes a, Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
static inline Mask operator>=(Lanes a, Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
static inline Mask operator<=(Lanes a, Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
static inline Mask operator&(Mask a, Mask b) { return {static_cast<__mmask16>(a.m & b.m)}; }
static inline bool any(Mask a) { return a.m != 0; }
static inline uint32_t to_bits(Mask a) { return a.m; }
static inline Lanes where(Mask m, Lanes a, Lanes b) { return _mm512_mask_blend_ps(m.m, b.v, a.v); }
static inline Lanes zero_unless(Mask m, Lanes a) { return _mm512_maskz_mov_ps(m.m, a.v); }

// Four vectors to one whose 128-bit quarters each hold four partial sums.
static inline __m512 sum_four(const Lanes* a) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a[0].v, a[1].v), _mm512_unpackhi_ps(a[0].v, a[1].v));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(a[2].v, a[3].v), _mm512_unpackhi_ps(a[2].v, a[3].v));
  return _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
}

// out[i] = sum of the lanes of a[i], i < 16, as one transposing tree instead of 16 horizontal sums.
static inline void sum_each(const Lanes* a, float* out) {
  const __m512 u0 = sum_four(a), u1 = sum_four(a + 4), u2 = sum_four(a + 8), u3 = sum_four(a + 12);
  const __m512 s0 = _mm512_add_ps(_mm512_shuffle_f32x4(u0, u1, 0x88), _mm512_shuffle_f32x4(u0, u1, 0xDD));
  const __m512 s1 = _mm512_add_ps(_mm512_shuffle_f32x4(u2, u3, 0x88), _mm512_shuffle_f32x4(u2, u3, 0xDD));
  const __m512 sum = _mm512_add_ps(_mm512_shuffle_f32x4(s0, s1, 0x88), _mm512_shuffle_f32x4(s0, s1, 0xDD));
  _mm512_storeu_ps(out, sum);
}

}  // namespace SDS3D_ISA
}  // namespace sds3d
