#include "bin.hpp"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace dgr {
namespace {

constexpr int kBits = 12, kBins = 1 << kBits;
constexpr int kSortAlone = 8192;  // number of Gaussians up to which a second thread does not pay

// One part of a sort.
struct Share {
  uint32_t first = 0, last = 0;  // of the array
  uint32_t visible = 0, least = ~0u, greatest = 0;
  uint32_t bins[kBins];          // counts, then destinations
};

uint32_t key_of(const float* depth) {
  uint32_t key;
  std::memcpy(&key, depth, 4);
  return key;
}

// Radix sort of the visible Gaussians by depth.  The bits of positive floats order like integers: two passes of
// twelve bits suffice if all depths lie within a range of 2^24 (nearest to farthest as 1 to 4), else three.  Each
// part counts and moves a piece of the array; the order does not depend on the number of parts.
uint32_t sort_by_depth(int count, const float* depths, uint32_t*& order, uint32_t* scratch, uint32_t* keys,
                       uint32_t* key_scratch, int parts) {
  if (count < kSortAlone) parts = 1;
  const auto cut = [parts](uint32_t total, int part) { return uint32_t(uint64_t(total) * uint64_t(part) / uint64_t(parts)); };
  std::vector<Share> shares(static_cast<size_t>(parts));
  parallel(parts, [&](int part) {
    Share share;
    for (uint32_t n = cut(uint32_t(count), part); n < cut(uint32_t(count), part + 1); ++n) {
      const uint32_t key = key_of(depths + n);
      share.visible += key != 0;
      share.least = std::min(share.least, key - 1);  // key 0 wraps to the largest number
      share.greatest = std::max(share.greatest, key);
    }
    shares[size_t(part)] = share;
  });
  uint32_t visible = 0, least = ~0u, greatest = 0;
  for (Share& share : shares) {
    share.first = visible;
    visible += share.visible;
    least = std::min(least, share.least);
    greatest = std::max(greatest, share.greatest);
  }
  parallel(parts, [&](int part) {
    Share& share = shares[size_t(part)];
    share.last = share.first + share.visible;
    std::memset(share.bins, 0, sizeof(share.bins));
    uint32_t at = share.first;
    for (uint32_t n = cut(uint32_t(count), part); at < share.last; ++n) {
      const uint32_t key = key_of(depths + n), offset = key - least;
      order[at] = n;
      keys[at] = offset;
      at += key != 0;
      share.bins[offset & (kBins - 1)] += key != 0;
    }
  });
  const int passes = visible == 0 ? 0 : (greatest - least) >> (2 * kBits) ? 3 : 2;
  for (int pass = 0; pass < passes; ++pass) {
    const int shift = kBits * pass;
    if (pass > 0)
      parallel(parts, [&](int part) {
        Share& share = shares[size_t(part)];
        std::memset(share.bins, 0, sizeof(share.bins));
        for (uint32_t i = share.first; i < share.last; ++i) ++share.bins[(keys[i] >> shift) & (kBins - 1)];
      });
    uint32_t sum = 0;
    for (int bin = 0; bin < kBins; ++bin)
      for (Share& share : shares) {
        const uint32_t size = share.bins[bin];
        share.bins[bin] = sum;
        sum += size;
      }
    parallel(parts, [&](int part) {
      Share& share = shares[size_t(part)];
      for (uint32_t i = share.first; i < share.last; ++i) {
        const uint32_t at = share.bins[(keys[i] >> shift) & (kBins - 1)]++;
        scratch[at] = order[i];
        key_scratch[at] = keys[i];
      }
    });
    std::swap(order, scratch);
    std::swap(keys, key_scratch);
  }
  return visible;
}

// The spans of one part of the order, in growing memory.
struct Part {
  uint32_t first = 0, last = 0;
  Memory spans, changes, starts;
};

}  // namespace

TileLists bin_tiles(const Kernels& kernels, const Settings& s, int count, int stride, const float* records,
                    const float* depths, int parts, bool want_reach) {
  TileLists out;
  const size_t n = size_t(count);
  Memory work = take(4 * 4 * n + 16);
  uint32_t* order = reinterpret_cast<uint32_t*>(work.get());
  uint32_t* sorted = order;  // or the scratch after it
  out.visible = sort_by_depth(count, depths, sorted, order + n, order + 2 * n, order + 3 * n, parts);

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

  // In a tile's list, the Gaussians of a part follow those of the earlier parts.
  out.starts = take(4 * (size_t(tiles) + 1));
  uint32_t* starts = reinterpret_cast<uint32_t*>(out.starts.get());
  for (Part& part : pieces) part.starts = take(4 * size_t(tiles));
  std::vector<int32_t> open(pieces.size());
  for (int tile = 0, y = 0; y < s.tiles_y; ++y) {
    std::fill(open.begin(), open.end(), 0);
    for (int x = 0; x < s.tiles_x; ++x, ++tile) {
      starts[tile] = out.pairs;
      for (size_t i = 0; i < pieces.size(); ++i) {
        open[i] += reinterpret_cast<const int32_t*>(pieces[i].changes.get())[y * columns + x];
        reinterpret_cast<uint32_t*>(pieces[i].starts.get())[tile] = out.pairs;
        out.pairs += uint32_t(open[i]);
      }
    }
  }
  starts[tiles] = out.pairs;
  out.list = take(4 * (size_t(out.pairs) + 1));
  uint32_t* list = reinterpret_cast<uint32_t*>(out.list.get());
  parallel(parts, [&](int index) {
    const Part& part = pieces[size_t(index)];
    const uint32_t* spans = reinterpret_cast<const uint32_t*>(part.spans.get());
    for (uint32_t i = part.first; i < part.last; ++i) {
      const uint32_t* span = spans + rows[i].first;
      uint32_t* next = reinterpret_cast<uint32_t*>(part.starts.get()) + rows[i].y0 * s.tiles_x;
      for (int y = rows[i].y0; y < rows[i].y1; ++y, ++span, next += s.tiles_x)
        for (uint32_t x = *span & 0xffff; x < *span >> 16; ++x) list[next[x]++] = sorted[i];
    }
  });
  return out;
}

}  // namespace dgr
