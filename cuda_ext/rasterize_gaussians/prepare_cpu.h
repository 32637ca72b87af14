// From a view's projected splats to the pixel loops' form and their tile boxes. Included once per instruction set: the
// loop over a block has no branches and its values lie apart by kind, so the compiler makes vector code of it.
#pragma once

#include "../simd/lanes.h"
#include "splat_math.h"

namespace sds3d {
namespace SDS3D_ISA {

constexpr int BLOCK = 64;  // splats

struct PreparedBlock {
  alignas(64) float x[BLOCK], y[BLOCK], conic_xx[BLOCK], conic_xy[BLOCK], conic_yy[BLOCK];
  alignas(64) float opacity[BLOCK], extent_x[BLOCK], extent_y[BLOCK], depth[BLOCK];
  alignas(64) float slope[BLOCK], shear[BLOCK], rise[BLOCK];
  alignas(64) int usable[BLOCK], x0[BLOCK], y0[BLOCK], x1[BLOCK], y1[BLOCK];
};

// Splats [first, first + count) of the view; the rest of the block gets an extent of 0, which culls.
static inline void load_block(const SplatInputs& in, int64_t view_offset, int64_t first, int count,
                              PreparedBlock* block) {
  PreparedBlock& b = *block;
  const int64_t k = view_offset + first;
  const float *mean = in.means2d + 2 * k, *conic = in.conics + 3 * k, *extent = in.radii + 2 * k;
  for (int j = 0; j < count; ++j) {
    b.x[j] = mean[2 * j];
    b.y[j] = mean[2 * j + 1];
    b.conic_xx[j] = conic[3 * j];
    b.conic_xy[j] = conic[3 * j + 1];
    b.conic_yy[j] = conic[3 * j + 2];
    b.extent_x[j] = extent[2 * j];
    b.extent_y[j] = extent[2 * j + 1];
    b.depth[j] = in.depths[k + j];
    b.opacity[j] = in.opacities[first + j];
  }
  for (int j = count; j < BLOCK; ++j) {
    b.x[j] = b.y[j] = b.conic_xx[j] = b.conic_xy[j] = b.conic_yy[j] = 0.0f;
    b.extent_x[j] = b.extent_y[j] = b.depth[j] = b.opacity[j] = 0.0f;
  }
}

static inline void prepare_block(float width, float height, PreparedBlock* block) {
  PreparedBlock& b = *block;
  for (int j = 0; j < BLOCK; ++j) {
    const SplatForm form = splat_form(b.x[j], b.y[j], b.conic_xx[j], b.conic_xy[j], b.conic_yy[j], b.opacity[j],
                                      b.extent_x[j], b.extent_y[j], b.depth[j]);
    b.slope[j] = form.slope;
    b.shear[j] = form.shear;
    b.rise[j] = form.rise;
    b.usable[j] = form.usable;
    // What is not usable may be NaN, and NaN has no integer.
    const float x = form.usable ? b.x[j] : 0.0f, y = form.usable ? b.y[j] : 0.0f;
    const float across = form.usable ? b.extent_x[j] : 0.0f, down = form.usable ? b.extent_y[j] : 0.0f;
    b.x0[j] = first_tile(x - across, width);
    b.x1[j] = last_tile(x - across, x + across, width);
    b.y0[j] = first_tile(y - down, height);
    b.y1[j] = last_tile(y - down, y + down, height);
  }
}

static void prepare(const RasterShape& shape, const SplatInputs& in, int64_t view, int64_t begin, int64_t end,
                    Splat* splats, TileBox* boxes) {
  PreparedBlock b;
  for (int64_t first = begin; first < end; first += BLOCK) {
    const int count = int(end - first < BLOCK ? end - first : BLOCK);
    load_block(in, view * shape.splats, first, count, &b);
    prepare_block(float(shape.width), float(shape.height), &b);
    for (int j = 0; j < count; ++j) {
      splats[first + j] = Splat{};
      boxes[first + j] = TileBox{};
      if (!b.usable[j]) continue;
      splats[first + j] = {b.x[j], b.y[j], b.slope[j], b.shear[j], b.rise[j], ::log2f(b.opacity[j])};
      boxes[first + j] = {int16_t(b.x0[j]), int16_t(b.y0[j]), int16_t(b.x1[j]), int16_t(b.y1[j])};
    }
  }
}

}  // namespace SDS3D_ISA
}  // namespace sds3d
