// Marching on the CPU, a ray at a time.
#include "march_math.h"

namespace sds3d {

void march_count(const MarchShape& shape, const MarchInputs& in, const MarchFound& found, int64_t begin, int64_t end) {
  for (int64_t ray = begin; ray < end; ++ray) count_ray(shape, in, found, ray);
}

void march_fill(const MarchShape& shape, const MarchInputs& in, const MarchFound& found, const MarchSamples& out,
                int64_t begin, int64_t end) {
  for (int64_t ray = begin; ray < end; ++ray) fill_ray(shape, in, found, out, ray);
}

}  // namespace sds3d
