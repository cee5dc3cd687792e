#include "bin.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace dgr {
namespace {

constexpr uint32_t kAhead = 16;
constexpr float kLog2AlphaMin = -7.99435343685885793770f;

// Visible Gaussians by depth: three passes of eleven bits over the bits of positive floats, which order
// like integers.
__attribute__((noinline)) uint32_t sort_by_depth(int count, const float* depths, uint32_t* order, uint32_t* scratch, uint32_t* keys,
                       uint32_t* key_scratch) {
  uint32_t visible = 0;
  static thread_local uint32_t histogram[3][2048];
  std::memset(histogram, 0, sizeof(histogram));
  for (int n = 0; n < count; ++n) {
    if (depths[n] == 0.0f) continue;
    uint32_t key;
    std::memcpy(&key, depths + n, 4);
    order[visible] = uint32_t(n);
    keys[visible++] = key;
    ++histogram[0][key & 2047];
    ++histogram[1][(key >> 11) & 2047];
    ++histogram[2][key >> 22];
  }
  for (int pass = 0; pass < 3; ++pass) {
    uint32_t sum = 0;
    for (uint32_t& bin : histogram[pass]) {
      const uint32_t size = bin;
      bin = sum;
      sum += size;
    }
    const int shift = 11 * pass;
    for (uint32_t i = 0; i < visible; ++i) {
      const uint32_t at = histogram[pass][(keys[i] >> shift) & 2047]++;
      scratch[at] = order[i];
      key_scratch[at] = keys[i];
    }
    std::swap(order, scratch);
    std::swap(keys, key_scratch);
  }
  return visible;  // three swaps: the result lies in the caller's scratch
}

struct Span {
  uint16_t x0, x1;  // tiles [x0, x1) of one row
};

}  // namespace

TileLists bin_tiles(const Settings& s, int count, int stride, const float* records, const float* depths) {
  TileLists out;
  const size_t n = size_t(count);
  Memory work = take(4 * 4 * n + 16);
  uint32_t* order = reinterpret_cast<uint32_t*>(work.get());
  uint32_t* sorted = order + n;
  out.visible = sort_by_depth(count, depths, order, sorted, order + 2 * n, order + 3 * n);

  const int tiles = s.tiles_x * s.tiles_y;
  out.starts = take(4 * (size_t(tiles) + 1));
  uint32_t* starts = reinterpret_cast<uint32_t*>(out.starts.get());
  std::memset(starts, 0, 4 * (size_t(tiles) + 1));

  // First the exact spans of every ellipse in every row of tiles it meets, counted; then the lists.
  struct Rows {
    uint16_t y0, y1;
    uint32_t first;
  };
  Memory row_memory = take(sizeof(Rows) * (size_t(out.visible) + 1));
  Rows* rows = reinterpret_cast<Rows*>(row_memory.get());
  size_t span_capacity = size_t(out.visible) * 4 + 1024, spans = 0;
  Memory span_memory = take(sizeof(Span) * span_capacity);
  Span* span = reinterpret_cast<Span*>(span_memory.get());

  for (uint32_t i = 0; i < out.visible; ++i) {
    // In order of depth the records lie anywhere: asked for ahead, or every one is a wait for memory.
    if (i + kAhead < out.visible) __builtin_prefetch(records + size_t(sorted[i + kAhead]) * stride);
    const float* r = records + size_t(sorted[i]) * stride;
    const float u = r[0] - float(s.crop_x0) - 0.5f, v = r[1] - float(s.crop_y0) - 0.5f;  // in pixel indices
    const float a = r[2], b = r[3], c = r[4];
    // A hair wider than alpha = 1/255: a pixel too many is skipped later, one too few would be missed.
    const float level = r[5] - kLog2AlphaMin + 1e-4f;
    const double det = 4.0 * double(a) * double(c) - double(b) * double(b);
    rows[i] = {0, 0, uint32_t(spans)};
    if (!(det > 0)) continue;
    const float hx = float(std::sqrt(4.0 * level * c / det)), hy = float(std::sqrt(4.0 * level * a / det));
    const float top = std::max(std::ceil(v - hy), 0.0f), bottom = std::min(std::floor(v + hy), float(s.height - 1));
    if (!(top <= bottom)) continue;
    const int j0 = int(top), j1 = int(bottom), y0 = j0 / kTile, y1 = j1 / kTile + 1;
    if (spans + size_t(y1 - y0) > span_capacity) {
      const size_t larger = 2 * (spans + size_t(y1 - y0));
      Memory grown = take(sizeof(Span) * larger);
      std::memcpy(grown.get(), span, sizeof(Span) * spans);
      span_memory = std::move(grown);
      span = reinterpret_cast<Span*>(span_memory.get());
      span_capacity = larger;
    }
    const float extreme = -b * hx / (2 * c);  // dy where the ellipse is rightmost; leftmost at its negative
    const float half = 0.5f / a;
    for (int y = y0; y < y1; ++y) {
      const float d0 = float(std::max(y * kTile, j0)) - v, d1 = float(std::min(y * kTile + kTile - 1, j1)) - v;
      const float dr = std::min(std::max(extreme, d0), d1), dl = std::min(std::max(-extreme, d0), d1);
      const float qr = b * b * dr * dr - 4 * a * (c * dr * dr - level);
      const float ql = b * b * dl * dl - 4 * a * (c * dl * dl - level);
      const float right = half * (-b * dr + std::sqrt(std::max(qr, 0.0f)));
      const float left = half * (-b * dl - std::sqrt(std::max(ql, 0.0f)));
      const float i0 = std::max(std::ceil(u + left - 1e-3f), 0.0f);
      const float i1 = std::min(std::floor(u + right + 1e-3f), float(s.width - 1));
      Span& one = span[spans++];
      if (!(i0 <= i1)) {
        one = {0, 0};
        continue;
      }
      one = {uint16_t(int(i0) / kTile), uint16_t(int(i1) / kTile + 1)};
      uint32_t* row = starts + y * s.tiles_x + 1;
      for (int x = one.x0; x < one.x1; ++x) ++row[x];
    }
    rows[i].y0 = uint16_t(y0);
    rows[i].y1 = uint16_t(y1);
  }

  for (int tile = 0; tile < tiles; ++tile) starts[tile + 1] += starts[tile];
  out.pairs = starts[tiles];
  out.list = take(4 * (size_t(out.pairs) + 1));
  uint32_t* list = reinterpret_cast<uint32_t*>(out.list.get());
  // Each start walks to the next tile's while its list is filled, and is set back after.
  for (uint32_t i = 0; i < out.visible; ++i) {
    const Span* one = span + rows[i].first;
    for (int y = rows[i].y0; y < rows[i].y1; ++y, ++one)
      for (int x = one->x0; x < one->x1; ++x) list[starts[y * s.tiles_x + x]++] = sorted[i];
  }
  for (int tile = tiles; tile > 0; --tile) starts[tile] = starts[tile - 1];
  starts[0] = 0;
  return out;
}

}  // namespace dgr
