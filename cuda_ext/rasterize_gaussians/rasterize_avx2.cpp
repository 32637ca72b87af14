// The heavy loops for one instruction set; setup.py compiles this file with its flags.
#include "prepare_cpu.h"
#include "rasterize_cpu.h"

namespace sds3d {
const TileKernels TILE_KERNELS_AVX2 = {avx2::prepare, avx2::forward, avx2::backward};
}  // namespace sds3d
