// From splats to tile lists, and from gradient records back to splats. One depth sort per view, then a counting sort
// into tiles in that order: tile lists come out sorted, with no per-tile sort and no wide keys.
#include <algorithm>
#include <cstring>

#include "splat_math.h"

namespace sds3d {

namespace {

// Stable radix sort of (key, value) pairs by as many bits as the keys differ in, at most 12 a pass. `low` and `high`
// are the least and largest key. Returns whichever of the two buffers holds the sorted values.
const uint32_t* radix_sort(int64_t count, uint32_t low, uint32_t high, uint32_t* keys, uint32_t* values,
                           uint32_t* keys2, uint32_t* values2) {
  constexpr int MAX_BITS = 12, MAX_PASSES = 3;
  static thread_local uint32_t histogram[MAX_PASSES][1 << MAX_BITS];
  if (count < 2 || low == high) return values;
  const int used = 32 - __builtin_clz(high - low), passes = (used + MAX_BITS - 1) / MAX_BITS;
  const int bits = (used + passes - 1) / passes;
  const uint32_t buckets = 1u << bits, mask = buckets - 1;
  for (int pass = 0; pass < passes; ++pass) std::memset(histogram[pass], 0, buckets * sizeof(uint32_t));
  for (int64_t i = 0; i < count; ++i) {
    keys[i] -= low;
    for (int pass = 0; pass < passes; ++pass) ++histogram[pass][(keys[i] >> (pass * bits)) & mask];
  }
  for (int pass = 0; pass < passes; ++pass) {
    uint32_t* bucket = histogram[pass];
    uint32_t offset = 0;
    for (uint32_t b = 0; b < buckets; ++b) {
      const uint32_t size = bucket[b];
      bucket[b] = offset;
      offset += size;
    }
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t slot = bucket[(keys[i] >> (pass * bits)) & mask]++;
      keys2[slot] = keys[i];
      values2[slot] = values[i];
    }
    std::swap(keys, keys2);
    std::swap(values, values2);
  }
  return values;
}

}  // namespace

int64_t order_view(const RasterShape& shape, const float* depths, int64_t view, const TileBox* boxes, int32_t* order,
                   int64_t* tile_counts, uint32_t* scratch) {
  const int64_t n = shape.splats;
  const int tiles_x = shape.tiles_x();
  uint32_t *keys = scratch, *values = scratch + n;
  uint32_t low = UINT32_MAX, high = 0;
  int64_t drawable = 0, hits = 0;
  std::fill(tile_counts, tile_counts + shape.tiles(), 0);
  for (int64_t i = 0; i < n; ++i) {
    const TileBox box = boxes[i];
    if (box.count() == 0) continue;
    hits += box.count();
    // Past the limit the caller refuses the scene by its boxes alone; counting on could take minutes.
    if (hits > MAX_TILE_HITS) continue;
    for (int y = box.y0; y < box.y1; ++y) {
      for (int x = box.x0; x < box.x1; ++x) ++tile_counts[y * tiles_x + x];
    }
    const uint32_t key = sortable_bits(depths[view * n + i]);
    low = std::min(low, key);
    high = std::max(high, key);
    keys[drawable] = key;
    values[drawable] = uint32_t(i);
    ++drawable;
  }
  const uint32_t* sorted = radix_sort(drawable, low, high, keys, values, scratch + 2 * n, scratch + 3 * n);
  std::copy(sorted, sorted + drawable, order);
  return drawable;
}

void list_hits(const RasterShape& shape, int64_t view, int first_row, int last_row, const TileBox* boxes,
               const int32_t* order, int64_t drawable, const int32_t* record_offsets, int32_t* cursors, TileHit* hits) {
  const int tiles_x = shape.tiles_x();
  const int64_t first = view * shape.splats;
  for (int64_t k = 0; k < drawable; ++k) {
    const int32_t i = order[k];
    const TileBox box = boxes[i];
    const int y0 = std::max<int>(box.y0, first_row), y1 = std::min<int>(box.y1, last_row);
    const int32_t splat = int32_t(first + i);
    int32_t record = record_offsets[splat] + (y0 - box.y0) * (box.x1 - box.x0);
    for (int y = y0; y < y1; ++y) {
      for (int x = box.x0; x < box.x1; ++x) hits[cursors[y * tiles_x + x]++] = TileHit{splat, record++};
    }
  }
}

void sum_records(const RasterShape& shape, const SplatInputs& in, const int32_t* record_offsets, const float* records,
                 const SplatGradients& out, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    float grad_opacity = 0.0f;
    for (int64_t view = 0; view < shape.views; ++view) {
      const int64_t k = view * shape.splats + i;
      float sum[RECORD] = {};
      for (int64_t r = record_offsets[k]; r < record_offsets[k + 1]; ++r) {
        for (int f = 0; f < RECORD; ++f) sum[f] += records[r * RECORD + f];
      }
      // A culled splat may hold NaN; its gradient is an exact zero.
      if (record_offsets[k] == record_offsets[k + 1]) {
        std::fill_n(out.means2d + 2 * k, 2, 0.0f);
        std::fill_n(out.conics + 3 * k, 3, 0.0f);
        std::fill_n(out.features + shape.channels * k, shape.channels, 0.0f);
        continue;
      }
      grad_opacity += splat_gradients(sum, in.conics + 3 * k, in.opacities[i], shape.channels, out.means2d + 2 * k,
                                      out.conics + 3 * k, out.features + shape.channels * k);
    }
    out.opacities[i] = grad_opacity;
  }
}

}  // namespace sds3d
