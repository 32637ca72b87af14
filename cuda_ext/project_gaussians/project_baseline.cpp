// Projection for one instruction set; setup.py compiles this file with its flags.
#include "project_cpu.h"

namespace sds3d {
const ProjectKernels PROJECT_KERNELS_BASELINE = {baseline::project_forward, baseline::project_backward};
}  // namespace sds3d
