// The heavy loops for one instruction set; setup.py compiles this file with its flags.
#include "prepare_cpu.h"
#include "rasterize_cpu.h"

namespace sds3d {
const TileKernels TILE_KERNELS_BASELINE = {baseline::prepare, baseline::forward, baseline::backward};
}  // namespace sds3d
