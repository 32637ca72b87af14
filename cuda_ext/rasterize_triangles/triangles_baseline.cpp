// The triangle rasterizer for one instruction set; setup.py compiles this file with its flags.
#include "triangles_cpu.h"

namespace sds3d {
const TriangleKernels TRIANGLE_KERNELS_BASELINE = {baseline::rasterize, baseline::rasterize_backward};
}  // namespace sds3d
