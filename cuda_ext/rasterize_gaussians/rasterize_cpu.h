// The pixel loops on the CPU. Included once per instruction set by rasterize_{baseline,avx2,avx512}.cpp.
//
// A tile's state stays in the first-level cache; a row of sixteen pixels is one Lanes. For each splat, all sixteen rows
// are tested at once, lane = row, and only the row segments that the splat's ellipse really meets are visited.
#pragma once

#include "../simd/lanes.h"
#include "../simd/set_bits.h"
#include "splat_math.h"

namespace sds3d {
namespace SDS3D_ISA {

constexpr int PIXELS = TILE * TILE;
constexpr int GROUP = 16;  // splats between tests whether all pixels have ended
constexpr int AHEAD = 6;   // hits between fetching a splat and needing it

struct TilePlace {
  int64_t view;
  int left, top, width, height;  // pixels; the last row and column of tiles may be cut off
  TilePlace(const RasterShape& shape, int64_t tile) : view(tile / shape.tiles()) {
    const int64_t inside = tile % shape.tiles();
    left = int(inside % shape.tiles_x()) * TILE;
    top = int(inside / shape.tiles_x()) * TILE;
    width = shape.width - left < TILE ? shape.width - left : TILE;
    height = shape.height - top < TILE ? shape.height - top : TILE;
  }
  int64_t pixel(const RasterShape& shape, int y, int x) const {
    return (view * shape.height + top + y) * shape.width + left + x;
  }
};

// A splat seen from a tile: log2(alpha) at column x of row y is row_power[y] - (column_p[x] + row_p[y])^2. Returns a
// bit for each row of which some pixel reaches the cut.
static inline uint32_t splat_rows(const Splat& splat, const TilePlace& place, Lanes* dx, Lanes* column_p, Lanes* dy,
                                  float* row_p, float* row_power) {
  *dx = iota() + Lanes(float(place.left) + 0.5f - splat.x);
  *column_p = *dx * Lanes(splat.slope);
  *dy = iota() + Lanes(float(place.top) + 0.5f - splat.y);
  const Lanes p = *dy * Lanes(splat.shear), q = *dy * Lanes(splat.rise);
  const Lanes power = fnma(q, q, Lanes(splat.log2_opacity));
  p.store(row_p);
  power.store(row_power);
  // p grows along a row: the smallest |p| is at an end or, if the ends differ in sign, zero.
  const float first = (float(place.left) + 0.5f - splat.x) * splat.slope;
  const float last = (15.0f + (float(place.left) + 0.5f - splat.x)) * splat.slope;
  const Lanes nearest = max(max(Lanes(first) + p, -(Lanes(last) + p)), Lanes(0.0f));
  return to_bits(log2_alpha(nearest, power) >= Lanes(LOG2_ALPHA_CUT));
}

struct SplatRows {
  Lanes dx, column_p;
  alignas(64) float dy[TILE], row_p[TILE], row_power[TILE];
  uint32_t rows;

  SplatRows(const Splat& splat, const TilePlace& place) {
    Lanes y;
    rows = splat_rows(splat, place, &dx, &column_p, &y, row_p, row_power);
    y.store(dy);
  }
};

// The rows of a group of splats as one list: a loop over each splat's own few rows would guess its end wrongly nearly
// every time, and that costs as much as a row.
struct RowList {
  Lanes column_p[GROUP];
  alignas(64) float row_p[GROUP * TILE], row_power[GROUP * TILE];  // [splat][row]
  const float* feature[GROUP];
  uint8_t rows[GROUP * TILE + TILE];  // 16 splat + row, splat after splat
  int length;

