// Colours of 16 surface points of one solid: pattern, material and light, as sds3d/priors/embedded/shading.py has them.
#pragma once

#include <cmath>

#include "../simd/lanes.h"
#include "hit_solids.h"
#include "render_solids.h"

namespace sds3d {
namespace SDS3D_ISA {

static constexpr float LIGHT[3] = {0.55f, 0.35f, 0.76f};
static constexpr float AMBIENT = 0.70f, DIFFUSE = 0.34f, STRIPE = 0.25f, CHECK = 1.0f / 3.0f, GRAIN = 40.0f;
static constexpr float BROWN[3] = {0.45f, 0.27f, 0.13f};
static constexpr float COS_DOT_RADIUS = 0.9689124217106447f;  // of 0.25 radians

static inline int floor_of(float x) {  // SSE2 has no instruction for it
  const int whole = int(x);
  return whole - (x < float(whole) ? 1 : 0);
}

// To about 1e-6 for |x| < 1000: x - k pi in two steps, and the odd series up to its eleventh power.
static inline float sine(float x) {
  const int k = floor_of(x * 0.3183098861837907f + 0.5f);
  const float r = (x - float(k) * 3.140625f) - float(k) * 9.67653589793e-4f, s = r * r;
  const float p =
      r * (1.0f + s * (-1.0f / 6 + s * (1.0f / 120 + s * (-1.0f / 5040 + s * (1.0f / 362880 - s / 39916800)))));
  return (k & 1) != 0 ? -p : p;
}

static inline float power3(float x) { return x * x * x; }

static inline void normalize(Vectors* v) {
  for (int k = 0; k < SOLID_LANES; ++k) {
    const float x = v->at[0][k], y = v->at[1][k], z = v->at[2][k], length = std::sqrt(x * x + y * y + z * z);
    const float divisor = length > TINY ? length : TINY;
    for (int i = 0; i < 3; ++i) v->at[i][k] /= divisor;
  }
}

// 1 at the points at which the pattern shows its second colour.
static inline void second_color(const SolidRow& row, const float* dots, const Vectors& offset, int32_t* shown) {
  const auto& at = offset.at;
  switch (Pattern(int(row.pattern))) {
    case Pattern::PLAIN:
      for (int k = 0; k < SOLID_LANES; ++k) shown[k] = 0;
      return;
    case Pattern::STRIPED:
      for (int k = 0; k < SOLID_LANES; ++k) shown[k] = floor_of(at[int(row.axis)][k] / STRIPE + 0.5f) & 1;
      return;
    case Pattern::CHECKERED:
      for (int k = 0; k < SOLID_LANES; ++k) {
        shown[k] = (floor_of(at[0][k] / CHECK) + floor_of(at[1][k] / CHECK) + floor_of(at[2][k] / CHECK)) & 1;
      }
      return;
    case Pattern::TWO_TONE:
      for (int k = 0; k < SOLID_LANES; ++k) shown[k] = at[2][k] < 0.0f ? 1 : 0;
      return;
    case Pattern::DOTTED: {
      Vectors unit = offset;
      normalize(&unit);
      alignas(64) float nearest[SOLID_LANES];
      for (int k = 0; k < SOLID_LANES; ++k) nearest[k] = -1.0f;
      for (const float* dot = dots; dot < dots + 3 * DOTS; dot += 3) {
        for (int k = 0; k < SOLID_LANES; ++k) {
          const float cosine = unit.at[0][k] * dot[0] + unit.at[1][k] * dot[1] + unit.at[2][k] * dot[2];
          nearest[k] = cosine > nearest[k] ? cosine : nearest[k];
        }
      }
      for (int k = 0; k < SOLID_LANES; ++k) shown[k] = nearest[k] > COS_DOT_RADIUS ? 1 : 0;
      return;
    }
  }
}

static void paint(const SolidRow& row, const float* dots, const Vectors& points, const Vectors& normals,
                  Vectors* colors) {
  const float length = std::sqrt(LIGHT[0] * LIGHT[0] + LIGHT[1] * LIGHT[1] + LIGHT[2] * LIGHT[2]);
  Vectors offset;
  alignas(64) float facing[SOLID_LANES], factor[SOLID_LANES], added[SOLID_LANES];
  alignas(64) int32_t second[SOLID_LANES];
  for (int k = 0; k < SOLID_LANES; ++k) {
    facing[k] =
        max_zero((normals.at[0][k] * LIGHT[0] + normals.at[1][k] * LIGHT[1] + normals.at[2][k] * LIGHT[2]) / length);
    factor[k] = AMBIENT + DIFFUSE * facing[k];
    added[k] = 0.0f;
    for (int i = 0; i < 3; ++i) offset.at[i][k] = points.at[i][k] - row.origin[i];
  }
  second_color(row, dots, offset, second);
  float own = 1.0f;  // share of the albedo, the rest is brown
  switch (Material(int(row.material))) {
    case Material::MATTE:
      break;
    case Material::GLOSSY:  // a soft sheen and a hard spot
      for (int k = 0; k < SOLID_LANES; ++k) {
        const float square = facing[k] * facing[k], fourth = square * square;
        factor[k] *= 0.94f;
        added[k] = 0.16f * fourth + 0.75f * power3(fourth * fourth * fourth * fourth);
      }
      break;
    case Material::METAL:  // sky above, horizon, ground below
      for (int k = 0; k < SOLID_LANES; ++k) {
        const float bands = 0.5f + 0.5f * sine(7.0f * normals.at[2][k] + 2.5f * normals.at[1][k] + 1.2f);
        const float third = power3(facing[k]), sixth = third * third, twelfth = sixth * sixth;
        factor[k] = 0.42f + 0.62f * bands;
        added[k] = 0.22f * power3(bands) + 0.35f * (twelfth * twelfth);
      }
      break;
    case Material::WOODEN:
      own = 0.8f;
      for (int k = 0; k < SOLID_LANES; ++k) {
        const float y = offset.at[1][k] + 0.23f, z = 0.35f * offset.at[2][k];
        const float rings = std::sqrt(y * y + z * z) + 0.3f * offset.at[0][k];
        const float grain = 0.5f + 0.5f * sine(GRAIN * rings + 2.0f * sine(5.0f * offset.at[2][k]));
        factor[k] *= 0.62f + 0.38f * grain;
      }
      break;
  }
  for (int i = 0; i < 3; ++i) {
    const float first = own * row.color[i] + (1.0f - own) * BROWN[i],
                other = own * row.second[i] + (1.0f - own) * BROWN[i];
    for (int k = 0; k < SOLID_LANES; ++k) {
      const float value = max_zero((second[k] != 0 ? other : first) * factor[k] + added[k]);
      colors->at[i][k] = value < 1.0f ? value : 1.0f;
    }
  }
}

}  // namespace SDS3D_ISA
}  // namespace sds3d
