// Launchers of the hash encoding on CUDA; all pointers are device pointers.
#pragma once

#include <cuda_runtime_api.h>

#include "hash_encode.h"

namespace sds3d {

// A thread per point and level; neighbouring threads have neighbouring points of one level.
cudaError_t launch_hash_forward(const HashShape& shape, const HashInputs& in, float* out, cudaStream_t stream);

// Likewise; adds to `grad_table`, which must be zero, with float atomics: its last bits vary from run to run.
cudaError_t launch_hash_table_gradient(const HashShape& shape, const float* points, const float* grad,
                                       float* grad_table, cudaStream_t stream);

// The same in whole numbers, whose sums do not depend on the order: adds rint(gradient scale) to `sums` [E, F], which
// must be zero, and then writes sums / scale. No sum may reach 2^63.
cudaError_t launch_hash_table_gradient_exact(const HashShape& shape, const float* points, const float* grad,
                                             double scale, int64_t entries, int64_t* sums, float* grad_table,
                                             cudaStream_t stream);

// A thread per point, its levels one after the other.
cudaError_t launch_hash_point_gradient(const HashShape& shape, const HashInputs& in, const float* grad,
                                       float* grad_points, cudaStream_t stream);

}  // namespace sds3d
