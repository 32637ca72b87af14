// Flat faces and straight creases on a rough surface, whose faces stay as they are. CPU only, float64, no torch; one
// thread.
#pragma once

#include <vector>

#include "surface_tree.h"

namespace sds3d {

struct FinishOptions {
  int rounds;
  double crease_deg;  // edges at which the filtered normals bend by more are creases
};

// Each round filters the faces' normals, finds creases in them, straightens these along themselves, evens the other
// vertices out and fits all of them to the normals. `thickness` is the solid's, one per point.
void finish(const FinishOptions& options, const std::vector<Triangle>& triangles, const std::vector<double>& thickness,
            std::vector<Vec>* points);

}  // namespace sds3d
