#include "bin.hpp"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace dgr {
namespace {

// Visible Gaussians by depth, by passes over the bits of positive floats, which order like integers: two of
// twelve bits where all depths lie within a range of 2^24 (nearest to farthest as 1 to 4), else three.
uint32_t sort_by_depth(int count, const float* depths, uint32_t*& order, uint32_t* scratch, uint32_t* keys,
                       uint32_t* key_scratch) {
  constexpr int kBits = 12, kBins = 1 << kBits;
  uint32_t visible = 0, least = ~0u, greatest = 0;
  for (int n = 0; n < count; ++n) {
    uint32_t key;
    std::memcpy(&key, depths + n, 4);
    order[visible] = uint32_t(n);
    keys[visible] = key;
    visible += key != 0;
    least = std::min(least, key - 1);  // of 0: the largest number
    greatest = std::max(greatest, key);
  }
  static thread_local uint32_t histogram[3][kBins];
  std::memset(histogram, 0, sizeof(histogram));
  const int passes = visible == 0 ? 0 : (greatest - least) >> (2 * kBits) ? 3 : 2;
  for (uint32_t i = 0; i < visible; ++i) {
    const uint32_t key = keys[i] -= least;
    ++histogram[0][key & (kBins - 1)];
    ++histogram[1][(key >> kBits) & (kBins - 1)];
    ++histogram[2][key >> (2 * kBits)];
  }
  for (int pass = 0; pass < passes; ++pass) {
    uint32_t sum = 0;
    for (uint32_t& bin : histogram[pass]) {
      const uint32_t size = bin;
      bin = sum;
      sum += size;
    }
    const int shift = kBits * pass;
    for (uint32_t i = 0; i < visible; ++i) {
      const uint32_t at = histogram[pass][(keys[i] >> shift) & (kBins - 1)]++;
      scratch[at] = order[i];
      key_scratch[at] = keys[i];
    }
    std::swap(order, scratch);
    std::swap(keys, key_scratch);
  }
  return visible;
}

// The spans of one part of the order, in memory that grows.
struct Part {
  uint32_t first = 0, last = 0;
  Memory spans, changes;
};

}  // namespace

TileLists bin_tiles(const Kernels& kernels, const Settings& s, int count, int stride, const float* records,
                    const float* depths, int parts, bool want_reach) {
  TileLists out;
  const size_t n = size_t(count);
  Memory work = take(4 * 4 * n + 16);
  uint32_t* order = reinterpret_cast<uint32_t*>(work.get());
  uint32_t* sorted = order;  // or the scratch after it
  out.visible = sort_by_depth(count, depths, sorted, order + n, order + 2 * n, order + 3 * n);

  const int tiles = s.tiles_x * s.tiles_y, columns = s.tiles_x + 1;
  Memory row_memory = take(sizeof(TileRows) * (size_t(out.visible) + 1));
  TileRows* rows = reinterpret_cast<TileRows*>(row_memory.get());
  if (want_reach) {
    out.reach = take(sizeof(uint32_t) * (n + 1));
    std::memset(out.reach.get(), 0, sizeof(uint32_t) * n);
  }
  uint32_t* reach = reinterpret_cast<uint32_t*>(out.reach.get());
  std::vector<Part> pieces(static_cast<size_t>(parts));
  parallel(parts, [&](int index) {
    Part& part = pieces[size_t(index)];
    part.first = uint32_t(uint64_t(out.visible) * uint64_t(index) / uint64_t(parts));
    part.last = uint32_t(uint64_t(out.visible) * uint64_t(index + 1) / uint64_t(parts));
    const size_t bytes = sizeof(int32_t) * size_t(columns) * size_t(s.tiles_y);
    part.changes = take(bytes);
    std::memset(part.changes.get(), 0, bytes);
    uint32_t capacity = (part.last - part.first) * 4 + 1024 + uint32_t(s.tiles_y), used = 0;
    part.spans = take(sizeof(uint32_t) * capacity);
    for (uint32_t at = part.first;;) {
      at = kernels.spans(s, stride, records, sorted, at, part.last, rows,
                         reinterpret_cast<uint32_t*>(part.spans.get()), capacity, &used,
                         reinterpret_cast<int32_t*>(part.changes.get()));
      if (at == part.last) break;
      capacity = 2 * capacity;
      Memory grown = take(sizeof(uint32_t) * capacity);
      std::memcpy(grown.get(), part.spans.get(), sizeof(uint32_t) * used);
      part.spans = std::move(grown);
    }
    if (want_reach)
      for (uint32_t i = part.first; i < part.last; ++i)
        reach[sorted[i]] = rows[i].y0 | uint32_t(rows[i].y1) << 16;
  });

  out.starts = take(4 * (size_t(tiles) + 1));
  uint32_t* starts = reinterpret_cast<uint32_t*>(out.starts.get());
  for (int y = 0; y < s.tiles_y; ++y) {
    int32_t open = 0;
    for (int x = 0; x < s.tiles_x; ++x) {
      for (const Part& part : pieces) open += reinterpret_cast<const int32_t*>(part.changes.get())[y * columns + x];
      starts[y * s.tiles_x + x] = out.pairs;
      out.pairs += uint32_t(open);
    }
  }
  starts[tiles] = out.pairs;
  out.list = take(4 * (size_t(out.pairs) + 1));
  uint32_t* list = reinterpret_cast<uint32_t*>(out.list.get());
  // Each start walks to the next tile's while its list is filled, and is set back after.
  parallel(parts, [&](int index) {
    const int row0 = s.tiles_y * index / parts, row1 = s.tiles_y * (index + 1) / parts;
    for (const Part& part : pieces) {
      const uint32_t* spans = reinterpret_cast<const uint32_t*>(part.spans.get());
      for (uint32_t i = part.first; i < part.last; ++i) {
        const int y0 = std::max(int(rows[i].y0), row0), y1 = std::min(int(rows[i].y1), row1);
        const uint32_t* span = spans + rows[i].first + (y0 - rows[i].y0);
        for (int y = y0; y < y1; ++y, ++span) {
          uint32_t* start = starts + y * s.tiles_x;
          for (uint32_t x = *span & 0xffff; x < *span >> 16; ++x) list[start[x]++] = sorted[i];
        }
      }
    }
  });
  for (int tile = tiles; tile > 0; --tile) starts[tile] = starts[tile - 1];
  starts[0] = 0;
  return out;
}

}  // namespace dgr
