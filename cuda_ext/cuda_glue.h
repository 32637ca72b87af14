// What the glue of the CUDA operators shares.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "tensors.h"

namespace sds3d {

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// The tensor's device, made current for as long as this lives, and torch's current stream on it.
struct OnDevice {
  torch::stable::accelerator::DeviceGuard guard;
  cudaStream_t stream = nullptr;

  explicit OnDevice(const Tensor& like) : guard(like.get_device_index()) {
    void* current = nullptr;
    if (aoti_torch_get_current_cuda_stream(like.get_device_index(), &current) != AOTI_TORCH_SUCCESS) {
      throw std::runtime_error("torch has no current CUDA stream");
    }
    stream = static_cast<cudaStream_t>(current);
  }
};

}  // namespace sds3d
