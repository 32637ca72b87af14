// The hash encoding's loops for one instruction set; setup.py compiles this file with its flags.
#include "hash_cpu.h"

namespace sds3d {
const HashKernels HASH_KERNELS_AVX2 = {avx2::encode, avx2::table_gradient, avx2::point_gradient};
}  // namespace sds3d
