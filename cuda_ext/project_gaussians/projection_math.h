// The formulas of projection, one splat in one view at a time; shared by CPU and CUDA.
#pragma once

#include "project_gaussians.h"

namespace sds3d {

struct Vec3 {
  float x, y, z;
};
SDS3D_HD Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
SDS3D_HD Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
SDS3D_HD Vec3 operator*(float s, Vec3 a) { return {s * a.x, s * a.y, s * a.z}; }
SDS3D_HD float dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
SDS3D_HD Vec3 cross(Vec3 a, Vec3 b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
SDS3D_HD Vec3 load3(const float* p) { return {p[0], p[1], p[2]}; }
SDS3D_HD float clamped(float x, float low, float high) { return x < low ? low : (x > high ? high : x); }

struct Mat3 {
  Vec3 row[3];
};
SDS3D_HD Vec3 operator*(const Mat3& m, Vec3 v) { return {dot(m.row[0], v), dot(m.row[1], v), dot(m.row[2], v)}; }
SDS3D_HD Vec3 transposed_times(const Mat3& m, Vec3 v) { return v.x * m.row[0] + v.y * m.row[1] + v.z * m.row[2]; }

struct View {
  Mat3 axes;  // rows: the camera's x, y, z in world coordinates
  Vec3 origin;
  float fx, fy, cx, cy;
  float slope_x_low, slope_x_high, slope_y_low, slope_y_high;  // where the Jacobian may be taken
};

SDS3D_HD View load_view(const float* camera_to_world, const float* intrinsics, int height, int width) {
  const float* m = camera_to_world;
  View v;
  v.axes = {{{m[0], m[4], m[8]}, {m[1], m[5], m[9]}, {m[2], m[6], m[10]}}};
  v.origin = {m[3], m[7], m[11]};
  v.fx = intrinsics[0];
  v.fy = intrinsics[4];
  v.cx = intrinsics[2];
  v.cy = intrinsics[5];
  const float margin_x = JACOBIAN_MARGIN * width, margin_y = JACOBIAN_MARGIN * height;
  v.slope_x_low = (-margin_x - v.cx) / v.fx;
  v.slope_x_high = (width + margin_x - v.cx) / v.fx;
  v.slope_y_low = (-margin_y - v.cy) / v.fy;
  v.slope_y_high = (height + margin_y - v.cy) / v.fy;
  return v;
}

// A splat in world space: its axes are the rotation's columns times the scales.
struct Gaussian {
  Vec3 mean, scale;
  float quat[4], inverse_norm;  // quat is unit
  Mat3 rotation;
  float cut;  // 2 ln(255 opacity)
  bool usable;
};

// Without branches, so that the CPU's loop over splats becomes vector code; what is not usable holds anything.
SDS3D_HD Gaussian make_gaussian(Vec3 mean, Vec3 scale, float qw, float qx, float qy, float qz, float opacity,
                                float cut) {
  Gaussian g;
  g.mean = mean;
  g.scale = scale;
  const float norm2 = qw * qw + qx * qx + qy * qy + qz * qz;
  g.usable = is_finite(mean.x + mean.y + mean.z) & is_finite(scale.x + scale.y + scale.z) & is_finite(norm2) &
             is_finite(opacity) & (norm2 > MIN_QUAT_NORM_SQUARED) & (opacity > ALPHA_CUT);
  g.inverse_norm = 1.0f / ::sqrtf(norm2);
  const float w = qw * g.inverse_norm, x = qx * g.inverse_norm, y = qy * g.inverse_norm, z = qz * g.inverse_norm;
  g.quat[0] = w;
  g.quat[1] = x;
  g.quat[2] = y;
  g.quat[3] = z;
  g.rotation = {{{1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)},
                 {2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)},
                 {2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)}}};
  g.cut = cut;
  return g;
}

SDS3D_HD float opacity_cut(float opacity) { return 2.0f * ::logf(opacity / ALPHA_CUT); }

SDS3D_HD Gaussian load_gaussian(const ProjectInputs& in, int64_t i) {
  const float *q = in.quats + 4 * i, opacity = in.opacities[i];
  return make_gaussian(load3(in.means + 3 * i), load3(in.scales + 3 * i), q[0], q[1], q[2], q[3], opacity,
                       opacity_cut(opacity));
}

SDS3D_HD Vec3 scaled(Vec3 a, Vec3 s) { return {a.x * s.x, a.y * s.y, a.z * s.z}; }

// What forward and backward both need of a splat in a view.
struct Footprint {
  Vec3 point;                   // camera space
  Vec3 axis_x, axis_y, axis_z;  // rows of W R S
  float slope_x, slope_y;       // clamped point.xy / point.z
  Vec3 row_x, row_y;            // rows of J W R S
  float xx, xy, yy, determinant;
};

