// Device side of exact_sums.h, for .cu files.
#pragma once

#include "cuda_launch.h"
#include "exact_sums.h"

namespace sds3d {

// 2^40 over the largest addend's power of two; 0 if an addend was not finite.
__device__ __forceinline__ double exact_scale(const unsigned* largest) {
  const int exponent = int((*largest >> 23) & 255u);
  return exponent == 255 ? 0.0 : ::ldexp(1.0, 40 - (exponent - 126));
}

// What a kernel does with each addend: notes its size, or adds it in one way or the other.
struct NoteLargest {
  unsigned* largest;
  __device__ __forceinline__ void operator()(int64_t, float value) const {
    atomicMax(largest, __float_as_uint(value) & 0x7fffffffu);  // a NaN has the largest bits of all
  }
};

struct AddFloat {
  float* values;
  __device__ __forceinline__ void operator()(int64_t at, float value) const { atomicAdd(values + at, value); }
};

struct AddWholeNumber {
  unsigned long long* whole;
  const unsigned* largest;
  __device__ __forceinline__ void operator()(int64_t at, float value) const {
    const long long units = ::llrint(double(value) * exact_scale(largest));
    atomicAdd(whole + at, static_cast<unsigned long long>(units));
  }
};

static __global__ void exact_sums_to_floats_kernel(ExactSums sums) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= sums.count) return;
  const double scale = exact_scale(sums.largest);
  sums.values[i] = scale == 0.0 ? NAN : float(double(static_cast<long long>(sums.whole[i])) / scale);
}

// Launches a kernel that hands each of its addends to the functor which is its last argument. `launch(functor)`.
template <class Launch>
cudaError_t launch_sums(const ExactSums& sums, cudaStream_t stream, const Launch& launch) {
  if (sums.count == 0) return cudaSuccess;
  if (!sums.exact()) {
    launch(AddFloat{sums.values});
    return cudaGetLastError();
  }
  launch(NoteLargest{sums.largest});
  launch(AddWholeNumber{sums.whole, sums.largest});
  SDS3D_LAUNCH(exact_sums_to_floats_kernel, blocks_for(sums.count), THREADS, stream, sums);
  return cudaGetLastError();
}

}  // namespace sds3d
