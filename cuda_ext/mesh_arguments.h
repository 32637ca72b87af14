// The mesh operators' arguments, checked and turned into the kernels' structs: the same for CPU and CUDA.
#pragma once

#include "interpolate/interpolate.h"
#include "outlines/outlines.h"
#include "rasterize_triangles/rasterize_triangles.h"
#include "tensors.h"

namespace sds3d {

inline const int32_t* ints(const Tensor& t) { return static_cast<const int32_t*>(t.const_data_ptr()); }

// Of rasterize_triangles, its backward op, and outline_crossings. Faces are looked up unchecked: sds3d/ops checks them.
struct TriangleArguments {
  TriangleShape shape;
  Tensor points, faces;
  TriangleInputs in;

  TriangleArguments(const Tensor& points_, const Tensor& faces_, int64_t height, int64_t width)
      : shape(shape_of(points_, faces_, height, width)),
        points(checked(points_, "points", FLOAT, {shape.views, shape.vertices, 3}, points_)),
        faces(checked(faces_, "faces", INT, {shape.faces, 3}, points_)),
        in{floats(points), ints(faces)} {}

 private:
  static TriangleShape shape_of(const Tensor& points, const Tensor& faces, int64_t height, int64_t width) {
    require(points.dim() == 3 && faces.dim() == 2, "expected points [B, V, 3] and faces [F, 3]");
    require(height > 0 && width > 0 && height < 32768 && width < 32768, "height and width must be in [1, 32767]");
    const TriangleShape shape = {points.size(0), points.size(1), faces.size(0), int(height), int(width)};
    require(shape.views * shape.vertices < INT32_MAX && shape.views * shape.faces < INT32_MAX / 32,
            "views * vertices must be below 2^31 and views * faces below 2^26");
    return shape;
  }
};

struct TriangleResults {
  Tensor face, barycentric, depth;
  TriangleOutputs out;

  explicit TriangleResults(const TriangleArguments& a)
      : face(empty({a.shape.views, a.shape.height, a.shape.width}, INT, a.points)),
        barycentric(empty({a.shape.views, a.shape.height, a.shape.width, 3}, FLOAT, a.points)),
        depth(empty({a.shape.views, a.shape.height, a.shape.width}, FLOAT, a.points)),
        out{data<int32_t>(face), floats_out(barycentric), floats_out(depth)} {}
};

// Of interpolate and its backward op.
struct InterpolateArguments {
  InterpolateShape shape;
  Tensor attributes, faces, face, barycentric;
  InterpolateInputs in;

  InterpolateArguments(const Tensor& attributes_, const Tensor& faces_, const Tensor& face_, const Tensor& barycentric_)
      : shape(shape_of(attributes_, face_)) {
    const int64_t h = face_.size(1), w = face_.size(2);
    attributes = shape.shared ? checked(attributes_, "attributes", FLOAT, {shape.vertices, shape.channels}, attributes_)
                              : checked(attributes_, "attributes", FLOAT, {shape.views, shape.vertices, shape.channels},
                                        attributes_);
    faces = checked(faces_, "faces", INT, {faces_.size(0), 3}, attributes_);
    face = checked(face_, "face", INT, {shape.views, h, w}, attributes_);
    barycentric = checked(barycentric_, "barycentric", FLOAT, {shape.views, h, w, 3}, attributes_);
    in = {floats(attributes), ints(faces), ints(face), floats(barycentric)};
  }

  int64_t all_pixels() const { return shape.views * shape.pixels; }

 private:
  static InterpolateShape shape_of(const Tensor& attributes, const Tensor& face) {
    require(face.dim() == 3, "face: expected [B, H, W]");
    require(attributes.dim() == 2 || attributes.dim() == 3, "attributes: expected [V, K] or [B, V, K]");
    const bool shared = attributes.dim() == 2;
    const int64_t channels = attributes.size(shared ? 1 : 2);
    require(channels > 0 && channels < 4096, "attributes: K must be in [1, 4095]");
    return {face.size(0), attributes.size(shared ? 0 : 1), face.size(1) * face.size(2), int(channels), shared};
  }
};

struct OutlineArguments {
  TriangleArguments mesh;
  Tensor edges, depth;
  OutlineInputs in;

  OutlineArguments(const Tensor& points, const Tensor& faces, const Tensor& edges_, const Tensor& depth_,
                   double tolerance)
      : mesh(points, faces, depth_.dim() == 3 ? depth_.size(1) : 0, depth_.dim() == 3 ? depth_.size(2) : 0),
        edges(checked(edges_, "edges", INT, {edges_.size(0), 4}, mesh.points)),
        depth(checked(depth_, "depth", FLOAT, {mesh.shape.views, mesh.shape.height, mesh.shape.width}, mesh.points)),
        in{mesh.in, ints(edges), floats(depth), float(tolerance)} {
    require(mesh.shape.views * edges.size(0) < INT32_MAX, "views * edges must be below 2^31");
  }
};

// Of blend_outlines and its backward op. The points' values are not needed, their number is.
struct BlendArguments {
  BlendShape shape;
  int64_t views;
  Tensor color, index, value;
  BlendInputs in;

  BlendArguments(const Tensor& color_, const Tensor& points, const Tensor& index_, const Tensor& value_)
      : shape(shape_of(color_, points, index_)),
        views(color_.size(0)),
        color(checked(color_, "color", FLOAT, {views, color_.size(1), color_.size(2), shape.channels}, color_)),
        index(checked(index_, "index", INT, {shape.crossings, CROSSING_INTS}, color_)),
        value(checked(value_, "value", FLOAT, {shape.crossings, CROSSING_FLOATS}, color_)),
        in{floats(color), ints(index), floats(value)} {}

 private:
  static BlendShape shape_of(const Tensor& color, const Tensor& points, const Tensor& index) {
    require(color.dim() == 4 && points.dim() == 3 && index.dim() == 2 && points.size(0) == color.size(0),
            "expected color [B, H, W, K], points [B, V, 3] and index [N, 5]");
    return {index.size(0), points.size(1), color.size(1) * color.size(2), int(color.size(3))};
  }
};

}  // namespace sds3d
