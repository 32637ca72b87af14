#include "cpu_features.h"

#include <algorithm>
#include <atomic>

namespace sds3d {

namespace {

InstructionSet detect() {
#if SDS3D_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return InstructionSet::AVX512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return InstructionSet::AVX2;
#endif
  return InstructionSet::BASELINE;
}

std::atomic<InstructionSet>& current() {
  static std::atomic<InstructionSet> value{detect()};
  return value;
}

}  // namespace

InstructionSet instruction_set() { return current(); }

InstructionSet limit_instruction_set(int64_t level) {
  current() = std::min(detect(), InstructionSet(std::max<int64_t>(level, 0)));
  return current();
}

}  // namespace sds3d
