// The hash encoding's loops for one instruction set; setup.py compiles this file with its flags.
#include "hash_cpu.h"

namespace sds3d {
const HashKernels HASH_KERNELS_BASELINE = {baseline::encode, baseline::table_gradient, baseline::point_gradient};
}  // namespace sds3d
