// Kernels with one mistake each, and one without: the emulation must tell them apart. Run by name, for test_emulation.py.
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace {

constexpr int THREADS = 64;

// Reverses 64 numbers through shared memory.
template <bool WITH_BARRIER>
__global__ void reverse(int* numbers) {
  __shared__ int copy[THREADS];
  copy[threadIdx.x] = numbers[threadIdx.x];
  if (WITH_BARRIER) __syncthreads();
  numbers[threadIdx.x] = copy[THREADS - 1 - threadIdx.x];
}

__global__ void sum_warps(int* numbers) {
  int sum = numbers[threadIdx.x];
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  const unsigned odd = __ballot_sync(0xffffffffu, threadIdx.x % 2);
  numbers[threadIdx.x] = odd == 0xaaaaaaaau ? sum : -1;
}

__global__ void barrier_in_a_branch(int* numbers) {
  if (numbers[threadIdx.x] < 40) __syncthreads();
}

__global__ void two_barriers(int* numbers) {
  if (numbers[threadIdx.x] < 40) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void vote_of_half_a_warp(int* numbers) {
  if (threadIdx.x % 2) numbers[threadIdx.x] = __any_sync(0xffffffffu, 1);
}

__global__ void shuffle_from_outside(int* numbers) {
  if (threadIdx.x % 32 < 16) numbers[threadIdx.x] = __shfl_sync(0x0000ffffu, numbers[threadIdx.x], 20);
}

void run(const std::string& name, int* numbers) {
  cudaStream_t stream = nullptr;
  if (name == "reverse") SDS3D_LAUNCH(reverse<true>, 1, THREADS, stream, numbers);
  if (name == "missing_barrier") SDS3D_LAUNCH(reverse<false>, 1, THREADS, stream, numbers);
  if (name == "sum_warps") SDS3D_LAUNCH(sum_warps, 1, THREADS, stream, numbers);
  if (name == "barrier_in_a_branch") SDS3D_LAUNCH(barrier_in_a_branch, 1, THREADS, stream, numbers);
  if (name == "two_barriers") SDS3D_LAUNCH(two_barriers, 1, THREADS, stream, numbers);
  if (name == "vote_of_half_a_warp") SDS3D_LAUNCH(vote_of_half_a_warp, 1, THREADS, stream, numbers);
  if (name == "shuffle_from_outside") SDS3D_LAUNCH(shuffle_from_outside, 1, THREADS, stream, numbers);
}

}  // namespace

// Runs one kernel on 64 numbers; returns what the emulation says against it, or an empty text.
extern "C" __attribute__((visibility("default"))) const char* emulation_self_test(const char* name, int* numbers) {
  static std::string said;
  said.clear();
  try {
    run(name, numbers);
  } catch (const std::runtime_error& error) {
    said = error.what();
  }
  return said.c_str();
}
