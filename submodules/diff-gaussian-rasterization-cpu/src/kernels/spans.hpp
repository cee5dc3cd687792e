// Which tiles an ellipse touches.
#pragma once

#include "../kernel.hpp"
#include "../simd.hpp"

namespace {

using namespace dgr;

constexpr uint32_t kSpanAhead = 16;  // prefetch distance, in Gaussians

// Ellipses where alpha reaches 1/255, in columns: a d_x^2 + b d_x d_y + c d_y^2 = level, d from (u, v) in pixel
// indices.
struct Ellipses {
  static constexpr uint32_t kMost = 16;
  float u[kMost], v[kMost], a[kMost], b[kMost], c[kMost], level[kMost];
  float inverse[kMost];           // 4 / (4 a c - b^2), or 0
  float low[kMost], high[kMost];  // d_y of the first and the last row of pixels
  float extreme[kMost];           // d_y of the rightmost point; that of the leftmost is its negative
  float half[kMost];              // 0.5 / a
  int32_t y0[kMost], y1[kMost];   // rows of tiles [y0, y1); none: both 0
};

inline void read_ellipse(const Settings& s, const float* r, uint32_t i, Ellipses* e) {
  e->u[i] = r[record::kU] - float(s.crop_x0) - 0.5f;
  e->v[i] = r[record::kV] - float(s.crop_y0) - 0.5f;
  e->a[i] = r[record::kA];
  e->b[i] = r[record::kB];
  e->c[i] = r[record::kC];
  // Slightly wider than alpha = 1/255: an extra pixel is skipped later, a missing one would be lost.
  e->level[i] = r[record::kLevel] - kLog2AlphaMin + 1e-4f;
  // A difference of products, which cancels for needle-like Gaussians in single precision.
  const double det =
      4.0 * double(r[record::kA]) * double(r[record::kC]) - double(r[record::kB]) * double(r[record::kB]);
  // Too wide where it would underflow: 0 marks what is no ellipse.
  const float inverse = float(4.0 / det);
  e->inverse[i] = det > 0 ? (inverse > 1e-38f ? inverse : 1e-38f) : 0.0f;
}

inline void find_rows(const Settings& s, Ellipses* e) {
  const float bottom_edge = float(s.height - 1);
  for (uint32_t i = 0; i < Ellipses::kMost; i += kLanes) {
    const vf v = load(e->v + i), a = load(e->a + i), b = load(e->b + i), c = load(e->c + i);
    const vf level = load(e->level + i), inverse = load(e->inverse + i);
    const vf half_width = vsqrt(level * c * inverse), half_height = vsqrt(level * a * inverse);
    // Rounding with integers after clamping to the image: ceil for the first, floor for the last pixel.  NaN becomes
    // the lower limit: it must not become an index.
    const vf first = vmin(vmax(v - half_height, splat(-1.0f)), splat(bottom_edge + 1)) + 1.9999f;
    const vf last = vmin(vmax(v + half_height, splat(-1.0f)), splat(bottom_edge)) + 1.0f;
    const vi j0 = __builtin_convertvector(first, vi) - 1, j1 = __builtin_convertvector(last, vi) - 1;
    const vi any = (j1 >= j0) & (j1 >= 0) & (vi)(level > 0.0f) & (vi)(inverse > 0.0f);
    const vi y0 = any & (j0 >> 3) & (j0 >= 0), y1 = any & ((j1 >> 3) + 1);
    store(e->low + i, __builtin_convertvector(j0, vf) - v);
    store(e->high + i, __builtin_convertvector(j1, vf) - v);
    store(e->extreme + i, -0.5f * b * half_width / c);
    store(e->half + i, 0.5f / a);
    std::memcpy(e->y0 + i, &y0, sizeof(y0));
    std::memcpy(e->y1 + i, &y1, sizeof(y1));
  }
}

// A few ellipses first, then their spans: the number of a Gaussian's rows is known only after a division and a root,
// for which a processor that guessed it wrong would wait.
uint32_t spans(const Settings& s, int stride, const float* records, const uint32_t* order, uint32_t first,
               uint32_t last, SpanBuffer* buffer) {
  static_assert(kTile == 8 && Ellipses::kMost % kLanes == 0, "");
  const float right_edge = float(s.width - 1);
  vf lane_rows;
  for (int lane = 0; lane < kLanes; ++lane) lane_rows[lane] = float(lane * kTile);
  TileRows* rows = buffer->rows;
  uint32_t* span = buffer->spans;
  uint32_t count = buffer->used;
  Ellipses e = {};
  for (uint32_t batch = first; batch < last; batch += Ellipses::kMost) {
    const uint32_t size = last - batch < Ellipses::kMost ? last - batch : Ellipses::kMost;
    for (uint32_t i = 0; i < size; ++i) {
      const uint32_t ahead = batch + i + kSpanAhead;
      if (ahead < last) prefetch(records + size_t(order[ahead]) * size_t(stride));
      read_ellipse(s, records + size_t(order[batch + i]) * size_t(stride), i, &e);
    }
    find_rows(s, &e);
    for (uint32_t i = 0; i < size; ++i) {
      const int y0 = e.y0[i], y1 = e.y1[i];
      if (count + uint32_t(y1 - y0) + kSpanSlack > buffer->capacity) {
        buffer->used = count;
        return batch + i;
      }
      const float a = e.a[i], b = e.b[i], c = e.c[i], v = e.v[i];
      const vf low = splat(e.low[i]), high = splat(e.high[i]), extreme = splat(e.extreme[i]);
      const vf slope = splat(-b * e.half[i]), curve = splat(b * b - 4 * a * c), al = splat(4 * a * e.level[i]);
      const vf scale = splat(e.half[i]), middle = splat(e.u[i]);
      for (int y = y0; y < y1; y += kLanes) {
        const vf top = lane_rows + (float(y * kTile) - v);
        const vf d0 = vmax(top, low), d1 = vmin(top + float(kTile - 1), high);
        const vf dr = vmin(vmax(extreme, d0), d1), dl = vmin(vmax(-extreme, d0), d1);
        const vf wide_r = scale * vsqrt(vmax(al + curve * dr * dr, vf{}));
        const vf wide_l = scale * vsqrt(vmax(al + curve * dl * dl, vf{}));
        const vf left = vmax(middle + slope * dl - wide_l - 1e-3f, vf{});
        const vf right = vmin(vmax(middle + slope * dr + wide_r + 1e-3f, splat(-1.0f)), splat(right_edge));
        const vi i0 = __builtin_convertvector(vmin(left, splat(right_edge + 1)) + 0.9999f, vi);
        const vi i1 = __builtin_convertvector(right + 1.0f, vi) - 1;
        vi packed = (i0 >> 3) | (((i1 >> 3) + 1) << 16);
        packed &= i1 >= i0;
        std::memcpy(span + count + uint32_t(y - y0), &packed, sizeof(packed));
      }
      for (int y = y0; y < y1; ++y) {
        const uint32_t one = span[count + uint32_t(y - y0)];
        int32_t* change = buffer->changes + y * (s.tiles_x + 1);
        ++change[one & 0xffff];
        --change[one >> 16];
      }
      rows[batch + i] = {uint16_t(y0), uint16_t(y1), count};
      count += uint32_t(y1 - y0);
    }
  }
  buffer->used = count;
  return last;
}

}  // namespace
