// The operators that change a mesh itself, CPU only: checks and allocation.
#include "remesh/finish.h"
#include "remesh/remesh.h"
#include "tensors.h"

namespace sds3d {

namespace {

constexpr int64_t POINT_GRAIN = 64;

std::vector<Vec> points_of(const Tensor& t, const char* name) {
  require(t.dim() == 2, "vertices: expected [V, 3]");
  const Tensor values = checked(t, name, DOUBLE, {t.size(0), 3}, t);
  const Vec* first = reinterpret_cast<const Vec*>(values.const_data_ptr());
  return {first, first + t.size(0)};
}

std::vector<Triangle> triangles_of(const Tensor& t, int64_t vertices) {
  require(t.dim() == 2, "faces: expected [F, 3]");
  const Tensor values = checked(t, "faces", INT, {t.size(0), 3}, t);
  const Triangle* first = reinterpret_cast<const Triangle*>(values.const_data_ptr());
  std::vector<Triangle> triangles(first, first + t.size(0));
  for (const Triangle& triangle : triangles) {
    for (int32_t corner : triangle) require(corner >= 0 && corner < vertices, "faces: an index is out of range");
  }
  return triangles;
}

std::vector<double> numbers_of(const Tensor& t, const char* name, const Tensor& vertices) {
  const Tensor values = checked(t, name, DOUBLE, {vertices.size(0)}, vertices);
  const double* first = static_cast<const double*>(values.const_data_ptr());
  return {first, first + vertices.size(0)};
}

std::tuple<Tensor, Tensor> remesh_cpu(Tensor vertices, Tensor faces, Tensor size, double edge_length,
                                      int64_t iterations, double crease_deg, int64_t most_faces) {
  std::vector<Vec> points = points_of(vertices, "vertices");
  std::vector<Triangle> triangles = triangles_of(faces, int64_t(points.size()));
  std::vector<double> targets;
  if (size.numel() > 0) targets = numbers_of(size, "size", vertices);
  const std::string wrong =
      remesh({edge_length, int(iterations), crease_deg, most_faces}, targets, &points, &triangles);
  if (!wrong.empty()) throw std::runtime_error(wrong);
  const Tensor new_vertices = empty({int64_t(points.size()), 3}, DOUBLE, vertices);
  const Tensor new_faces = empty({int64_t(triangles.size()), 3}, INT, faces);
  std::copy(points.begin(), points.end(), data<Vec>(new_vertices));
  std::copy(triangles.begin(), triangles.end(), data<Triangle>(new_faces));
  return {new_vertices, new_faces};
}

Tensor mesh_thickness_cpu(Tensor vertices, Tensor faces, Tensor normals) {
  const std::vector<Vec> points = points_of(vertices, "vertices"), directions = points_of(normals, "normals");
  require(points.size() == directions.size(), "normals: expected one for each vertex");
  const SurfaceTree tree(points, triangles_of(faces, int64_t(points.size())));
  const Tensor out = empty({vertices.size(0)}, DOUBLE, vertices);
  torch::stable::parallel_for(0, vertices.size(0), POINT_GRAIN, [&](int64_t begin, int64_t end) {
    thickness(tree, points.data(), directions.data(), data<double>(out), begin, end);
  });
  return out;
}

Tensor finish_mesh_cpu(Tensor vertices, Tensor faces, Tensor thickness, int64_t rounds, double crease_deg) {
  std::vector<Vec> points = points_of(vertices, "vertices");
  const std::vector<Triangle> triangles = triangles_of(faces, int64_t(points.size()));
  finish({int(rounds), crease_deg}, triangles, numbers_of(thickness, "thickness", vertices), &points);
  const Tensor out = empty({vertices.size(0), 3}, DOUBLE, vertices);
  std::copy(points.begin(), points.end(), data<Vec>(out));
  return out;
}

}  // namespace

}  // namespace sds3d

STABLE_TORCH_LIBRARY_IMPL(sds3d, CPU, m) {
  m.impl("remesh", TORCH_BOX(&sds3d::remesh_cpu));
  m.impl("finish_mesh", TORCH_BOX(&sds3d::finish_mesh_cpu));
  m.impl("mesh_thickness", TORCH_BOX(&sds3d::mesh_thickness_cpu));
}
