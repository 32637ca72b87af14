// Isotropic remeshing of a triangle mesh, and how thick the solid within is. CPU only, float64, no torch.
//
// Corners of faces are counter-clockwise seen from outside. Results do not depend on the number of threads: remeshing
// takes one, and thickness is told point by point.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "surface_tree.h"

namespace sds3d {

struct RemeshOptions {
  double edge_length;  // the longest target, in units of the points
  int iterations;
  double crease_deg;   // edges that bend by more are creases; 180 or more: none
  int64_t most_faces;  // more than so many are not made
};

// Equalizes edges to `size` (one per point, or empty: edge_length everywhere), which is never taken above edge_length.
// Returns what is wrong with the mesh or the result; empty if nothing is.
std::string remesh(const RemeshOptions& options, const std::vector<double>& size, std::vector<Vec>* points,
                   std::vector<Triangle>* triangles);

// For points [begin, end): the larger of the depth (median of rays into the solid, in a cone around minus the normal)
// and the width (twice the second shortest ray across, from half that depth). Infinite where rays do not leave.
void thickness(const SurfaceTree& tree, const Vec* points, const Vec* normals, double* out, int64_t begin, int64_t end);

}  // namespace sds3d
