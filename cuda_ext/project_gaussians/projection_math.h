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

SDS3D_HD Gaussian load_gaussian(const ProjectInputs& in, int64_t i) {
  Gaussian g;
  g.mean = load3(in.means + 3 * i);
  g.scale = load3(in.scales + 3 * i);
  const float* q = in.quats + 4 * i;
  const float norm2 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
  const float opacity = in.opacities[i];
  g.usable = is_finite(g.mean.x + g.mean.y + g.mean.z) && is_finite(g.scale.x + g.scale.y + g.scale.z) &&
             is_finite(norm2) && is_finite(opacity) && norm2 > MIN_QUAT_NORM_SQUARED && opacity > ALPHA_CUT;
  if (!g.usable) return g;
  g.inverse_norm = 1.0f / ::sqrtf(norm2);
  for (int k = 0; k < 4; ++k) g.quat[k] = q[k] * g.inverse_norm;
  const float w = g.quat[0], x = g.quat[1], y = g.quat[2], z = g.quat[3];
  g.rotation = {{{1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)},
                 {2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)},
                 {2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)}}};
  g.cut = 2.0f * ::logf(opacity / ALPHA_CUT);
  return g;
}

SDS3D_HD Vec3 scaled(Vec3 a, Vec3 s) { return {a.x * s.x, a.y * s.y, a.z * s.z}; }

// What forward and backward both need of a splat in a view.
struct Footprint {
  Vec3 point;             // camera space
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

// Writes one splat in one view; false (and zeros) if culled: behind `near`, invisible, off the image, or not finite.
SDS3D_HD bool project_splat(const Gaussian& g, const View& v, const ProjectShape& shape, float* mean2d, float* conic,
                            float* depth, float* extent) {
  mean2d[0] = mean2d[1] = conic[0] = conic[1] = conic[2] = *depth = extent[0] = extent[1] = 0.0f;
  if (!g.usable || !(dot(v.axes.row[2], g.mean - v.origin) > shape.near)) return false;
  const Footprint f = footprint(g, v, shape.dilation);
  const float x = v.fx * f.point.x / f.point.z + v.cx, y = v.fy * f.point.y / f.point.z + v.cy;
  const float extent_x = ::sqrtf(g.cut * f.xx), extent_y = ::sqrtf(g.cut * f.yy);
  const float inverse = 1.0f / f.determinant;
  const float sum = x + y + extent_x + extent_y + f.determinant + inverse + inverse * f.xx + inverse * f.yy;
  const bool on_image = x + extent_x > 0.0f && x - extent_x < shape.width && y + extent_y > 0.0f &&
                        y - extent_y < shape.height;
  if (!is_finite(sum) || !on_image || !(f.determinant > 0.0f)) return false;
  mean2d[0] = x;
  mean2d[1] = y;
  conic[0] = f.yy * inverse;
  conic[1] = -f.xy * inverse;
  conic[2] = f.xx * inverse;
  *depth = f.point.z;
  extent[0] = extent_x;
  extent[1] = extent_y;
  return true;
}

// Gradients of one splat summed over views: of its mean, and of the columns' frame W^T (dL / d(W R S)) = dL / d(R S).
struct GaussianGradient {
  Vec3 mean;
  Mat3 axes;
};

SDS3D_HD void add_view_gradient(const Gaussian& g, const View& v, float dilation, const float* grad_mean2d,
                                const float* grad_conic, float grad_depth, GaussianGradient* out) {
  const Footprint f = footprint(g, v, dilation);
  const float inverse = 1.0f / f.determinant, inverse_z = 1.0f / f.point.z;
  // dL / d(covariance) = -Q G Q with Q the conic and G its gradient as a full symmetric matrix.
  const float a = f.yy * inverse, b = -f.xy * inverse, c = f.xx * inverse;
  const float ga = grad_conic[0], gb = 0.5f * grad_conic[1], gc = grad_conic[2];
  const float left_a = a * ga + b * gb, left_b = a * gb + b * gc, right_a = b * ga + c * gb, right_b = b * gb + c * gc;
  const float grad_xx = -(left_a * a + left_b * b), grad_yy = -(right_a * b + right_b * c);
  const float grad_xy = -2.0f * (left_a * b + left_b * c);
  const Vec3 grad_row_x = 2.0f * grad_xx * f.row_x + grad_xy * f.row_y;
  const Vec3 grad_row_y = 2.0f * grad_yy * f.row_y + grad_xy * f.row_x;

  const Vec3 grad_axis_x = (v.fx * inverse_z) * grad_row_x, grad_axis_y = (v.fy * inverse_z) * grad_row_y;
  const Vec3 grad_axis_z = (-f.slope_x) * grad_axis_x - f.slope_y * grad_axis_y;
  Vec3 grad_point = {v.fx * inverse_z * grad_mean2d[0], v.fy * inverse_z * grad_mean2d[1], grad_depth};
  grad_point.z -= inverse_z * (grad_point.x * f.point.x + grad_point.y * f.point.y);
  grad_point.z -= inverse_z * (dot(f.row_x, grad_row_x) + dot(f.row_y, grad_row_y));
  const float x = f.point.x * inverse_z, y = f.point.y * inverse_z;
  if (x >= v.slope_x_low && x <= v.slope_x_high) {
    const float grad_slope = -dot(f.axis_z, grad_axis_x) * inverse_z;
    grad_point.x += grad_slope;
    grad_point.z -= grad_slope * x;
  }
  if (y >= v.slope_y_low && y <= v.slope_y_high) {
    const float grad_slope = -dot(f.axis_z, grad_axis_y) * inverse_z;
    grad_point.y += grad_slope;
    grad_point.z -= grad_slope * y;
  }
  out->mean = out->mean + transposed_times(v.axes, grad_point);
  const Vec3 wx = v.axes.row[0], wy = v.axes.row[1], wz = v.axes.row[2];
  out->axes.row[0] = out->axes.row[0] + (wx.x * grad_axis_x + wy.x * grad_axis_y) + wz.x * grad_axis_z;
  out->axes.row[1] = out->axes.row[1] + (wx.y * grad_axis_x + wy.y * grad_axis_y) + wz.y * grad_axis_z;
  out->axes.row[2] = out->axes.row[2] + (wx.z * grad_axis_x + wy.z * grad_axis_y) + wz.z * grad_axis_z;
}

// From the gradient of the axes R S to those of scales and raw quaternion.
SDS3D_HD void write_gradient(const Gaussian& g, const GaussianGradient& grad, float* grad_mean, float* grad_quat,
                             float* grad_scale) {
  grad_mean[0] = grad.mean.x;
  grad_mean[1] = grad.mean.y;
  grad_mean[2] = grad.mean.z;
  Vec3 scale = {0, 0, 0};
  Mat3 r;  // dL / dR
  for (int k = 0; k < 3; ++k) {
    scale = scale + scaled(grad.axes.row[k], g.rotation.row[k]);
    r.row[k] = scaled(grad.axes.row[k], g.scale);
  }
  grad_scale[0] = scale.x;
  grad_scale[1] = scale.y;
  grad_scale[2] = scale.z;
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
  for (int k = 0; k < 4; ++k) grad_quat[k] = (unit[k] - along * g.quat[k]) * g.inverse_norm;
}

}  // namespace sds3d
