// Sums that many threads add to at once: float atomics, whose last bits vary from run to run, or, where results must be
// the same each time, whole numbers, whose order does not matter.
//
// The whole numbers' unit is the largest addend times 2^-40 (rounded to a power of two), so that 2^22 addends to one
// sum stay below 2^63. The largest addend is found by a pass of its own, on the device: nothing is waited for.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sds3d {

struct ExactSums {
  float* values;              // [count]; zeroed by the caller
  unsigned long long* whole;  // [count], zeroed; null: add floats
  unsigned* largest;          // the bits of the largest magnitude, zeroed; unused where whole is null
  int64_t count;

  bool exact() const { return whole != nullptr; }
};

}  // namespace sds3d
