// Lists of set bits without a branch for each: eight at a time from a table. Little-endian, like all our targets.
#pragma once

#include <cstdint>
#include <cstring>

namespace sds3d {

struct SetBitsTable {
  uint64_t places[256];  // byte i: where the i-th set bit of the index is
  uint8_t counts[256];
};

constexpr SetBitsTable make_set_bits_table() {
  SetBitsTable table = {};
  for (int value = 0; value < 256; ++value) {
    for (int bit = 0; bit < 8; ++bit) {
      if (value >> bit & 1) table.places[value] |= uint64_t(bit) << (8 * table.counts[value]++);
    }
  }
  return table;
}

static constexpr SetBitsTable SET_BITS = make_set_bits_table();

// Writes first + place of every set bit of the byte `bits`, lowest first, and returns how many there are. Always writes
// eight bytes; no sum may exceed 255.
static inline int append_set_bits(uint32_t bits, uint8_t first, uint8_t* out) {
  const uint64_t places = SET_BITS.places[bits] + first * uint64_t(0x0101010101010101);
  std::memcpy(out, &places, sizeof(places));
  return SET_BITS.counts[bits];
}

}  // namespace sds3d
