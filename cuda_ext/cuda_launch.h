// What every .cu file needs to launch a kernel. No torch.
#pragma once

#include <cuda_runtime.h>

#include "common.h"

// Every launch goes through this macro: a host build without a GPU defines its own, beside its own cuda_runtime.h, and
// runs the same files on the CPU. For that reason there is no inline PTX, no cooperative group, and no dynamic shared
// memory either.
#ifndef SDS3D_LAUNCH
#define SDS3D_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<(blocks), (threads), 0, (stream)>>>(__VA_ARGS__)
#endif

namespace sds3d {

constexpr int THREADS = 256;  // per block, in kernels with a thread per item
constexpr int WARP = 32;
constexpr unsigned FULL_WARP = 0xffffffffu;

// The grid for a thread per item; callers launch nothing for no items.
inline unsigned blocks_for(int64_t items) { return unsigned((items + THREADS - 1) / THREADS); }

}  // namespace sds3d
