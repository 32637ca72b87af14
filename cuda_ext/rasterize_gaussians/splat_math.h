// The formulas of compositing, shared by CPU and CUDA: F is a float (one pixel) or Lanes (a row of sixteen).
#pragma once

#include "rasterize_gaussians.h"

namespace sds3d {

// Scalar twins of the Lanes operations, so that CUDA threads instantiate the same templates.
SDS3D_HD float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
SDS3D_HD float fnma(float a, float b, float c) { return ::fmaf(-a, b, c); }
SDS3D_HD float exp2(float x) { return ::exp2f(x); }
SDS3D_HD float min(float a, float b) { return ::fminf(a, b); }
SDS3D_HD float reciprocal(float x) { return 1.0f / x; }
SDS3D_HD float where(bool m, float a, float b) { return m ? a : b; }
SDS3D_HD float zero_unless(bool m, float a) { return m ? a : 0.0f; }
SDS3D_HD bool any(bool m) { return m; }

// One splat over one pixel or row. `transmittance` is negative where the pixel has ended.
template <class F, class M>
struct Blend {
  M hit;     // alpha is at least 1/255 and the pixel has not ended
  M pass;    // hit, and composited; a hit that does not pass ends the pixel
  M smooth;  // alpha is not clamped
  F alpha, weight, after;
};

// p and row_power: log2(alpha) = row_power - p^2. Forward and backward both call this, so that their decisions agree.
template <class F>
SDS3D_HD auto log2_alpha(F p, F row_power) {
  return fnma(p, p, row_power);
}

template <class F>
SDS3D_HD auto is_hit(F power, F transmittance) {
  return (power >= F(LOG2_ALPHA_CUT)) & (transmittance > F(0.0f));
}

template <class F, class M>
SDS3D_HD Blend<F, M> blend(F power, F transmittance, M hit) {
  Blend<F, M> b;
  const F raw = exp2(power);
  b.hit = hit;
  b.smooth = raw <= F(ALPHA_MAX);
  b.alpha = min(raw, F(ALPHA_MAX));
  const F weight = b.alpha * transmittance;
  b.after = transmittance - weight;
  b.pass = hit & (b.after > F(TRANSMITTANCE_STOP));
  b.weight = zero_unless(b.pass, weight);
  return b;
}

template <class F, class M>
SDS3D_HD F next_transmittance(const Blend<F, M>& b, F transmittance) {
  return where(b.hit, where(b.pass, b.after, -transmittance), transmittance);
}

// dL / d log(alpha), where ahead = what is still to come of <colour, upstream> after this splat, background included:
//   dL / d alpha = T <c, v> - ahead / (1 - alpha)
template <class F, class M>
SDS3D_HD F grad_log_alpha(const Blend<F, M>& b, F weighted_dot, F ahead) {
  const F full = fnma(b.alpha * ahead, reciprocal(F(1.0f) - b.alpha), weighted_dot);
  return zero_unless(b.pass & b.smooth, full);
}

// The conic's Cholesky factor, and whether the splat can be drawn: not culled, finite, conic positive definite, opacity
// above the cut. Without branches, so that the CPU's loop over splats becomes vector code.
struct SplatForm {
  float slope, shear, rise;
  bool usable;
};

SDS3D_HD SplatForm splat_form(float x, float y, float conic_xx, float conic_xy, float conic_yy, float opacity,
                              float extent_x, float extent_y, float depth) {
  SplatForm form;
  form.slope = ::sqrtf(conic_xx * HALF_LOG2_E);
  form.shear = conic_xy * HALF_LOG2_E / form.slope;
  const float rest = (conic_yy - conic_xy * (conic_xy / conic_xx)) * HALF_LOG2_E;
  form.rise = ::sqrtf(rest > 0.0f ? rest : 0.0f);
  const float inputs = x + y + conic_xx + conic_xy + conic_yy + opacity + extent_x + extent_y + depth;
  const float outputs = form.slope + form.shear + form.rise;
  form.usable = (extent_x > 0.0f) & (extent_y > 0.0f) & (opacity > ALPHA_CUT) & (conic_xx > 0.0f) &
                (conic_xx * conic_yy > conic_xy * conic_xy) & is_finite(inputs) & is_finite(outputs) &
                (form.slope > 0.0f);
  return form;
}

// The splat in the pixel loops' form; all zero if it cannot be drawn.
SDS3D_HD bool prepare_splat(const float* mean, const float* conic, float opacity, const float* extent, float depth,
                            Splat* out) {
  const SplatForm form =
      splat_form(mean[0], mean[1], conic[0], conic[1], conic[2], opacity, extent[0], extent[1], depth);
  *out = Splat{};
  if (!form.usable) return false;
  *out = Splat{mean[0], mean[1], form.slope, form.shear, form.rise, ::log2f(opacity)};
  return true;
}

// Index range of 16-pixel tiles whose pixel centres lie in [low, high], clipped to the image; for usable splats.
SDS3D_HD float clipped(float x, float size) {
  const float positive = x > 0.0f ? x : 0.0f;
  return positive < size ? positive : size;
}
SDS3D_HD int first_tile(float low, float size) { return int(clipped(::ceilf(low - 0.5f), size)) / TILE; }
SDS3D_HD int last_tile(float low, float high, float size) {
  const int begin = int(clipped(::ceilf(low - 0.5f), size)), end = int(clipped(::floorf(high - 0.5f) + 1.0f, size));
  return end > begin ? (end + TILE - 1) / TILE : begin / TILE;
}

SDS3D_HD TileBox tile_box(const Splat& splat, const float* extent, int width, int height) {
  const float left = splat.x - extent[0], right = splat.x + extent[0], w = float(width);
  const float top = splat.y - extent[1], bottom = splat.y + extent[1], h = float(height);
  return {int16_t(first_tile(left, w)), int16_t(first_tile(top, h)), int16_t(last_tile(left, right, w)),
          int16_t(last_tile(top, bottom, h))};
}

// The least of p^2 + q^2 (see Splat) over a rectangle around which [left, right] x [top, bottom] are offsets from the
// mean. It is convex: the least lies at the mean if that is inside, and else on an edge that faces the mean.
SDS3D_HD float clamped(float x, float low, float high) { return ::fminf(::fmaxf(x, low), high); }
SDS3D_HD float power_at(const Splat& splat, float dx, float dy) {
  const float p = splat.slope * dx + splat.shear * dy, q = splat.rise * dy;
  return p * p + q * q;
}
SDS3D_HD float least_power(const Splat& splat, float left, float right, float top, float bottom) {
  const bool beside = left > 0.0f || right < 0.0f, above = top > 0.0f || bottom < 0.0f;
  if (!beside && !above) return 0.0f;
  float least = INFINITY;
  if (beside) {
    const float dx = left > 0.0f ? left : right;
    const float dy = -splat.shear * splat.slope * dx / (splat.shear * splat.shear + splat.rise * splat.rise);
    least = power_at(splat, dx, clamped(dy, top, bottom));
  }
  if (above) {
    const float dy = top > 0.0f ? top : bottom;
    least = ::fminf(least, power_at(splat, clamped(-splat.shear * dy / splat.slope, left, right), dy));
  }
  return least;
}

// Whether the splat's ellipse of alpha 1/255 may reach a pixel centre of tile (x, y): the box of a slanted splat meets
// tiles that the splat does not. The pixel loops decide exactly; the slack covers the rounding here.
constexpr float REACH_SLACK = 0.01f;  // of log2 alpha
SDS3D_HD bool reaches_tile(const Splat& splat, int x, int y) {
  const float left = float(x * TILE) + 0.5f - splat.x, top = float(y * TILE) + 0.5f - splat.y;
  const float least = least_power(splat, left, left + float(TILE - 1), top, top + float(TILE - 1));
  return splat.log2_opacity - least >= LOG2_ALPHA_CUT - REACH_SLACK;
}

// Sorts like the float does, NaN aside.
SDS3D_HD uint32_t sortable_bits(float depth) {
  union {
    float f;
    uint32_t u;
  } bits = {depth};
  return bits.u & 0x80000000u ? ~bits.u : bits.u | 0x80000000u;
}

// Gradients of one splat in one view from its summed record; returns its share of dL / d opacity.
SDS3D_HD float splat_gradients(const float* record, const float* conic, float opacity, int channels, float* grad_mean,
                               float* grad_conic, float* grad_features) {
  grad_mean[0] = conic[0] * record[SUM_GX] + conic[1] * record[SUM_GY];
  grad_mean[1] = conic[1] * record[SUM_GX] + conic[2] * record[SUM_GY];
  grad_conic[0] = -0.5f * record[SUM_GXX];
  grad_conic[1] = -record[SUM_GXY];
  grad_conic[2] = -0.5f * record[SUM_GYY];
  for (int c = 0; c < channels; ++c) grad_features[c] = record[SUM_FEATURES + c];
  return record[SUM_G] / opacity;
}

}  // namespace sds3d
