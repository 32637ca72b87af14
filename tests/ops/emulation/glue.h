// Read before every cuda_ext/bindings*.cpp: registers the CUDA glue for CPU tensors, as torch.ops.sds3d_emulated.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#undef STABLE_TORCH_LIBRARY
#define STABLE_TORCH_LIBRARY(ns, m) _STABLE_TORCH_LIBRARY_FRAGMENT(ns##_emulated, m, C10_UID)
#undef STABLE_TORCH_LIBRARY_IMPL
#define STABLE_TORCH_LIBRARY_IMPL(ns, key, m) _STABLE_TORCH_LIBRARY_IMPL(ns##_emulated, EMULATED_##key, m, C10_UID)
#define EMULATED_CUDA CPU
#define EMULATED_CompositeExplicitAutograd CompositeExplicitAutograd

namespace torch::stable::accelerator {
struct EmulatedGuard {
  explicit EmulatedGuard(int) {}
};
}  // namespace torch::stable::accelerator
#define DeviceGuard EmulatedGuard

inline AOTITorchError emulated_current_stream(int, void** stream) {
  *stream = nullptr;
  return AOTI_TORCH_SUCCESS;
}
#define aoti_torch_get_current_cuda_stream emulated_current_stream
