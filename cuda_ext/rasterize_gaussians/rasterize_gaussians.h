// Compositing of projected Gaussians, front to back (Kerbl et al. 2023). float32, row-major, all pointers contiguous.
//
//   image = sum_i T_i alpha_i features_i + T background,   T_i = prod_{j<i} (1 - alpha_j)
//   alpha_i = min(0.999, opacity_i exp(-d^T conic_i d / 2)), d from the mean to the pixel's centre (+0.5)
//
// Alphas below 1/255 count as zero; a pixel ends before the splat that would bring T to 1e-4 or below.
// Axes: B views, N splats, C channels, H W image, K tile hits (a splat whose box meets a 16x16 tile).
#pragma once

#include "../common.h"

namespace sds3d {

constexpr int RECORD = 16;  // floats per gradient record; see RecordField

// What one tile hit contributes to its splat's gradients; sums over pixels, G = dL / d log(alpha), d = pixel - mean.
enum RecordField { SUM_G, SUM_GX, SUM_GXX, SUM_GY, SUM_GXY, SUM_GYY, SUM_FEATURES };  // then C feature gradients

struct RasterShape {
  int64_t views, splats;
  int channels, height, width;
  SDS3D_SHAPE_FN int tiles_x() const { return (width + TILE - 1) / TILE; }
  SDS3D_SHAPE_FN int tiles_y() const { return (height + TILE - 1) / TILE; }
  SDS3D_SHAPE_FN int64_t tiles() const { return int64_t(tiles_x()) * tiles_y(); }  // per view
};

struct SplatInputs {
  const float* means2d;    // [B, N, 2] pixels
  const float* conics;     // [B, N, 3] xx, xy, yy
  const float* opacities;  // [N]
  const float* features;   // [B, N, C]
  const float* radii;      // [B, N, 2] half box in pixels; 0 culls
  const float* depths;     // [B, N]
};

// A splat in the form the pixel loop wants: log2(alpha) = log2_opacity - p^2 - q^2 with p = slope dx + shear dy and
// q = rise dy, the Cholesky factor of the conic. Unlike the expanded quadratic it cannot round to alpha > opacity.
struct Splat {
  float x, y;  // pixels
  float slope, shear, rise;
  float log2_opacity;
};

// Tiles [x0, x1) x [y0, y1) met by a splat's box; empty when culled.
struct TileBox {
  int16_t x0, y0, x1, y1;
  SDS3D_SHAPE_FN int64_t count() const { return int64_t(x1 - x0) * (y1 - y0); }
};

struct TileHit {
  int32_t splat;   // index into [B, N], flattened
  int32_t record;  // where its gradient record goes: records of one splat are adjacent
};

// What the forward pass leaves for the backward pass.
struct TileLists {
  Splat* splats;            // [B, N]
  int32_t* tile_offsets;    // [B * tiles + 1], into hits
  int32_t* record_offsets;  // [B * N + 1], into records
  TileHit* hits;            // [K], front to back within a tile
};

struct RasterImages {
  const float* background;  // [B, C]
  float* image;             // [B, H, W, C]
  float* transmittance;     // [B, H, W]
};

struct RasterGradients {
  const float* image;               // [B, H, W, C]
  const float* transmittance;       // [B, H, W]
  const float* grad_image;          // [B, H, W, C]
  const float* grad_transmittance;  // [B, H, W]
  float* records;                   // [K, RECORD]
};

struct SplatGradients {
  float* means2d;    // [B, N, 2]
  float* conics;     // [B, N, 3]
  float* opacities;  // [N]
  float* features;   // [B, N, C]
};

// CPU, one view per call: from the view's boxes, fills `order` (drawable splats by depth, ties by index) and the number
// of hits of each tile; returns the number of drawable splats. `scratch` holds 4 N integers.
int64_t order_view(const RasterShape& shape, const float* depths, int64_t view, const TileBox* boxes, int32_t* order,
                   int64_t* tile_counts, uint32_t* scratch);

// CPU, rows [first_row, last_row) of a view's tiles: writes their lists; `cursors` are the view's tile offsets and are
// advanced.
void list_hits(const RasterShape& shape, int64_t view, int first_row, int last_row, const TileBox* boxes,
               const int32_t* order, int64_t drawable, const int32_t* record_offsets, int32_t* cursors, TileHit* hits);

// CPU, splats [begin, end): sums the records of each splat over tiles, and opacities over views, in a fixed order.
void sum_records(const RasterShape& shape, const SplatInputs& in, const int32_t* record_offsets, const float* records,
                 const SplatGradients& out, int64_t begin, int64_t end);

// The heavy loops, compiled once per instruction set: splats [begin, end) of a view and their boxes (both arrays are
// the view's); and the pixel loops, one tile per call (tile in [0, B * tiles)).
struct TileKernels {
  void (*prepare)(const RasterShape&, const SplatInputs&, int64_t view, int64_t begin, int64_t end, Splat* splats,
                  TileBox* boxes);
  void (*forward)(const RasterShape&, const float* features, const TileLists&, const RasterImages&, int64_t tile);
  void (*backward)(const RasterShape&, const float* features, const TileLists&, const RasterGradients&, int64_t tile);
};
extern const TileKernels TILE_KERNELS_BASELINE, TILE_KERNELS_AVX2, TILE_KERNELS_AVX512;

}  // namespace sds3d
