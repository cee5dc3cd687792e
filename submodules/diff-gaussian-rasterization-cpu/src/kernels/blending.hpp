// Blending of the pixels of a tile, and its backward pass.
#pragma once

#include "../kernel.hpp"
#include "../simd.hpp"

namespace {

using namespace dgr;

constexpr uint32_t kBatch = 32;  // Gaussians of a list that the forward pass takes at a time
constexpr uint32_t kAhead = 16;  // prefetch distance in a list, in Gaussians
constexpr int kVectors = 4;      // vectors of pixels in registers
constexpr int kPasses = kTile * kTile / (kVectors * kLanes);
static_assert(kPasses <= kMaxPasses, "");

// One bit per pixel of a pass.
template <int Bits>
struct BitsOf;
template <>
struct BitsOf<64> {
  typedef uint64_t type;
};
template <>
struct BitsOf<32> {
  typedef uint32_t type;
};
template <>
struct BitsOf<16> {
  typedef uint16_t type;
};
typedef BitsOf<kVectors * kLanes>::type PassBits;

// Bits of a pass over a tile whose list begins at `begin`; each pass of a tile has its own piece.
inline PassBits* pass_bits(const Trace& trace, uint32_t begin, uint32_t end, int pass) {
  return reinterpret_cast<PassBits*>(trace.blended + begin) + size_t(pass) * (end - begin);
}

// Coordinates of the pixels of one pass over a tile.
struct Pixels {
  vf x[kVectors], y[kVectors];
  Pixels(const Settings& s, int tile_x, int tile_y, int pass) {
    for (int k = 0; k < kVectors; ++k)
      for (int lane = 0; lane < kLanes; ++lane) {
        const int i = (pass * kVectors + k) * kLanes + lane;
        x[k][lane] = float(s.crop_x0 + tile_x * kTile + i % kTile) + 0.5f;
        y[k][lane] = float(s.crop_y0 + tile_y * kTile + i / kTile) + 0.5f;
      }
  }
};

// Copies between an image plane and a tile's 64 pixels; pixels outside the image are zero.
inline void read_tile(const Settings& s, const float* plane, int tile_x, int tile_y, float* tile) {
  const int columns = s.width - tile_x * kTile < kTile ? s.width - tile_x * kTile : kTile;
  for (int r = 0; r < kTile; ++r) {
    const int y = tile_y * kTile + r;
    for (int c = 0; c < kTile; ++c)
      tile[r * kTile + c] =
          y < s.height && c < columns ? plane[size_t(y) * size_t(s.width) + size_t(tile_x * kTile) + c] : 0.0f;
  }
}

inline void write_tile(const Settings& s, float* plane, int tile_x, int tile_y, const float* tile) {
  const int columns = s.width - tile_x * kTile < kTile ? s.width - tile_x * kTile : kTile;
  for (int r = 0; r < kTile && tile_y * kTile + r < s.height; ++r)
    std::memcpy(plane + size_t(tile_y * kTile + r) * size_t(s.width) + size_t(tile_x * kTile), tile + r * kTile,
                size_t(columns) * sizeof(float));
}

// Where the lists of some tile rows end: a tile's are followed by the next one's.
inline uint32_t list_end_of(const Settings& s, const TileView& tiles, RowRange range) {
  return tiles.starts[size_t(range.last - tiles.first_row) * size_t(s.tiles_x)];
}

// Pairs of a Gaussian and a vector of pixels where alpha reaches 1/255 somewhere, for a few Gaussians of a tile's list.
// Each vector has its own, one behind the other.  Finding them first, without a branch for each, leaves the long part
// of blending a loop over pairs that matter: half of those in a tile of small Gaussians.
struct Pairs {
  uint32_t count[kVectors];
  vf power[kVectors][kBatch];
  mask hit[kVectors][kBatch];
  uint32_t gaussian[kVectors][kBatch];  // counted from the batch's first
};

// Front to back, the pixels of one vector.
template <int NC>
struct Ray {
  vf t = splat(1.0f), color[NC] = {};
  mask live = all();  // whose end has not been reached
};

template <int NC, bool Traced>
void blend_rows(const Settings& s, const TileView& tiles, const float* background, RowRange range, const Planes& out,
                const Trace* trace) {
  constexpr int stride = record_stride(NC);
  const size_t plane = size_t(s.width) * size_t(s.height);
  const float* records = tiles.records;
  const uint32_t* list = tiles.list;
  const vf alpha_max = splat(kAlphaMax), t_min = splat(kTransmittanceMin), cut = splat(kLog2AlphaMin);
  const uint32_t list_end = list_end_of(s, tiles, range);
  Pairs pairs;
  for (int ty = range.first; ty < range.last; ++ty)
    for (int tx = 0; tx < s.tiles_x; ++tx) {
      const size_t tile = size_t(ty - tiles.first_row) * size_t(s.tiles_x) + size_t(tx);
      const uint32_t begin = tiles.starts[tile], end = tiles.starts[tile + 1];
      float out_t[kTile * kTile], out_c[NC][kTile * kTile];
      for (int pass = 0; pass < kPasses; ++pass) {
        const Pixels at(s, tx, ty, pass);
        Ray<NC> rays[kVectors];
        PassBits* trail = Traced ? pass_bits(*trace, begin, end, pass) : nullptr;
        uint32_t batch = begin;
        for (mask left = all(); batch < end && any(left);) {
          const uint32_t size = end - batch < kBatch ? end - batch : kBatch;
          for (uint32_t& count : pairs.count) count = 0;
          for (uint32_t i = 0; i < size; ++i) {
            if (batch + i + kBatch < list_end) prefetch(records + size_t(list[batch + i + kBatch]) * stride);
            const float* r = records + size_t(list[batch + i]) * stride;
            const vf a = splat(r[record::kA]), b = splat(r[record::kB]), c2 = splat(r[record::kC]);
            const vf u = splat(r[record::kU]), v = splat(r[record::kV]);
            PassBits bits = 0;
            for (int k = 0; k < kVectors; ++k) {
              const vf dx = at.x[kLanes >= 8 ? 0 : k] - u, dy = at.y[k] - v;
              const vf power = (r[record::kLevel] - a * dx * dx) - dy * (b * dx + c2 * dy);
              const mask hit = ge(power, cut) & rays[k].live;
              const uint32_t last = pairs.count[k], pixels = bits_of(hit);
              pairs.power[k][last] = power;
              pairs.hit[k][last] = hit;
              pairs.gaussian[k][last] = i;
              pairs.count[k] = last + (pixels != 0);
              bits = PassBits(bits | PassBits(pixels) << (k * kLanes));
            }
            if constexpr (Traced) trail[batch + i - begin] = bits;
          }
          left = none();
          for (int k = 0; k < kVectors; ++k) {
            Ray<NC> ray = rays[k];
            const uint32_t count = pairs.count[k];
            uint32_t i = 0;
            const auto next_weight = [&] {
              return ray.t * keep(pairs.hit[k][i] & ray.live, vmin(exp2_small(pairs.power[k][i]), alpha_max));
            };
            const auto show = [&](vf weight) {
              const float* r = records + size_t(list[batch + pairs.gaussian[k][i]]) * stride;
              for (int c = 0; c < NC; ++c) ray.color[c] += weight * r[record::kColor + c];
            };
            for (; i < count; ++i) {
              const vf weight = next_weight(), next = ray.t - weight;
              if (any(ge(t_min, next))) break;  // some pixel's end, the exception
              ray.t = next;
              show(weight);
            }
            for (; i < count; ++i) {
              const vf weight = next_weight();
              const mask blended = pairs.hit[k][i] & ray.live & gt(ray.t - weight, t_min);
              if constexpr (Traced) {
                const uint32_t lost = bits_of(andnot(blended, pairs.hit[k][i]));
                PassBits& bits = trail[batch + pairs.gaussian[k][i] - begin];
                bits = PassBits(bits & ~(PassBits(lost) << (k * kLanes)));
              }
              ray.live = andnot(andnot(blended, pairs.hit[k][i]), ray.live);
              const vf shown = keep(blended, weight);
              ray.t -= shown;
              show(shown);
            }
            left = left | ray.live;
            rays[k] = ray;
          }
          batch += size;
        }
        if constexpr (Traced) trace->ends[tile * kMaxPasses + size_t(pass)] = batch;
        for (int k = 0; k < kVectors; ++k) {
          const int offset = (pass * kVectors + k) * kLanes;
          store(out_t + offset, rays[k].t);
          for (int c = 0; c < NC; ++c) store(out_c[c] + offset, rays[k].color[c] + rays[k].t * background[c]);
        }
      }
      write_tile(s, out.transmittance, tx, ty, out_t);
      for (int c = 0; c < NC; ++c) write_tile(s, out.color + size_t(c) * plane, tx, ty, out_c[c]);
    }
}

// Backward pass over the same pairs, front to back.  The contribution behind a Gaussian is the final image minus what
// was accumulated so far, so there is no division by transmittance (only by 1 - alpha, at least 0.01).  Vectors of
// pixels in which the Gaussian was not blended are skipped: three tenths of them.
template <int NC, bool Absolute>
void blend_rows_backward(const Settings& s, const TileView& tiles, const Trace& trace, const Planes& image,
                         const PlaneGradients& gradient, RowRange range, const Sums& sums) {
  constexpr int stride = record_stride(NC);
  constexpr int sum_stride = moment_stride(NC);
  const size_t plane = size_t(s.width) * size_t(s.height);
  const float* records = tiles.records;
  const uint32_t* list = tiles.list;
  const uint32_t list_end = list_end_of(s, tiles, range);
  const vf alpha_max = splat(kAlphaMax);
  for (int ty = range.first; ty < range.last; ++ty)
    for (int tx = 0; tx < s.tiles_x; ++tx) {
      const size_t tile = size_t(ty - tiles.first_row) * size_t(s.tiles_x) + size_t(tx);
      const uint32_t begin = tiles.starts[tile], end = tiles.starts[tile + 1];
      if (begin == end) continue;
      alignas(64) float rest[kTile * kTile], grad[NC][kTile * kTile], t[kTile * kTile];
      float in[kTile * kTile];
      for (int i = 0; i < kTile * kTile; ++i) {
        rest[i] = 0.0f;
        t[i] = 1.0f;
      }
      if (gradient.transmittance != nullptr) {
        float in_grad[kTile * kTile];
        read_tile(s, image.transmittance, tx, ty, in);
        read_tile(s, gradient.transmittance, tx, ty, in_grad);
        for (int i = 0; i < kTile * kTile; ++i) rest[i] = in_grad[i] * in[i];
      }
      for (int c = 0; c < NC; ++c) {
        read_tile(s, gradient.color + size_t(c) * plane, tx, ty, grad[c]);
        read_tile(s, image.color + size_t(c) * plane, tx, ty, in);
        for (int i = 0; i < kTile * kTile; ++i) rest[i] += grad[c][i] * in[i];
      }
      for (int pass = 0; pass < kPasses; ++pass) {
        const Pixels at(s, tx, ty, pass);
        const PassBits* trail = pass_bits(trace, begin, end, pass);
        const uint32_t stop = trace.ends[tile * kMaxPasses + size_t(pass)];
        for (uint32_t i = begin; i < stop; ++i) {
          if (i + kAhead < list_end) {
            prefetch(records + size_t(list[i + kAhead]) * stride);
            prefetch_write(sums.moments + size_t(list[i + kAhead]) * sum_stride);
          }
          const PassBits bits = trail[i - begin];
          if (bits == 0) continue;
          const float* r = records + size_t(list[i]) * stride;
          const vf a = splat(r[record::kA]), b = splat(r[record::kB]), c2 = splat(r[record::kC]);
          const vf u = splat(r[record::kU]), v = splat(r[record::kV]);
          vf s0{}, sx{}, sy{}, sxx{}, sxy{}, syy{}, sc[NC], ax{}, ay{};
          for (int c = 0; c < NC; ++c) sc[c] = vf{};
          const int first = __builtin_ctzll(bits) / kLanes, last = (63 - __builtin_clzll(bits)) / kLanes;
          for (int k = first; k <= last; ++k) {
            const int offset = (pass * kVectors + k) * kLanes;
            const mask blended = mask_of(uint32_t(bits >> (k * kLanes)));
            const vf dx = at.x[kLanes >= 8 ? 0 : k] - u, dy = at.y[k] - v;
            const vf raw = exp2_small((r[record::kLevel] - a * dx * dx) - dy * (b * dx + c2 * dy));
            const vf alpha = keep(blended, vmin(raw, alpha_max));
            const vf light = load(t + offset);
            const vf weight = light * alpha;
            store(t + offset, light - weight);
            vf along{};
            for (int c = 0; c < NC; ++c) {
              const vf g = load(grad[c] + offset);
              along += g * r[record::kColor + c];
              sc[c] += weight * g;
            }
            const vf mine = weight * along;
            const vf behind = load(rest + offset) - mine;
            store(rest + offset, behind);
            // dL/dalpha times alpha; zero where alpha is clamped to its maximum.
            const vf g = keep(blended & gt(alpha_max, raw), mine - alpha * behind * reciprocal(1.0f - alpha));
            const vf gy = g * dy;
            s0 += g;
            sy += gy;
            syy += gy * dy;
            if constexpr (kLanes < 8) {
              sx += g * dx;
              sxx += g * dx * dx;
              sxy += gy * dx;
            }
            if constexpr (Absolute) {
              const vf gu = g * (2 * a * dx + b * dy), gv = g * (b * dx + 2 * c2 * dy);
              ax += absolute(gu);
              ay += absolute(gv);
            }
          }
          float* out = sums.moments + size_t(list[i]) * sum_stride;
#if DGR_LANES == 16
          if constexpr (NC == 1)
            add_moments(out, s0, sy, syy, sc[0], at.x[0] - u);
          else
#endif
          {
            if constexpr (kLanes >= 8) {  // dx is the same in every vector of the pass
              const vf dx = at.x[0] - u;
              sx = s0 * dx;
              sxx = sx * dx;
              sxy = sy * dx;
            }
            add_sums(out, sx, sy, sxx, sxy, syy, s0, sc[0], NC > 1 ? sc[NC > 1 ? 1 : 0] : vf{});
          }
          if constexpr (NC > 2)
            add_sums(out + moment::kColor + 2, sc[2], sc[NC > 3 ? 3 : 2], vf{}, vf{}, vf{}, vf{}, vf{}, vf{});
          if constexpr (Absolute) {
            float* target = sums.absolute + 2 * size_t(list[i]);
            for (int lane = 0; lane < kLanes; ++lane) {
              target[0] += kLn2 * ax[lane];
              target[1] += kLn2 * ay[lane];
            }
          }
        }
      }
    }
}

// The functions above by number of channels, from 1 on.
template <bool Traced>
constexpr decltype(&blend_rows<1, Traced>) kBlendRows[] = {blend_rows<1, Traced>, blend_rows<2, Traced>,
                                                           blend_rows<3, Traced>, blend_rows<4, Traced>};
template <bool Absolute>
constexpr decltype(&blend_rows_backward<1, Absolute>) kBlendRowsBackward[] = {
    blend_rows_backward<1, Absolute>, blend_rows_backward<2, Absolute>, blend_rows_backward<3, Absolute>,
    blend_rows_backward<4, Absolute>};

void blend(const Settings& s, int channels, const TileView& tiles, const float* background, RowRange range,
           const Planes& out, const Trace* trace) {
  const auto* run = trace == nullptr ? kBlendRows<false> : kBlendRows<true>;
  run[channels - 1](s, tiles, background, range, out, trace);
}

void blend_backward(const Settings& s, int channels, const TileView& tiles, const Trace& trace, const Planes& image,
                    const PlaneGradients& gradient, RowRange range, const Sums& sums) {
  const auto* run = sums.absolute == nullptr ? kBlendRowsBackward<false> : kBlendRowsBackward<true>;
  run[channels - 1](s, tiles, trace, image, gradient, range, sums);
}

}  // namespace
