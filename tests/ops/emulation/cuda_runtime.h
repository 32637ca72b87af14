// CUDA C++ for a host compiler: the words and device functions that .cu files here use, over the fibers of fibers.h.
#pragma once

#include <cmath>
#include <cstring>

#include "cuda_runtime_api.h"
#include "fibers.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static  // blocks run one after the other, and a block's fibers share it
#define __restrict__

#define SDS3D_LAUNCH(kernel, blocks, threads, stream, ...) \
  ((void)(stream), ::emulation::launch((blocks), (threads), [=] { kernel(__VA_ARGS__); }))

using emulation::Site;

inline void __syncthreads(Site site = Site::current()) { emulation::sync_block(true, site); }
inline int __syncthreads_count(int predicate, Site site = Site::current()) {
  return emulation::sync_block(predicate != 0, site);
}
inline int __syncthreads_or(int predicate, Site site = Site::current()) {
  return emulation::sync_block(predicate != 0, site) > 0;
}
inline int __syncthreads_and(int predicate, Site site = Site::current()) {
  return emulation::sync_block(predicate == 0, site) == 0;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, Site site = Site::current()) {
  emulation::warp(emulation::WarpOp::SYNC, mask, 0, 0, site);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, Site site = Site::current()) {
  return unsigned(emulation::warp(emulation::WarpOp::BALLOT, mask, predicate != 0, 0, site));
}
inline int __any_sync(unsigned mask, int predicate, Site site = Site::current()) {
  return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, Site site = Site::current()) {
  return __ballot_sync(mask, predicate, site) == mask;
}

namespace emulation {

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
template <class T>
T shuffle(unsigned mask, T value, int source, const Site& site) {
  return from_bits<T>(warp(WarpOp::SHUFFLE, mask, to_bits(value), source, site));
}

}  // namespace emulation

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, Site site = Site::current()) {
  const int base = emulation::lane() / width * width;
  return emulation::shuffle(mask, value, base + source % width, site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int flip, int width = warpSize, Site site = Site::current()) {
  const int lane = emulation::lane(), source = lane ^ flip;
  return emulation::shuffle(mask, value, source / width <= lane / width ? source : lane, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = warpSize, Site site = Site::current()) {
  const int lane = emulation::lane(), source = lane + int(by);
  return emulation::shuffle(mask, value, source / width == lane / width ? source : lane, site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = warpSize, Site site = Site::current()) {
  const int lane = emulation::lane(), source = lane - int(by);
  return emulation::shuffle(mask, value, source >= lane / width * width ? source : lane, site);
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, Site site = Site::current()) {
  return unsigned(emulation::warp(emulation::WarpOp::MATCH, mask, emulation::to_bits(value), 0, site));
}

// Fibers are switched at barriers and warp operations only, so plain arithmetic is atomic.
template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  *at = old + value;
  return old;
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  if (value > old) *at = value;
  return old;
}
template <class T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  if (value < old) *at = value;
  return old;
}
template <class T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  *at = value;
  return old;
}
template <class T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  *at = old | value;
  return old;
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  const T old = *at;
  if (old == expected) *at = value;
  return old;
}

template <class T>
T __ldg(const T* at) { return *at; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __int_as_float(int x) { return emulation::from_bits<float>(emulation::to_bits(x)); }
inline int __float_as_int(float x) { return emulation::from_bits<int>(emulation::to_bits(x)); }
inline float __uint_as_float(unsigned x) { return emulation::from_bits<float>(emulation::to_bits(x)); }
inline unsigned __float_as_uint(float x) { return emulation::from_bits<unsigned>(emulation::to_bits(x)); }

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