SDS3D_HD Footprint footprint(const Gaussian& g, const View& v, float dilation) {
  Footprint f;
  f.point = v.axes * (g.mean - v.origin);
  const float inverse_z = 1.0f / f.point.z;
  f.slope_x = clamped(f.point.x * inverse_z, v.slope_x_low, v.slope_x_high);
  f.slope_y = clamped(f.point.y * inverse_z, v.slope_y_low, v.slope_y_high);
  f.axis_x = scaled(transposed_times(g.rotation, v.axes.row[0]), g.scale);
  f.axis_y = scaled(transposed_times(g.rotation, v.axes.row[1]), g.scale);
  f.axis_z = scaled(transposed_times(g.rotation, v.axes.row[2]), g.scale);
  f.row_x = (v.fx * inverse_z) * (f.axis_x - f.slope_x * f.axis_z);
  f.row_y = (v.fy * inverse_z) * (f.axis_y - f.slope_y * f.axis_z);
  f.xx = dot(f.row_x, f.row_x) + dilation;
  f.yy = dot(f.row_y, f.row_y) + dilation;
  f.xy = dot(f.row_x, f.row_y);
  // Lagrange's identity: the same as xx yy - xy^2, as a sum of terms that cannot cancel.
  const Vec3 c = cross(f.row_x, f.row_y);
  f.determinant = dot(c, c) + dilation * (f.xx + f.yy - dilation);
  return f;
}

// One splat in one view; all zero if culled: behind `near`, invisible, off the image, or not finite.
struct Projection {
  float mean_x, mean_y, conic_xx, conic_xy, conic_yy, depth, extent_x, extent_y;
};

SDS3D_HD Projection project_splat(const Gaussian& g, const View& v, const ProjectShape& shape) {
  const Footprint f = footprint(g, v, shape.dilation);
  const float x = v.fx * f.point.x / f.point.z + v.cx, y = v.fy * f.point.y / f.point.z + v.cy;
  const float extent_x = ::sqrtf(g.cut * f.xx), extent_y = ::sqrtf(g.cut * f.yy);
  const float inverse = 1.0f / f.determinant;
  const float sum = x + y + extent_x + extent_y + f.determinant + inverse + inverse * f.xx + inverse * f.yy;
  const bool shown = g.usable & (f.point.z > shape.near) & is_finite(sum) & (f.determinant > 0.0f) &
                     (x + extent_x > 0.0f) & (x - extent_x < float(shape.width)) & (y + extent_y > 0.0f) &
                     (y - extent_y < float(shape.height));
  Projection p;
  p.mean_x = shown ? x : 0.0f;
  p.mean_y = shown ? y : 0.0f;
  p.conic_xx = shown ? f.yy * inverse : 0.0f;
  p.conic_xy = shown ? -f.xy * inverse : 0.0f;
  p.conic_yy = shown ? f.xx * inverse : 0.0f;
  p.depth = shown ? f.point.z : 0.0f;
  p.extent_x = shown ? extent_x : 0.0f;
  p.extent_y = shown ? extent_y : 0.0f;
  return p;
}

SDS3D_HD void store_projection(const Projection& p, const ProjectOutputs& out, int64_t k) {
  out.means2d[2 * k] = p.mean_x;
  out.means2d[2 * k + 1] = p.mean_y;
  out.conics[3 * k] = p.conic_xx;
  out.conics[3 * k + 1] = p.conic_xy;
  out.conics[3 * k + 2] = p.conic_yy;
  out.depths[k] = p.depth;
  out.radii[2 * k] = p.extent_x;
  out.radii[2 * k + 1] = p.extent_y;
}

// Gradients of one splat summed over views: of its mean, and of the columns' frame W^T (dL / d(W R S)) = dL / d(R S).
struct GaussianGradient {
  Vec3 mean;
  Mat3 axes;
};

// The share of one view, from its upstream gradient; zero where the splat was culled. Without branches, as above.
struct ProjectionGradient {
  float mean_x, mean_y, conic_xx, conic_xy, conic_yy, depth;
};

SDS3D_HD Vec3 zero_unless(bool m, Vec3 a) { return {m ? a.x : 0.0f, m ? a.y : 0.0f, m ? a.z : 0.0f}; }

