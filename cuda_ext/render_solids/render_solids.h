// Ray traces solids in closed form, shaded by a fixed light: the training pictures of the embedded prior. CPU only.
//
// A solid is a shape in [-1, 1]^3 (a ring reaches 1 + tube), taken to the world by p -> R (size * p) + center with
// R = Rz(yaw) Ry(pitch) Rx(roll). What each shape is, and the colours of patterns and materials, say
// sds3d/priors/embedded/solids.py and shading.py, which tests compare this with: the equations are theirs.
//
// A view sees the solids in `ranges[view]`. Every pixel gets samples x samples rays, whose colours are averaged; its
// depth and part are those of the ray through its centre. Instruction sets give the same bits: nothing is contracted.
#pragma once

#include "../common.h"

namespace sds3d {

enum class SolidKind : int { BALL, BOX, FRUSTUM, CUP, RING, PYRAMID, ROOF };
enum class Pattern : int { PLAIN, STRIPED, DOTTED, CHECKERED, TWO_TONE };
enum class Material : int { MATTE, GLOSSY, METAL, WOODEN };

// A row of the tensor `solids`: all numbers are floats there, also the three kinds.
struct SolidRow {
  float shape, center[3], size[3], yaw, pitch, roll;
  float bottom, top, tube;                   // radii of frustum and cup at z = -1 and 1; of a ring's tube
  float color[3];                            // sRGB
  float pattern, second[3], material, axis;  // `second`: the pattern's other colour; `axis`: across stripes
  float origin[3];                           // of the pattern
};
constexpr int64_t SOLID_NUMBERS = sizeof(SolidRow) / sizeof(float);

struct SolidShape {
  int64_t views;
  int height, width, samples;
};

struct SolidInputs {
  const SolidRow* solids;        // [N]
  const int64_t* ranges;         // [B, 2]: first solid and end
  const float* camera_to_world;  // [B, 4, 4]
  const float* to_camera;        // [B, 3, 3], the inverse intrinsics
  const float* dots;             // [DOTS, 3], see dot_directions
};

struct SolidOutputs {
  float* rgba;    // [B, H, W, 4], premultiplied
  float* depth;   // [B, H, W], along the ray from its point nearest to the world's origin; 0 for a miss
  int32_t* part;  // [B, H, W]: 2 k for the k-th solid of the view, 2 k + 1 for a cup's inside; -1 for a miss
};

constexpr int SOLID_LANES = 16;
constexpr int DOTS = 26;
// Floats of working memory for one view: rows of samples, and the prepared solids.
constexpr int64_t SOLID_ROWS = 9, PREPARED_NUMBERS = 64;
inline int64_t solid_scratch(const SolidShape& s, int64_t solids) {
  const int64_t row = (int64_t(s.width) * s.samples + SOLID_LANES - 1) / SOLID_LANES * SOLID_LANES;
  return SOLID_ROWS * row + PREPARED_NUMBERS * solids + SOLID_LANES;
}

// One view; compiled once per instruction set.
using RenderSolids = void (*)(const SolidShape&, const SolidInputs&, const SolidOutputs&, int64_t view, float* scratch);
extern const RenderSolids RENDER_SOLIDS_BASELINE, RENDER_SOLIDS_AVX2;

}  // namespace sds3d
