// Which tiles an ellipse touches.
#pragma once

#include "../kernel.hpp"
#include "../simd.hpp"

namespace {

using namespace dgr;

constexpr uint32_t kSpanAhead = 16;  // prefetch distance, in Gaussians

// NaN becomes `low`: it must not become an index.
inline float clamped(float x, float low, float high) { return x > low ? (x < high ? x : high) : low; }

uint32_t spans(const Settings& s, int stride, const float* records, const uint32_t* order, uint32_t first,
               uint32_t last, SpanBuffer* buffer) {
  const float right_edge = float(s.width - 1), bottom_edge = float(s.height - 1);
  vf lane_rows;
  for (int lane = 0; lane < kLanes; ++lane) lane_rows[lane] = float(lane * kTile);
  TileRows* rows = buffer->rows;
  uint32_t* span = buffer->spans;
  uint32_t count = buffer->used;
  uint32_t i = first;
  for (; i < last; ++i) {
    if (i + kSpanAhead < last) prefetch(records + size_t(order[i + kSpanAhead]) * size_t(stride));
    const float* r = records + size_t(order[i]) * size_t(stride);
    const float u = r[record::kU] - float(s.crop_x0) - 0.5f,
                v = r[record::kV] - float(s.crop_y0) - 0.5f;  // in pixel indices
    const float a = r[record::kA], b = r[record::kB], c = r[record::kC];
    // Slightly wider than alpha = 1/255: an extra pixel is skipped later, a missing one would be lost.
    const float level = r[record::kLevel] - kLog2AlphaMin + 1e-4f;
    // A difference of products, which cancels for needle-like Gaussians in single precision.
    const double det = 4.0 * double(a) * double(c) - double(b) * double(b);
    rows[i] = {0, 0, count};
    if (!(det > 0) || !(level > 0)) continue;
    const float inverse = float(4.0 / det);
    const float hx = __builtin_sqrtf(level * c * inverse), hy = __builtin_sqrtf(level * a * inverse);
    // Rounding with integers after clamping to the image: ceil for the first, floor for the last pixel.
    const int j0 = int(clamped(v - hy, -1.0f, bottom_edge + 1) + 1.9999f) - 1;
    const int j1 = int(clamped(v + hy, -1.0f, bottom_edge) + 1.0f) - 1;
    if (j0 > j1) continue;
    const int y0 = (j0 < 0 ? 0 : j0) / kTile, y1 = j1 / kTile + 1;
    if (count + uint32_t(y1 - y0) + kSpanSlack > buffer->capacity) break;
    const float extreme = -0.5f * b * hx / c;  // dy of the ellipse's rightmost point; the leftmost is at its negative
    const float half = 0.5f / a;
    const vf low = splat(float(j0) - v), high = splat(float(j1) - v), al = splat(4 * a * level);
    const vf slope = splat(-b * half), curve = splat(b * b - 4 * a * c), scale = splat(half), middle = splat(u);
    for (int y = y0; y < y1; y += kLanes) {
      const vf top = lane_rows + (float(y * kTile) - v);
      const vf d0 = vmax(top, low), d1 = vmin(top + float(kTile - 1), high);
      const vf dr = vmin(vmax(splat(extreme), d0), d1), dl = vmin(vmax(splat(-extreme), d0), d1);
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
    rows[i].y0 = uint16_t(y0);
    rows[i].y1 = uint16_t(y1);
    count += uint32_t(y1 - y0);
  }
  buffer->used = count;
  return i;
}

}  // namespace