  void add(int j, const Splat& splat, const TilePlace& place) {
    Lanes dx, dy;
    const uint32_t bits = splat_rows(splat, place, &dx, &column_p[j], &dy, row_p + j * TILE, row_power + j * TILE);
    length += append_set_bits(bits & 0xff, uint8_t(j * TILE), rows + length);
    length += append_set_bits(bits >> 8, uint8_t(j * TILE + 8), rows + length);
  }
};

// A tile's splats lie all over memory.
template <int C>
static inline void fetch_ahead(const TileLists& lists, const float* features, int32_t k, int32_t end) {
  const int64_t index = lists.hits[k + AHEAD < end ? k + AHEAD : end - 1].splat;
  __builtin_prefetch(lists.splats + index);
  __builtin_prefetch(features + index * C);
}

// Negative marks pixels as ended; those outside the image start that way.
static inline void start_transmittance(const TilePlace& place, float* transmittance) {
  const Lanes inside = where(Lanes(float(place.width)) > iota(), Lanes(1.0f), Lanes(-1.0f));
  for (int y = 0; y < TILE; ++y) (y < place.height ? inside : Lanes(-1.0f)).store(transmittance + y * TILE);
}

static inline void clear(float* pixels) {
  for (int i = 0; i < PIXELS; i += TILE) Lanes(0.0f).store(pixels + i);
}

static inline bool all_ended(const float* transmittance) {
  Lanes most = Lanes::load(transmittance);
  for (int y = 1; y < TILE; ++y) most = max(most, Lanes::load(transmittance + y * TILE));
  return !any(most > Lanes(0.0f));
}

template <int C>
static void forward_tile(const RasterShape& shape, const float* features, const TileLists& lists,
                         const RasterImages& out, int64_t tile) {
  const TilePlace place(shape, tile);
  alignas(64) float transmittance[PIXELS], color[C][PIXELS];
  start_transmittance(place, transmittance);
  for (float(&channel)[PIXELS] : color) clear(channel);

  RowList list;
  const int32_t end = lists.tile_offsets[tile + 1];
  for (int32_t k = lists.tile_offsets[tile]; k < end && !all_ended(transmittance); k += GROUP) {
    const int count = end - k < GROUP ? end - k : GROUP;
    list.length = 0;
    for (int j = 0; j < count; ++j) {
      fetch_ahead<C>(lists, features, k + j, end);
      const int64_t index = lists.hits[k + j].splat;
      list.feature[j] = features + index * C;
      list.add(j, lists.splats[index], place);
    }
    for (int e = 0; e < list.length; ++e) {
      const unsigned at = list.rows[e], j = at / TILE, pixels = at % TILE * TILE;
      const Lanes power = log2_alpha(list.column_p[j] + Lanes(list.row_p[at]), Lanes(list.row_power[at]));
      const Lanes before = Lanes::load(transmittance + pixels);
      const Mask hit = is_hit(power, before);
      if (!any(hit)) continue;
      const auto b = blend(power, before, hit);
      next_transmittance(b, before).store(transmittance + pixels);
      for (int c = 0; c < C; ++c) {
        float* row = color[c] + pixels;
        fma(b.weight, Lanes(list.feature[j][c]), Lanes::load(row)).store(row);
      }
    }
  }

  const float* background = out.background + place.view * C;
  for (int y = 0; y < place.height; ++y) {
    for (int x = 0; x < place.width; ++x) {
      const float rest = __builtin_fabsf(transmittance[y * TILE + x]);
      const int64_t pixel = place.pixel(shape, y, x);
      out.transmittance[pixel] = rest;
      for (int c = 0; c < C; ++c) out.image[pixel * C + c] = color[c][y * TILE + x] + rest * background[c];
    }
  }
}

// The tile's upstream gradient, channels apart, and per pixel what is to come of <image, upstream> (see
// grad_log_alpha).
template <int C>
static inline void load_upstream(const RasterShape& shape, const TilePlace& place, const RasterGradients& g,
                                 float (*upstream)[PIXELS], float* ahead) {
  clear(ahead);
  for (int c = 0; c < C; ++c) clear(upstream[c]);
  for (int y = 0; y < place.height; ++y) {
    for (int x = 0; x < place.width; ++x) {
      const int64_t pixel = place.pixel(shape, y, x);
      float sum = g.transmittance[pixel] * g.grad_transmittance[pixel];
      for (int c = 0; c < C; ++c) {
        const float v = g.grad_image[pixel * C + c];
        upstream[c][y * TILE + x] = v;
        sum += g.image[pixel * C + c] * v;
      }
      ahead[y * TILE + x] = sum;
    }
  }
}

// Front to back, replaying the forward pass: nothing per pixel and splat is stored between the two.
template <int C>
static void backward_tile(const RasterShape& shape, const float* features, const TileLists& lists,
                          const RasterGradients& g, int64_t tile) {
  const TilePlace place(shape, tile);
  alignas(64) float transmittance[PIXELS], ahead[PIXELS], upstream[C][PIXELS];
  start_transmittance(place, transmittance);
  load_upstream<C>(shape, place, g, upstream, ahead);

  const int32_t begin = lists.tile_offsets[tile], end = lists.tile_offsets[tile + 1];
  int32_t k = begin;
  for (; k < end; ++k) {
    if ((k - begin) % GROUP == 0 && all_ended(transmittance)) break;
    fetch_ahead<C>(lists, features, k, end);
    const int64_t index = lists.hits[k].splat;
    const float* feature = features + index * C;
    const SplatRows splat(lists.splats[index], place);
    Lanes sum_g(0.0f), sum_gy(0.0f), sum_gyy(0.0f), sum_feature[C];
    for (int c = 0; c < C; ++c) sum_feature[c] = Lanes(0.0f);
    for (uint32_t rows = splat.rows; rows != 0; rows &= rows - 1) {
      const int y = __builtin_ctz(rows);
      const Lanes power = log2_alpha(splat.column_p + Lanes(splat.row_p[y]), Lanes(splat.row_power[y]));
      const Lanes before = Lanes::load(transmittance + y * TILE);
      const Mask hit = is_hit(power, before);
      if (!any(hit)) continue;
      const auto b = blend(power, before, hit);
      next_transmittance(b, before).store(transmittance + y * TILE);
      Lanes dot(0.0f);
      for (int c = 0; c < C; ++c) {
        const Lanes v = Lanes::load(upstream[c] + y * TILE);
        dot = fma(v, Lanes(feature[c]), dot);
        sum_feature[c] = fma(v, b.weight, sum_feature[c]);
      }
      dot = dot * b.weight;
      const Lanes rest = Lanes::load(ahead + y * TILE) - dot;
      rest.store(ahead + y * TILE);
      const Lanes grad = grad_log_alpha(b, dot, rest);
      const Lanes grad_dy = grad * Lanes(splat.dy[y]);
      sum_g = sum_g + grad;
      sum_gy = sum_gy + grad_dy;
      sum_gyy = fma(grad_dy, Lanes(splat.dy[y]), sum_gyy);
    }
    const Lanes sum_gx = sum_g * splat.dx;
    Lanes sums[RECORD];
    for (Lanes& sum : sums) sum = Lanes(0.0f);
    sums[SUM_G] = sum_g;
    sums[SUM_GX] = sum_gx;
    sums[SUM_GXX] = sum_gx * splat.dx;
    sums[SUM_GY] = sum_gy;
    sums[SUM_GXY] = sum_gy * splat.dx;
    sums[SUM_GYY] = sum_gyy;
    for (int c = 0; c < C; ++c) sums[SUM_FEATURES + c] = sum_feature[c];
    sum_each(sums, g.records + int64_t(lists.hits[k].record) * RECORD);
  }
  for (; k < end; ++k) Lanes(0.0f).store(g.records + int64_t(lists.hits[k].record) * RECORD);
}

static void forward(const RasterShape& shape, const float* features, const TileLists& lists, const RasterImages& out,
                    int64_t tile) {
  if (shape.channels == 3) return forward_tile<3>(shape, features, lists, out, tile);
  if (shape.channels == 4) return forward_tile<4>(shape, features, lists, out, tile);
  if (shape.channels == 5) return forward_tile<5>(shape, features, lists, out, tile);
  return forward_tile<8>(shape, features, lists, out, tile);
}

static void backward(const RasterShape& shape, const float* features, const TileLists& lists, const RasterGradients& g,
                     int64_t tile) {
  if (shape.channels == 3) return backward_tile<3>(shape, features, lists, g, tile);
  if (shape.channels == 4) return backward_tile<4>(shape, features, lists, g, tile);
  if (shape.channels == 5) return backward_tile<5>(shape, features, lists, g, tile);
  return backward_tile<8>(shape, features, lists, g, tile);
}

}  // namespace SDS3D_ISA
}  // namespace sds3d
