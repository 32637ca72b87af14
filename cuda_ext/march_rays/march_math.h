// One ray's march: the same for CPU and CUDA. Rounds as the reference does, operation by operation.
#pragma once

#include "march_rays.h"

namespace sds3d {

SDS3D_HD void count_ray(const MarchShape& shape, const MarchInputs& in, const MarchFound& found, int64_t ray) {
  const float start = in.starts[ray], far = in.far[ray], half = shape.step / 2.0f;
  const float* o = in.origins + 3 * ray;
  const float* d = in.directions + 3 * ray;
  uint64_t* kept = found.kept + ray * found.words;
  float scale[3];  // cells for each unit of length
  for (int c = 0; c < 3; ++c) scale[c] = float(shape.cells[c]) / (in.aabb[3 + c] - in.aabb[c]);
  for (int64_t w = 0; w < found.words; ++w) kept[w] = 0;
  int64_t count = 0;
  double depth = 0.0;
  for (int64_t k = 0; k < shape.max_samples && depth < shape.most_depth; ++k) {
    const float t = start + float(k) * shape.step;
    const float middle = t + half;
    if (!(middle < far)) break;
    const float x = (o[0] + middle * d[0] - in.aabb[0]) * scale[0];
    const float y = (o[1] + middle * d[1] - in.aabb[1]) * scale[1];
    const float z = (o[2] + middle * d[2] - in.aabb[2]) * scale[2];
    const bool within = x >= 0.0f && y >= 0.0f && z >= 0.0f && x < float(shape.cells[0]) && y < float(shape.cells[1]) &&
                        z < float(shape.cells[2]);
    if (!within) continue;
    const int64_t cell = (int64_t(int(x)) * shape.cells[1] + int(y)) * shape.cells[2] + int(z);
    if (!in.binaries[cell]) continue;
    kept[k / 64] |= uint64_t(1) << (k % 64);
    ++count;
    if (in.least != nullptr) depth += double(in.least[cell] * (t + shape.step - t));
  }
  found.counts[ray] = count;
}

SDS3D_HD void fill_ray(const MarchShape& shape, const MarchInputs& in, const MarchFound& found, const MarchSamples& out,
                       int64_t ray) {
  const float start = in.starts[ray], half = shape.step / 2.0f;
  int64_t at = out.offsets[ray];
  for (int64_t w = 0; w < found.words; ++w) {
    uint64_t left = found.kept[ray * found.words + w];
    for (int64_t k = 64 * w; left != 0; ++k, left >>= 1) {
      if ((left & 1) == 0) continue;
      const float t = start + float(k) * shape.step, middle = t + half;
      out.ray_indices[at] = ray;
      out.t_starts[at] = t;
      for (int c = 0; c < 3; ++c)
        out.points[3 * at + c] = in.origins[3 * ray + c] + middle * in.directions[3 * ray + c];
      ++at;
    }
  }
}

}  // namespace sds3d
