// The hash encoding's loops for one instruction set; setup.py compiles this file with its flags.
#include "hash_cpu.h"

namespace sds3d {
const HashKernels HASH_KERNELS_AVX512 = {avx512::encode, avx512::table_gradient, avx512::point_gradient};
}  // namespace sds3d
