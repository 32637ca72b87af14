// Sixteen floats as one value, for the instruction set this file is compiled for. SDS3D_ISA names the namespace, so
// that the same kernel source can be compiled several times into one library.
#pragma once

#if defined(__AVX512F__)
#define SDS3D_ISA avx512
#include "lanes_avx512.h"
#elif defined(__AVX2__)
#define SDS3D_ISA avx2
#include "lanes_avx2.h"
#else
#define SDS3D_ISA baseline
#include "lanes_portable.h"
#endif

namespace sds3d {
namespace SDS3D_ISA {

static inline Lanes operator-(Lanes a) { return Lanes(0.0f) - a; }

// 2^x for x in about [-126, 126], relative error 2e-7: round, degree-5 polynomial on [-1/2, 1/2], scale.
// Lanes below that range hold anything; callers mask them.
static inline Lanes exp2(Lanes x) {
  const Lanes whole = round(x);
  const Lanes f = x - whole;
  Lanes y = fma(f, Lanes(1.326472712e-3f), Lanes(9.671512645e-3f));
  y = fma(f, y, Lanes(5.550733743e-2f));
  y = fma(f, y, Lanes(2.402224209e-1f));
  y = fma(f, y, Lanes(6.931469776e-1f));
  y = fma(f, y, Lanes(1.0f));
  return scale_by_power(y, whole);
}

// 1 / x to about 22 bits: hardware estimate and Newton steps.
static inline Lanes reciprocal(Lanes x) {
  Lanes y = reciprocal_estimate(x);
  for (int i = 0; i < RECIPROCAL_STEPS; ++i) y = y * fnma(x, y, Lanes(2.0f));
  return y;
}

static inline Lanes iota() {
  alignas(64) static const float values[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return Lanes::load(values);
}

}  // namespace SDS3D_ISA
}  // namespace sds3d
