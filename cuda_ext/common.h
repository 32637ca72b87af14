// What every kernel file shares: host/device markers and the constants of the compositing convention. No torch, no STL.
#pragma once

#include <cmath>
#include <cstdint>

// Internal linkage on the host: CPU kernel files are compiled for several instruction sets, and the linker must never
// merge an AVX-512 copy of an inline function into code that runs on an older processor.
#if defined(__CUDACC__)
#define SDS3D_HD static __host__ __device__ __forceinline__
#else
#define SDS3D_HD static inline
#endif

#if defined(__CUDACC__)
#define SDS3D_SHAPE_FN __host__ __device__ __forceinline__
#else
#define SDS3D_SHAPE_FN inline __attribute__((always_inline))  // never a mergeable copy; see SDS3D_HD
#endif

namespace sds3d {

constexpr int TILE = 16;  // pixels per tile side, and lanes per row
constexpr float ALPHA_MAX = 0.999f;
constexpr float ALPHA_CUT = 1.0f / 255.0f;
constexpr float LOG2_ALPHA_CUT = -7.994353436858858f;
constexpr float TRANSMITTANCE_STOP = 1e-4f;
constexpr float HALF_LOG2_E = 0.7213475204444817f;
constexpr float JACOBIAN_MARGIN = 0.15f;  // share of the image on each side
constexpr float MIN_QUAT_NORM_SQUARED = 1e-20f;
constexpr int64_t MAX_TILE_HITS = int64_t(1) << 25;  // 2 GiB of gradient records; a sane scene has 1% of it

SDS3D_HD bool is_finite(float x) { return x - x == 0.0f; }

}  // namespace sds3d
