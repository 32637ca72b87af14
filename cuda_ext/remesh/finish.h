#pragma once
#include <cstdint>
#include <vector>
#include "surface_tree.h"
namespace sds3d {
struct FinishOptions {
  int rounds = 3, normal_steps = 20, smooth_steps = 2, chain_steps = 6, even_steps = 2, fit_steps = 10;
  bool guided = true;
  double sigma = 0.25, smooth_sigma = 0.5, crease_deg = 30;
};
void finish(const FinishOptions& options, const std::vector<Triangle>& triangles, std::vector<Vec>* points);
}  // namespace sds3d