SDS3D_HD GaussianGradient view_gradient(const Gaussian& g, const View& v, float dilation, bool visible,
                                        const ProjectionGradient& grad) {
  const Footprint f = footprint(g, v, dilation);
  const float inverse = 1.0f / f.determinant, inverse_z = 1.0f / f.point.z;
  // dL / d(covariance) = -Q G Q with Q the conic and G its gradient as a full symmetric matrix.
  const float a = f.yy * inverse, b = -f.xy * inverse, c = f.xx * inverse;
  const float ga = grad.conic_xx, gb = 0.5f * grad.conic_xy, gc = grad.conic_yy;
  const float left_a = a * ga + b * gb, left_b = a * gb + b * gc, right_a = b * ga + c * gb, right_b = b * gb + c * gc;
  const float grad_xx = -(left_a * a + left_b * b), grad_yy = -(right_a * b + right_b * c);
  const float grad_xy = -2.0f * (left_a * b + left_b * c);
  const Vec3 grad_row_x = 2.0f * grad_xx * f.row_x + grad_xy * f.row_y;
  const Vec3 grad_row_y = 2.0f * grad_yy * f.row_y + grad_xy * f.row_x;

  const Vec3 grad_axis_x = (v.fx * inverse_z) * grad_row_x, grad_axis_y = (v.fy * inverse_z) * grad_row_y;
  const Vec3 grad_axis_z = (-f.slope_x) * grad_axis_x - f.slope_y * grad_axis_y;
  Vec3 grad_point = {v.fx * inverse_z * grad.mean_x, v.fy * inverse_z * grad.mean_y, grad.depth};
  grad_point.z -= inverse_z * (grad_point.x * f.point.x + grad_point.y * f.point.y);
  grad_point.z -= inverse_z * (dot(f.row_x, grad_row_x) + dot(f.row_y, grad_row_y));
  const float x = f.point.x * inverse_z, y = f.point.y * inverse_z;
  const bool free_x = (x >= v.slope_x_low) & (x <= v.slope_x_high);  // else the slope is a constant
  const bool free_y = (y >= v.slope_y_low) & (y <= v.slope_y_high);
  const float grad_slope_x = free_x ? -dot(f.axis_z, grad_axis_x) * inverse_z : 0.0f;
  const float grad_slope_y = free_y ? -dot(f.axis_z, grad_axis_y) * inverse_z : 0.0f;
  grad_point.x += grad_slope_x;
  grad_point.z -= grad_slope_x * x;
  grad_point.y += grad_slope_y;
  grad_point.z -= grad_slope_y * y;
  const Vec3 wx = v.axes.row[0], wy = v.axes.row[1], wz = v.axes.row[2];
  GaussianGradient out;
  out.mean = zero_unless(visible, transposed_times(v.axes, grad_point));
  out.axes.row[0] = zero_unless(visible, (wx.x * grad_axis_x + wy.x * grad_axis_y) + wz.x * grad_axis_z);
  out.axes.row[1] = zero_unless(visible, (wx.y * grad_axis_x + wy.y * grad_axis_y) + wz.y * grad_axis_z);
  out.axes.row[2] = zero_unless(visible, (wx.z * grad_axis_x + wy.z * grad_axis_y) + wz.z * grad_axis_z);
  return out;
}

SDS3D_HD void add(const GaussianGradient& share, GaussianGradient* sum) {
  sum->mean = sum->mean + share.mean;
  for (int k = 0; k < 3; ++k) sum->axes.row[k] = sum->axes.row[k] + share.axes.row[k];
}

// From the gradient of the axes R S to those of scales and raw quaternion; zero for a splat that no view shows.
struct SplatGradient {
  Vec3 mean, scale;
  float quat[4];
};

SDS3D_HD SplatGradient splat_gradient(const Gaussian& g, const GaussianGradient& grad, bool visible) {
  Vec3 scale = {0, 0, 0};
  Mat3 r;  // dL / dR
  for (int k = 0; k < 3; ++k) {
    scale = scale + scaled(grad.axes.row[k], g.rotation.row[k]);
    r.row[k] = scaled(grad.axes.row[k], g.scale);
  }
  const Vec3 a = r.row[0], b = r.row[1], c = r.row[2];
  const float w = g.quat[0], x = g.quat[1], y = g.quat[2], z = g.quat[3];
  const float unit[4] = {
      2 * (x * (c.y - b.z) + y * (a.z - c.x) + z * (b.x - a.y)),
      2 * (w * (c.y - b.z) + y * (a.y + b.x) + z * (a.z + c.x) - 2 * x * (b.y + c.z)),
      2 * (w * (a.z - c.x) + x * (a.y + b.x) + z * (b.z + c.y) - 2 * y * (a.x + c.z)),
      2 * (w * (b.x - a.y) + x * (a.z + c.x) + y * (b.z + c.y) - 2 * z * (a.x + b.y)),
  };
  float along = 0.0f;  // the component along the quaternion changes only its length
  for (int k = 0; k < 4; ++k) along += unit[k] * g.quat[k];
  SplatGradient out;
  out.mean = zero_unless(visible, grad.mean);
  out.scale = zero_unless(visible, scale);
  for (int k = 0; k < 4; ++k) out.quat[k] = visible ? (unit[k] - along * g.quat[k]) * g.inverse_norm : 0.0f;
  return out;
}

SDS3D_HD void store_gradient(const SplatGradient& g, const ProjectGradients& out, int64_t i) {
  out.grad_means[3 * i] = g.mean.x;
  out.grad_means[3 * i + 1] = g.mean.y;
  out.grad_means[3 * i + 2] = g.mean.z;
  out.grad_scales[3 * i] = g.scale.x;
  out.grad_scales[3 * i + 1] = g.scale.y;
  out.grad_scales[3 * i + 2] = g.scale.z;
  for (int k = 0; k < 4; ++k) out.grad_quats[4 * i + k] = g.quat[k];
}

SDS3D_HD ProjectionGradient load_upstream(const ProjectGradients& grad, int64_t k) {
  const float *mean = grad.means2d + 2 * k, *conic = grad.conics + 3 * k;
  return {mean[0], mean[1], conic[0], conic[1], conic[2], grad.depths[k]};
}

}  // namespace sds3d
