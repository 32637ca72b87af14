// A block of CUDA threads on one CPU thread: a fiber each, switched by hand, run in an order that a seed decides.
//
// A fiber runs until it meets a barrier or a warp operation and goes on when all that take part have met it, so what a
// kernel leaves unordered really comes in another order with another seed. What is wrong with a launch (a barrier that
// some threads never reach, a warp operation that its lanes disagree about, a shuffle from a lane outside the mask) ends
// it with a std::runtime_error. Not found: data races within straight code, memory order, speed.
#pragma once

#include <cstdint>
#include <functional>
#include <source_location>

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace emulation {

using Site = std::source_location;

enum class WarpOp { BALLOT, SHUFFLE, SYNC, MATCH };

// Runs every block of the grid, one after the other in random order.
void launch(dim3 blocks, dim3 threads, const std::function<void()>& kernel);

// Both are called from fibers. `sync_block` returns how many threads of the block gave a true predicate.
int sync_block(bool predicate, const Site& site);

// `value` is the lane's own, `source` the lane that a shuffle reads. Returns the votes of the mask's lanes (BALLOT: those
// with value != 0, MATCH: those with this lane's value), or what the source lane brought.
uint64_t warp(WarpOp op, uint32_t mask, uint64_t value, int source, const Site& site);

int lane();

// Ends the launch; from fibers only.
[[noreturn]] void fail(const char* what, const Site& site);

}  // namespace emulation
