// The triangle rasterizer for one instruction set; setup.py compiles this file with its flags.
#include "triangles_cpu.h"

namespace sds3d {
const TriangleKernels TRIANGLE_KERNELS_AVX2 = {avx2::rasterize, avx2::rasterize_backward};
}  // namespace sds3d
