// Projection for one instruction set; setup.py compiles this file with its flags.
#include "project_cpu.h"

namespace sds3d {
const ProjectKernels PROJECT_KERNELS_AVX2 = {avx2::project_forward, avx2::project_backward};
}  // namespace sds3d
