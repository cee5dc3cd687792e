#include "tile_lists.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "pool.hpp"

namespace dgr {
namespace {

constexpr int kBits = 12, kBins = 1 << kBits;
constexpr int kSortAlone = 8192;  // number of Gaussians up to which a second thread does not pay

// One part of a sort.
struct Share {
  uint32_t first = 0, last = 0;  // of the array
  uint32_t visible = 0, least = ~0u, greatest = 0;
  uint32_t bins[kBins];  // counts, then destinations
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
  const auto cut = [parts](uint32_t total, int part) {
    return uint32_t(uint64_t(total) * uint64_t(part) / uint64_t(parts));
  };
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

constexpr uint32_t kMostSpans = 0xffff0000u;  // plus a Gaussian's spans, this still fits in 32 bits

}  // namespace

Binning::Binning(const Kernels& kernels, const Settings& settings, int count, int stride, const Projection& projection,
                 int parts)
    : settings_(settings), count_(count), parts_(size_t(parts)) {
  const size_t n = size_t(count);
  order_ = take_array<uint32_t>({4, n}, "sorted depths", 4);
  uint32_t* order = as<uint32_t>(order_);
  sorted_ = order;  // or the scratch after it
  visible_ = sort_by_depth(count, projection.depths, sorted_, order + n, order + 2 * n, order + 3 * n, parts);
  rows_ = take_array<TileRows>({size_t(visible_) + 1}, "rows of tiles");
  parallel(parts, [&](int index) {
    Part& part = parts_[size_t(index)];
    part.first = uint32_t(uint64_t(visible_) * uint64_t(index) / uint64_t(parts));
    part.last = uint32_t(uint64_t(visible_) * uint64_t(index + 1) / uint64_t(parts));
    find_spans(kernels, stride, projection.records, &part);
  });
  const int columns = settings.tiles_x + 1;
  row_pairs_.resize(size_t(settings.tiles_y));
  for (int y = 0; y < settings.tiles_y; ++y) {
    for (const Part& part : parts_) {
      const int32_t* change = as<int32_t>(part.changes) + y * columns;
      int64_t open = 0;
      for (int x = 0; x < settings.tiles_x; ++x) row_pairs_[size_t(y)] += uint64_t(open += change[x]);
    }
    pairs_ += row_pairs_[size_t(y)];
  }
}

void Binning::find_spans(const Kernels& kernels, int stride, const float* records, Part* part) {
  constexpr const char* kWhat = "spans of tiles";
  const size_t changes = size_t(settings_.tiles_x + 1) * size_t(settings_.tiles_y);
  part->changes = take_array<int32_t>({changes}, kWhat);
  std::memset(part->changes.get(), 0, sizeof(int32_t) * changes);
  const uint64_t guess = uint64_t(part->last - part->first) * 4 + 1024 + uint64_t(settings_.tiles_y);
  SpanBuffer buffer = {as<TileRows>(rows_), nullptr, uint32_t(std::min<uint64_t>(guess, kMostSpans)), 0,
                       as<int32_t>(part->changes)};
  part->spans = take_array<uint32_t>({buffer.capacity}, kWhat);
  for (uint32_t at = part->first;;) {
    buffer.spans = as<uint32_t>(part->spans);
    at = kernels.spans(settings_, stride, records, sorted_, at, part->last, &buffer);
    if (at == part->last) break;
    if (buffer.capacity == kMostSpans)
      throw OutOfMemory("the Gaussians touch more than " + std::to_string(kMostSpans) +
                        " rows of tiles, counted for each Gaussian");
    buffer.capacity = uint32_t(std::min<uint64_t>(2 * uint64_t(buffer.capacity), kMostSpans));
    Memory grown = take_array<uint32_t>({buffer.capacity}, kWhat);
    std::memcpy(grown.get(), part->spans.get(), sizeof(uint32_t) * buffer.used);
    part->spans = std::move(grown);
  }
}

RowRange Binning::band(int first, uint64_t most) const {
  int last = first + 1;
  for (uint64_t sum = row_pairs_[size_t(first)]; last < settings_.tiles_y; ++last) {
    sum += row_pairs_[size_t(last)];
    if (sum > most) break;
  }
  return {first, last};
}

TileLists Binning::lists(RowRange range) const {
  uint64_t pairs = 0;
  for (int y = range.first; y < range.last; ++y) pairs += row_pairs_[size_t(y)];
  if (pairs > UINT32_MAX)
    throw OutOfMemory(std::to_string(pairs) + " pairs of a Gaussian and a tile of " + std::to_string(kTile) + "x" +
                      std::to_string(kTile) + " pixels in " + std::to_string(range.last - range.first) +
                      " rows of tiles are more than the " + std::to_string(UINT32_MAX) + " that can be kept at once");
  TileLists out;
  out.rows = range;
  out.pairs = uint32_t(pairs);
  const int columns = settings_.tiles_x + 1;
  const size_t tiles = size_t(settings_.tiles_x) * size_t(range.last - range.first);
  out.starts = take_array<uint32_t>({tiles + 1}, "tiles");
  uint32_t* starts = as<uint32_t>(out.starts);
  // In a tile's list, the Gaussians of a part follow those of the earlier parts.
  std::vector<Memory> nexts;
  for (size_t i = 0; i < parts_.size(); ++i) nexts.push_back(take_array<uint32_t>({tiles}, "tiles"));
  std::vector<int32_t> open(parts_.size());
  uint32_t sum = 0;
  size_t tile = 0;
  for (int y = range.first; y < range.last; ++y) {
    std::fill(open.begin(), open.end(), 0);
    for (int x = 0; x < settings_.tiles_x; ++x, ++tile) {
      starts[tile] = sum;
      for (size_t i = 0; i < parts_.size(); ++i) {
        open[i] += as<int32_t>(parts_[i].changes)[y * columns + x];
        as<uint32_t>(nexts[i])[tile] = sum;
        sum += uint32_t(open[i]);
      }
    }
  }
  starts[tiles] = sum;
  out.list = take_array<uint32_t>({size_t(pairs) + 1}, "lists of Gaussians per tile");
  uint32_t* list = as<uint32_t>(out.list);
  const TileRows* rows = as<TileRows>(rows_);
  parallel(int(parts_.size()), [&](int index) {
    const Part& part = parts_[size_t(index)];
    for (uint32_t i = part.first; i < part.last; ++i) {
      const int y0 = std::max(int(rows[i].y0), range.first), y1 = std::min(int(rows[i].y1), range.last);
      if (y0 >= y1) continue;
      const uint32_t* span = as<uint32_t>(part.spans) + rows[i].first + (y0 - rows[i].y0);
      uint32_t* next = as<uint32_t>(nexts[size_t(index)]) + std::ptrdiff_t(y0 - range.first) * settings_.tiles_x;
      for (int y = y0; y < y1; ++y, ++span, next += settings_.tiles_x)
        for (uint32_t x = *span & 0xffff; x < *span >> 16; ++x) list[next[x]++] = sorted_[i];
    }
  });
  return out;
}

Memory Binning::reach() const {
  Memory memory = take_array<uint32_t>({size_t(count_) + 1}, "tile rows of Gaussians");
  uint32_t* reach = as<uint32_t>(memory);
  std::memset(reach, 0, sizeof(uint32_t) * size_t(count_));
  const TileRows* rows = as<TileRows>(rows_);
  parallel(int(parts_.size()), [&](int index) {
    const Part& part = parts_[size_t(index)];
    for (uint32_t i = part.first; i < part.last; ++i) reach[sorted_[i]] = rows[i].y0 | uint32_t(rows[i].y1) << 16;
  });
  return memory;
}

}  // namespace dgr
