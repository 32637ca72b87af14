// Which compiled variant of the CPU kernels this processor runs.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#define SDS3D_X86 1
#else
#define SDS3D_X86 0
#endif

namespace sds3d {

enum class InstructionSet : int64_t { BASELINE, AVX2, AVX512 };

// The best one supported here, unless limited.
InstructionSet instruction_set();

// Uses at most `level` from now on (for tests and benchmarks); returns what is used.
InstructionSet limit_instruction_set(int64_t level);

}  // namespace sds3d
