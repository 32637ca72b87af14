// Outlines on the CPU.
#include "outline_math.h"

namespace sds3d {

void outline_crossings(const TriangleShape& shape, const OutlineInputs& in, int64_t view, int64_t edges,
                       std::vector<int32_t>* index, std::vector<float>* value) {
  const float* points = in.mesh.points + view * shape.vertices * 3;
  std::vector<uint8_t> front(shape.faces);  // once per face, because most edges end here
  for (int64_t face = 0; face < shape.faces; ++face) front[face] = faces_camera(in.mesh, points, face);
  for (int64_t edge = 0; edge < edges; ++edge) {
    const int32_t* row = in.edges + 4 * edge;
    if (row[3] >= 0 && front[row[2]] == front[row[3]]) continue;
    const int32_t third = outline_corner(shape, in, view, edge);
    if (third < 0) continue;
    for (const bool steep : {false, true}) {
      const OutlineWalk walk = outline_walk(shape, in, view, edge, third, steep);
      for (int k = walk.first; k <= walk.last; ++k) {
        Crossing crossing;
        if (!crossing_at(shape, in, walk, view, k, &crossing)) continue;
        int32_t ints[CROSSING_INTS];
        float numbers[CROSSING_FLOATS];
        write_crossing({ints, numbers}, 0, view, walk, crossing);
        index->insert(index->end(), ints, ints + CROSSING_INTS);
        value->insert(value->end(), numbers, numbers + CROSSING_FLOATS);
      }
    }
  }
}

void blend_outlines(const BlendShape& shape, const BlendInputs& in, float* out, int64_t begin, int64_t end) {
  const auto add = [out](int64_t at, float value) { out[at] += value; };
  for (int64_t n = begin; n < end; ++n) blend_crossing(shape, in, n, add);
}

void blend_outlines_backward(const BlendShape& shape, const BlendInputs& in, const float* upstream, float* grad_color,
                             float* grad_points, int64_t begin, int64_t end) {
  const auto add_color = [grad_color](int64_t at, float value) { grad_color[at] += value; };
  const auto add_point = [grad_points](int64_t at, float value) { grad_points[at] += value; };
  for (int64_t n = begin; n < end; ++n) {
    if (grad_color != nullptr) blend_color_gradient(shape, in, upstream, n, add_color);
    if (grad_points != nullptr) blend_point_gradient(shape, in, upstream, n, add_point);
  }
}

}  // namespace sds3d
