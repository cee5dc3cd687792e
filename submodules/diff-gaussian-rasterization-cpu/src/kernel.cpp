// The arithmetic of the rasterizer, compiled once per instruction set (named by DGR_ISA).
//
// Notation: W, t world-to-camera; M = R(q) diag(s); T = J W with J the Jacobian of the projection (EWA,
// Zwicker et al. 2001); B = T M, so that the screen covariance is B B^T + eps I.  The determinant of B B^T is
// |b0 x b1|^2 (Cauchy-Binet), which avoids the cancellation of a difference of products for needle-like Gaussians.
#include "kernel.hpp"
#include "simd.hpp"

#define DGR_CONCAT_(a, b) a##b
#define DGR_CONCAT(a, b) DGR_CONCAT_(a, b)
#define DGR_STR_(a) #a
#define DGR_STR(a) DGR_STR_(a)

namespace {

using namespace dgr;

constexpr float kLog2e = 1.44269504088896340736f;
constexpr float kLn2 = 0.69314718055994530942f;
constexpr float kLog2AlphaMin = -7.99435343685885793770f;  // log2(1/255)
constexpr int kParts = kBlock / kLanes;                    // vectors in a prepared row
constexpr uint32_t kAhead = 8;                             // prefetch distance in a list, in Gaussians
constexpr uint32_t kSpanAhead = 16;
constexpr int kVectors = 4;                                // vectors of pixels in registers
constexpr int kPasses = kTile * kTile / (kVectors * kLanes);
static_assert(kPasses <= kMaxPasses, "");

// One bit per pixel of a pass.
template <int Bits> struct BitsOf;
template <> struct BitsOf<64> { typedef uint64_t type; };
template <> struct BitsOf<32> { typedef uint32_t type; };
template <> struct BitsOf<16> { typedef uint16_t type; };
typedef BitsOf<kVectors * kLanes>::type PassBits;

// Bits of a pass over a tile whose list begins at `begin`; each pass of a tile has its own piece.
inline PassBits* pass_bits(const Trace& trace, uint32_t begin, uint32_t end, int pass) {
  return reinterpret_cast<PassBits*>(trace.blended + begin) + size_t(pass) * (end - begin);
}

// Rows of a prepared block.
enum { kMean = 0, kAxes = 3, kOpacity = 12, kValid = 13, kColor = 14 };

constexpr float kY0 = 0.28209479177387814f, kY1 = 0.4886025119029199f;
constexpr float kY2a = 1.0925484305920792f, kY2b = 0.31539156525252005f, kY2c = 0.5462742152960396f;
constexpr float kY3a = 0.5900435899266435f, kY3b = 2.890611442640554f, kY3c = 0.4570457994644658f,
                kY3d = 0.3731763325901154f, kY3e = 1.445305721320277f;

// Real spherical harmonics in 3DGS's order and signs.
inline void sh_basis(int degree, vf x, vf y, vf z, vf* b) {
  b[0] = splat(kY0);
  if (degree < 1) return;
  b[1] = -kY1 * y;
  b[2] = kY1 * z;
  b[3] = -kY1 * x;
  if (degree < 2) return;
  const vf xx = x * x, yy = y * y, zz = z * z;
  b[4] = kY2a * x * y;
  b[5] = -kY2a * y * z;
  b[6] = kY2b * (2 * zz - xx - yy);
  b[7] = -kY2a * x * z;
  b[8] = kY2c * (xx - yy);
  if (degree < 3) return;
  b[9] = -kY3a * y * (3 * xx - yy);
  b[10] = kY3b * x * y * z;
  b[11] = -kY3c * y * (4 * zz - xx - yy);
  b[12] = kY3d * z * (2 * zz - 3 * xx - 3 * yy);
  b[13] = -kY3c * x * (4 * zz - xx - yy);
  b[14] = kY3e * z * (xx - yy);
  b[15] = -kY3a * x * (xx - 3 * yy);
}

// Gradient of sum_k w_k Y_k(x, y, z) with respect to the direction.
inline void sh_direction(int degree, vf x, vf y, vf z, const vf* w, vf& gx, vf& gy, vf& gz) {
  gx = gy = gz = vf{};
  if (degree < 1) return;
  gy -= kY1 * w[1];
  gz += kY1 * w[2];
  gx -= kY1 * w[3];
  if (degree < 2) return;
  gx += kY2a * y * w[4] - 2 * kY2b * x * w[6] - kY2a * z * w[7] + 2 * kY2c * x * w[8];
  gy += kY2a * x * w[4] - kY2a * z * w[5] - 2 * kY2b * y * w[6] - 2 * kY2c * y * w[8];
  gz += -kY2a * y * w[5] + 4 * kY2b * z * w[6] - kY2a * x * w[7];
  if (degree < 3) return;
  const vf xx = x * x, yy = y * y, zz = z * z;
  gx += -6 * kY3a * x * y * w[9] + kY3b * y * z * w[10] + 2 * kY3c * x * y * w[11] - 6 * kY3d * x * z * w[12] -
        kY3c * (4 * zz - 3 * xx - yy) * w[13] + 2 * kY3e * x * z * w[14] - 3 * kY3a * (xx - yy) * w[15];
  gy += -3 * kY3a * (xx - yy) * w[9] + kY3b * x * z * w[10] - kY3c * (4 * zz - xx - 3 * yy) * w[11] -
        6 * kY3d * y * z * w[12] + 2 * kY3c * x * y * w[13] - 2 * kY3e * y * z * w[14] + 6 * kY3a * x * y * w[15];
  gz += kY3b * x * y * w[10] - 8 * kY3c * y * z * w[11] + kY3d * (6 * zz - 3 * xx - 3 * yy) * w[12] -
        8 * kY3c * x * z * w[13] + kY3e * (xx - yy) * w[14];
}

// log2 of positive, finite x: the exponent plus an odd series in (m - 1) / (m + 1) on [1/sqrt 2, sqrt 2).
inline vf log2_positive(vf x) {
  const vi bits = (vi)x;
  const vi shifted = bits - 0x3f3504f3;  // bits of 1/sqrt 2
  const vi exponent = shifted >> 23;
  const vf m = (vf)(bits - (exponent << 23));
  const vf t = (m - 1.0f) / (m + 1.0f);
  const vf tt = t * t;
  vf p = splat(1.0f / 9);
  p = p * tt + 1.0f / 7;
  p = p * tt + 1.0f / 5;
  p = p * tt + 1.0f / 3;
  p = p * tt + 1.0f;
  return __builtin_convertvector(exponent, vf) + (2 * kLog2e) * t * p;
}

inline void prefetch(const float* p) { __builtin_prefetch(p, 0); }
inline void prefetch_write(const float* p) { __builtin_prefetch(p, 1); }

inline vf row(const float* block, int r, int part) { return load(block + r * kBlock + part * kLanes); }

// Rotation matrices of unit quaternions (wxyz).
inline void rotation_of(const vf* q, vf* r) {
  const vf w = q[0], x = q[1], y = q[2], z = q[3];
  r[0] = 1 - 2 * (y * y + z * z);
  r[1] = 2 * (x * y - w * z);
  r[2] = 2 * (x * z + w * y);
  r[3] = 2 * (x * y + w * z);
  r[4] = 1 - 2 * (x * x + z * z);
  r[5] = 2 * (y * z - w * x);
  r[6] = 2 * (x * z - w * y);
  r[7] = 2 * (y * z + w * x);
  r[8] = 1 - 2 * (x * x + y * y);
}

// Rows [base, base + kLanes) of an array, readable four floats at a time: near the array's end, a padded copy.
class Rows {
 public:
  Rows(int count, int base) : base_(base), left_(count - base) {}
  const float* of(const float* array, int width) {
    const float* rows = array + size_t(base_) * size_t(width);
    if (left_ > kLanes) return rows;
    for (int i = 0; i < kLanes; ++i)
      std::memcpy(copy_ + i * width, rows + (i < left_ ? i * width : 0), sizeof(float) * size_t(width));
    return copy_;
  }

 private:
  int base_, left_;
  float copy_[kLanes * 3 * kMaxSh + 4] = {};
};

void prepare(const Scene& s, int first, int last, float* prepared, int* invalid) {
  const int size = prepared_floats(s);
  const int colors = s.channels * (s.coefficients ? (s.degree + 1) * (s.degree + 1) : 1);
  const int stride = s.coefficients ? s.coefficients * s.channels : s.channels;
  int bad = 0;
  for (int block = first; block < last; ++block) {
    float* out = prepared + size_t(block) * size;
    for (int part = 0; part < kParts; ++part) {
      const int base = block * kBlock + part * kLanes;
      const int lanes = s.count - base < kLanes ? (s.count > base ? s.count - base : 0) : kLanes;
      float* target = out + part * kLanes;
      if (lanes == 0) {
        for (int r = 0; r < size / kBlock; ++r) store(target + r * kBlock, vf{});
        continue;
      }
      vf mean[4], q[4], scale[4], color[4];
      Rows rows(s.count, base);
      load_columns(rows.of(s.means, 3), 3, mean);
      for (int i = 0; i < 3; ++i) store(target + (kMean + i) * kBlock, mean[i]);
      load_columns(rows.of(s.quats, 4), 4, q);
      load_columns(rows.of(s.scales, 3), 3, scale);
      store(target + kOpacity * kBlock, load(rows.of(s.opacities, 1)));
      const float* color_rows = rows.of(s.colors, stride);
      for (int k = 0; k < colors; k += 4) {
        load_columns(color_rows + k, size_t(stride), color);
        for (int j = 0; j < 4 && k + j < colors; ++j) store(target + (kColor + k + j) * kBlock, color[j]);
      }
      const vf norm2 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
      // x - x is NaN if x is not finite, and then so is the sum
      vf sum = norm2 - norm2;
      for (int i = 0; i < 3; ++i) sum += scale[i] - scale[i];
      for (int i = 0; i < 3; ++i) sum += row(out, kMean + i, part) - row(out, kMean + i, part);
      sum += row(out, kOpacity, part) - row(out, kOpacity, part);
      for (int k = 0; k < colors; ++k) sum += row(out, kColor + k, part) - row(out, kColor + k, part);
      const mask there = first_lanes(lanes), valid = ge(vf{}, sum) & gt(norm2, vf{}) & there;
      bad += __builtin_popcount(bits_of(andnot(there, valid)));
      const vf inverse = 1.0f / vsqrt(norm2);
      for (vf& x : q) x *= inverse;
      vf rotation[9];
      rotation_of(q, rotation);
      for (int i = 0; i < 9; ++i) store(target + (kAxes + i) * kBlock, keep(valid, rotation[i] * scale[i % 3]));
      store(target + kValid * kBlock, keep(valid, splat(1.0f)));
      if (bits_of(valid) == bits_of(all())) continue;
      for (int r = 0; r < size / kBlock; ++r) store(target + r * kBlock, keep(valid, row(out, r, part)));
    }
  }
  *invalid += bad;
}

// Values of one vector of Gaussians in one camera that both the forward and the backward pass need.
struct Projected {
  vf x, y, z, iz, xz, yz;           // camera space; x/z and y/z after the clamp
  mask x_free, y_free;              // where the clamp had no effect
  vf j00, j02, j11, j12;
  vf t0[3], t1[3], b0[3], b1[3];
  vf c00, c01, c11, det0, inverse_det;
};

inline void project_vector(const Camera& cam, float eps, const float* block, int part, Projected& p) {
  const float* w = cam.rotation;
  const vf mx = row(block, kMean, part), my = row(block, kMean + 1, part), mz = row(block, kMean + 2, part);
  p.x = w[0] * mx + w[1] * my + w[2] * mz + cam.translation[0];
  p.y = w[3] * mx + w[4] * my + w[5] * mz + cam.translation[1];
  p.z = w[6] * mx + w[7] * my + w[8] * mz + cam.translation[2];
  p.iz = 1.0f / p.z;
  const vf xz = p.x * p.iz, yz = p.y * p.iz;
  p.xz = vmin(vmax(xz, splat(cam.x_low)), splat(cam.x_high));
  p.yz = vmin(vmax(yz, splat(cam.y_low)), splat(cam.y_high));
  p.x_free = ge(xz, splat(cam.x_low)) & ge(splat(cam.x_high), xz);
  p.y_free = ge(yz, splat(cam.y_low)) & ge(splat(cam.y_high), yz);
  p.j00 = cam.fx * p.iz;
  p.j02 = -p.j00 * p.xz;
  p.j11 = cam.fy * p.iz;
  p.j12 = -p.j11 * p.yz;
  for (int i = 0; i < 3; ++i) {
    p.t0[i] = p.j00 * w[i] + p.j02 * w[6 + i];
    p.t1[i] = p.j11 * w[3 + i] + p.j12 * w[6 + i];
  }
  for (int j = 0; j < 3; ++j) {
    const vf m0 = row(block, kAxes + j, part), m1 = row(block, kAxes + 3 + j, part),
             m2 = row(block, kAxes + 6 + j, part);
    p.b0[j] = p.t0[0] * m0 + p.t0[1] * m1 + p.t0[2] * m2;
    p.b1[j] = p.t1[0] * m0 + p.t1[1] * m1 + p.t1[2] * m2;
  }
  p.c00 = p.b0[0] * p.b0[0] + p.b0[1] * p.b0[1] + p.b0[2] * p.b0[2];
  p.c01 = p.b0[0] * p.b1[0] + p.b0[1] * p.b1[1] + p.b0[2] * p.b1[2];
  p.c11 = p.b1[0] * p.b1[0] + p.b1[1] * p.b1[1] + p.b1[2] * p.b1[2];
  const vf k0 = p.b0[1] * p.b1[2] - p.b0[2] * p.b1[1], k1 = p.b0[2] * p.b1[0] - p.b0[0] * p.b1[2],
           k2 = p.b0[0] * p.b1[1] - p.b0[1] * p.b1[0];
  p.det0 = k0 * k0 + k1 * k1 + k2 * k2;
  p.inverse_det = 1.0f / (p.det0 + eps * (p.c00 + p.c11) + eps * eps);
  p.c00 += eps;
  p.c11 += eps;
}

inline void direction(const Camera& cam, const float* block, int part, vf& x, vf& y, vf& z, vf& inverse) {
  x = row(block, kMean, part) - cam.center[0];
  y = row(block, kMean + 1, part) - cam.center[1];
  z = row(block, kMean + 2, part) - cam.center[2];
  inverse = 1.0f / vsqrt(vmax(x * x + y * y + z * z, splat(1e-30f)));
  x *= inverse;
  y *= inverse;
  z *= inverse;
}

// Color in a direction, before it is clamped at zero.
inline vf shade(const Scene& s, const float* block, int part, int channel, int used, const vf* basis) {
  vf color = splat(0.5f);
  for (int k = 0; k < used; ++k) color += basis[k] * row(block, kColor + k * s.channels + channel, part);
  return color;
}

void project(const Scene& s, const Settings& settings, const Camera& cam, const float* prepared, int first, int last,
             float* records, float* depths) {
  const int size = prepared_floats(s);
  const int channels = s.channels + settings.with_depth;
  const int stride = record_stride(channels);
  const int used = (s.degree + 1) * (s.degree + 1);
  for (int block = first; block < last; ++block) {
    const float* data = prepared + size_t(block) * size;
    for (int part = 0; part < kParts; ++part) {
      const int base = block * kBlock + part * kLanes;
      if (base >= s.count) break;
      Projected p;
      project_vector(cam, settings.eps2d, data, part, p);
      vf opacity = row(data, kOpacity, part);
      if (settings.antialiased) opacity *= vsqrt(vmax(p.det0 * p.inverse_det, vf{}));
      const vf u = cam.fx * p.x * p.iz + cam.cx, v = cam.fy * p.y * p.iz + cam.cy;
      mask seen = gt(p.z, splat(settings.near_plane)) & gt(splat(settings.far_plane), p.z) &
                  gt(row(data, kValid, part), vf{}) & ge(opacity, splat(kAlphaMin));
      const vf level = log2_positive(vmax(opacity, splat(1e-30f)));
      // Where alpha reaches 1/255: exp(-x^2 / 2 c00) = 1 / (255 opacity) along each axis.
      const vf reach = vmax((2 * kLn2) * (level - kLog2AlphaMin), vf{});
      const vf rx = vsqrt(reach * p.c00), ry = vsqrt(reach * p.c11);
      const float x0 = float(settings.crop_x0), y0 = float(settings.crop_y0);
      seen = seen & gt(u + rx, splat(x0)) & gt(splat(x0 + float(settings.width)), u - rx) & gt(v + ry, splat(y0)) &
             gt(splat(y0 + float(settings.height)), v - ry);
      store(depths + base, keep(seen, p.z));
      if (!any(seen)) continue;

      vf out[12] = {u, v, (0.5f * kLog2e) * p.c11 * p.inverse_det, -kLog2e * p.c01 * p.inverse_det,
                    (0.5f * kLog2e) * p.c00 * p.inverse_det, level};
      if (s.coefficients) {
        vf dx, dy, dz, inverse, basis[kMaxSh];
        direction(cam, data, part, dx, dy, dz, inverse);
        sh_basis(s.degree, dx, dy, dz, basis);
        for (int c = 0; c < s.channels; ++c) out[6 + c] = vmax(shade(s, data, part, c, used, basis), vf{});
      } else {
        for (int c = 0; c < s.channels; ++c) out[6 + c] = row(data, kColor + c, part);
      }
      if (settings.with_depth) out[6 + s.channels] = settings.inverse_depth ? p.iz : p.z;
      store_columns(records + size_t(base) * size_t(stride), stride, out);
    }
  }
}

inline float clamped(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

uint32_t spans(const Settings& s, int stride, const float* records, const uint32_t* order, uint32_t first,
               uint32_t last, TileRows* rows, uint32_t* span, uint32_t capacity, uint32_t* used, int32_t* changes) {
  const float right_edge = float(s.width - 1), bottom_edge = float(s.height - 1);
  vf lane_rows;
  for (int lane = 0; lane < kLanes; ++lane) lane_rows[lane] = float(lane * kTile);
  uint32_t count = *used;
  uint32_t i = first;
  for (; i < last; ++i) {
    if (i + kSpanAhead < last) prefetch(records + size_t(order[i + kSpanAhead]) * stride);
    const float* r = records + size_t(order[i]) * stride;
    const float u = r[0] - float(s.crop_x0) - 0.5f, v = r[1] - float(s.crop_y0) - 0.5f;  // in pixel indices
    const float a = r[2], b = r[3], c = r[4];
    // Slightly wider than alpha = 1/255: an extra pixel is skipped later, a missing one would be lost.
    const float level = r[5] - kLog2AlphaMin + 1e-4f;
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
    if (count + uint32_t(y1 - y0) + kSpanSlack > capacity) break;
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
      int32_t* change = changes + y * (s.tiles_x + 1);
      ++change[one & 0xffff];
      --change[one >> 16];
    }
    rows[i].y0 = uint16_t(y0);
    rows[i].y1 = uint16_t(y1);
    count += uint32_t(y1 - y0);
  }
  *used = count;
  return i;
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
      tile[r * kTile + c] = y < s.height && c < columns ? plane[size_t(y) * s.width + tile_x * kTile + c] : 0.0f;
  }
}

inline void write_tile(const Settings& s, float* plane, int tile_x, int tile_y, const float* tile) {
  const int columns = s.width - tile_x * kTile < kTile ? s.width - tile_x * kTile : kTile;
  for (int r = 0; r < kTile && tile_y * kTile + r < s.height; ++r)
    std::memcpy(plane + size_t(tile_y * kTile + r) * s.width + tile_x * kTile, tile + r * kTile,
                columns * sizeof(float));
}

template <int NC, bool Traced>
void blend_rows(const Settings& s, const float* records, const uint32_t* starts, const uint32_t* list,
                const float* background, int row0, int row1, float* image, float* transmittance, const Trace* trace) {
  constexpr int stride = NC <= 2 ? 8 : 12;
  const size_t plane = size_t(s.width) * s.height;
  const vf alpha_max = splat(kAlphaMax), t_min = splat(kTransmittanceMin), cut = splat(kLog2AlphaMin);
  for (int ty = row0; ty < row1; ++ty)
    for (int tx = 0; tx < s.tiles_x; ++tx) {
      const int tile = ty * s.tiles_x + tx;
      const uint32_t begin = starts[tile], end = starts[tile + 1];
      float out_t[kTile * kTile], out_c[NC][kTile * kTile];
      for (int pass = 0; pass < kPasses; ++pass) {
        const Pixels at(s, tx, ty, pass);
        vf t[kVectors], color[NC][kVectors];
        mask live[kVectors];
        for (int k = 0; k < kVectors; ++k) {
          t[k] = splat(1.0f);
          live[k] = all();
          for (int c = 0; c < NC; ++c) color[c][k] = vf{};
        }
        PassBits* trail = Traced ? pass_bits(*trace, begin, end, pass) : nullptr;
        uint32_t i = begin;
        for (; i < end; ++i) {
          if (i + kAhead < end) prefetch(records + size_t(list[i + kAhead]) * stride);
          const float* r = records + size_t(list[i]) * stride;
          const vf a = splat(r[2]), b = splat(r[3]), cc = splat(r[4]), u = splat(r[0]), v = splat(r[1]);
          vf power[kVectors];
          mask hit[kVectors], touched = none(), died = none();
          for (int k = 0; k < kVectors; ++k) {
            const vf dx = at.x[kLanes >= 8 ? 0 : k] - u, dy = at.y[k] - v;
            power[k] = (r[5] - a * dx * dx) - dy * (b * dx + cc * dy);
            hit[k] = ge(power[k], cut) & live[k];
            touched = touched | hit[k];
          }
          if (!any(touched)) {
            if constexpr (Traced) trail[i - begin] = 0;
            continue;
          }
          PassBits bits = 0;
          for (int k = 0; k < kVectors; ++k) {
            const vf weight = t[k] * vmin(exp2_small(power[k]), alpha_max);
            const vf next = t[k] - weight;
            const mask ended = andnot(hit[k], gt(next, t_min));
            const mask blended = andnot(hit[k], ended);
            const vf shown = keep(blended, weight);
            if constexpr (Traced) bits = PassBits(bits | PassBits(bits_of(blended)) << (k * kLanes));
            t[k] -= shown;
            for (int c = 0; c < NC; ++c) color[c][k] += shown * r[6 + c];
            live[k] = andnot(live[k], ended);
            died = died | ended;
          }
          if constexpr (Traced) trail[i - begin] = bits;
          if (any(died)) {
            mask left = live[0];
            for (int k = 1; k < kVectors; ++k) left = left | live[k];
            if (!any(left)) {
              ++i;
              break;
            }
          }
        }
        if constexpr (Traced) trace->ends[tile * kMaxPasses + pass] = i;
        for (int k = 0; k < kVectors; ++k) {
          const int offset = (pass * kVectors + k) * kLanes;
          store(out_t + offset, t[k]);
          for (int c = 0; c < NC; ++c) store(out_c[c] + offset, color[c][k] + t[k] * background[c]);
        }
      }
      write_tile(s, transmittance, tx, ty, out_t);
      for (int c = 0; c < NC; ++c) write_tile(s, image + c * plane, tx, ty, out_c[c]);
    }
}

// Backward pass over the same pairs, front to back.  The contribution behind a Gaussian is the final image minus what
// was accumulated so far, so there is no division by transmittance (only by 1 - alpha, at least 0.01).  Vectors of
// pixels in which the Gaussian was not blended are skipped: three tenths of them.
template <int NC, bool Absolute>
void blend_rows_backward(const Settings& s, const float* records, const uint32_t* starts, const uint32_t* list,
                         const Trace& trace, const float* image, const float* transmittance, const float* grad_image,
                         const float* grad_transmittance, int row0, int row1, float* sums, float* absolute) {
  constexpr int stride = NC <= 2 ? 8 : 12;
  constexpr int sum_stride = NC <= 2 ? 8 : 16;
  const size_t plane = size_t(s.width) * s.height;
  const vf alpha_max = splat(kAlphaMax);
  for (int ty = row0; ty < row1; ++ty)
    for (int tx = 0; tx < s.tiles_x; ++tx) {
      const int tile = ty * s.tiles_x + tx;
      const uint32_t begin = starts[tile], end = starts[tile + 1];
      if (begin == end) continue;
      alignas(64) float rest[kTile * kTile], grad[NC][kTile * kTile], t[kTile * kTile];
      float in[kTile * kTile];
      for (int i = 0; i < kTile * kTile; ++i) {
        rest[i] = 0.0f;
        t[i] = 1.0f;
      }
      if (grad_transmittance != nullptr) {
        float in_grad[kTile * kTile];
        read_tile(s, transmittance, tx, ty, in);
        read_tile(s, grad_transmittance, tx, ty, in_grad);
        for (int i = 0; i < kTile * kTile; ++i) rest[i] = in_grad[i] * in[i];
      }
      for (int c = 0; c < NC; ++c) {
        read_tile(s, grad_image + c * plane, tx, ty, grad[c]);
        read_tile(s, image + c * plane, tx, ty, in);
        for (int i = 0; i < kTile * kTile; ++i) rest[i] += grad[c][i] * in[i];
      }
      for (int pass = 0; pass < kPasses; ++pass) {
        const Pixels at(s, tx, ty, pass);
        const PassBits* trail = pass_bits(trace, begin, end, pass);
        const uint32_t stop = trace.ends[tile * kMaxPasses + pass];
        for (uint32_t i = begin; i < stop; ++i) {
          if (i + kAhead < stop) prefetch(records + size_t(list[i + kAhead]) * stride);
          if (i + kAhead < stop) prefetch_write(sums + size_t(list[i + kAhead]) * sum_stride);
          const PassBits bits = trail[i - begin];
          if (bits == 0) continue;
          const float* r = records + size_t(list[i]) * stride;
          const vf a = splat(r[2]), b = splat(r[3]), cc = splat(r[4]), u = splat(r[0]), v = splat(r[1]);
          vf s0{}, sx{}, sy{}, sxx{}, sxy{}, syy{}, sc[NC], ax{}, ay{};
          for (int c = 0; c < NC; ++c) sc[c] = vf{};
          const int first = __builtin_ctzll(bits) / kLanes, last = (63 - __builtin_clzll(bits)) / kLanes;
          for (int k = first; k <= last; ++k) {
            const int offset = (pass * kVectors + k) * kLanes;
            const mask blended = mask_of(uint32_t(bits >> (k * kLanes)));
            const vf dx = at.x[kLanes >= 8 ? 0 : k] - u, dy = at.y[k] - v;
            const vf raw = exp2_small((r[5] - a * dx * dx) - dy * (b * dx + cc * dy));
            const vf alpha = keep(blended, vmin(raw, alpha_max));
            const vf light = load(t + offset);
            const vf weight = light * alpha;
            store(t + offset, light - weight);
            vf along{};
            for (int c = 0; c < NC; ++c) {
              const vf g = load(grad[c] + offset);
              along += g * r[6 + c];
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
              const vf gu = g * (2 * a * dx + b * dy), gv = g * (b * dx + 2 * cc * dy);
              ax += vmax(gu, -gu);
              ay += vmax(gv, -gv);
            }
          }
          float* out = sums + size_t(list[i]) * sum_stride;
#if DGR_LANES == 16
          if constexpr (NC == 1) add_moments(out, s0, sy, syy, sc[0], at.x[0] - u);
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
            add_sums(out + 8, sc[2], sc[NC > 3 ? 3 : 2], vf{}, vf{}, vf{}, vf{}, vf{}, vf{});
          if constexpr (Absolute) {
            float* target = absolute + 2 * size_t(list[i]);
            for (int lane = 0; lane < kLanes; ++lane) {
              target[0] += kLn2 * ax[lane];
              target[1] += kLn2 * ay[lane];
            }
          }
        }
      }
    }
}

template <bool Traced>
void blend_as(const Settings& s, int channels, const float* records, const uint32_t* starts, const uint32_t* list,
              const float* background, int row0, int row1, float* image, float* transmittance, const Trace* trace) {
  const auto run = channels == 1   ? blend_rows<1, Traced>
                   : channels == 2 ? blend_rows<2, Traced>
                   : channels == 3 ? blend_rows<3, Traced>
                                   : blend_rows<4, Traced>;
  run(s, records, starts, list, background, row0, row1, image, transmittance, trace);
}

void blend(const Settings& s, int channels, const float* records, const uint32_t* starts, const uint32_t* list,
           const float* background, int row0, int row1, float* image, float* transmittance, const Trace* trace) {
  const auto run = trace == nullptr ? blend_as<false> : blend_as<true>;
  run(s, channels, records, starts, list, background, row0, row1, image, transmittance, trace);
}

template <bool Absolute>
void blend_backward_as(const Settings& s, int channels, const float* records, const uint32_t* starts,
                       const uint32_t* list, const Trace& trace, const float* image, const float* transmittance,
                       const float* grad_image, const float* grad_transmittance, int row0, int row1, float* sums,
                       float* absolute) {
  const auto run = channels == 1   ? blend_rows_backward<1, Absolute>
                   : channels == 2 ? blend_rows_backward<2, Absolute>
                   : channels == 3 ? blend_rows_backward<3, Absolute>
                                   : blend_rows_backward<4, Absolute>;
  run(s, records, starts, list, trace, image, transmittance, grad_image, grad_transmittance, row0, row1, sums,
      absolute);
}

void blend_backward(const Settings& s, int channels, const float* records, const uint32_t* starts,
                    const uint32_t* list, const Trace& trace, const float* image, const float* transmittance,
                    const float* grad_image, const float* grad_transmittance, int row0, int row1, float* sums,
                    float* absolute) {
  const auto run = absolute == nullptr ? blend_backward_as<false> : blend_backward_as<true>;
  run(s, channels, records, starts, list, trace, image, transmittance, grad_image, grad_transmittance, row0, row1,
      sums, absolute);
}

void project_backward(const Scene& s, const Settings& settings, int cameras, const Camera* cams,
                      const float* prepared, const float* const* depths, const float* sums,
                      int first, int last, const Gradients& out, float* camera_grads, float* means2d) {
  const int size = prepared_floats(s);
  const int channels = s.channels + settings.with_depth;
  const int sum_stride = gradient_stride(channels);
  const int used = s.coefficients ? (s.degree + 1) * (s.degree + 1) : 1;
  // Only requested gradients are computed.
  const bool want_axes = out.quats != nullptr || out.scales != nullptr;
  const bool want_point = out.means != nullptr || camera_grads != nullptr;
  for (int block = first; block < last; ++block)
    for (int part = 0; part < kParts; ++part) {
      const float* data = prepared + size_t(block) * size;
      const int base = block * kBlock + part * kLanes;
      const int lanes = s.count - base < kLanes ? s.count - base : kLanes;
      if (lanes <= 0) break;
      vf g_mean[3] = {}, g_axes[9] = {}, g_opacity{}, g_color[kMaxSh * 3] = {};
      for (int m = 0; m < cameras; ++m) {
        const Camera& cam = cams[m];
        const size_t at = size_t(m) * s.count + base;
        const mask seen = gt(load(depths[m] + base), vf{});
        if (means2d != nullptr)
          for (int lane = 0; lane < lanes; ++lane) means2d[2 * (at + lane)] = means2d[2 * (at + lane) + 1] = 0.0f;
        if (!any(seen)) continue;
        // The sums of culled Gaussians are undefined.
        vf in[12];
        const float* rows = sums + at * size_t(sum_stride);
        // Prefetch the sums of the next block: the hardware prefetcher does not, because other views come in between.
        for (int line = 0; line < kLanes * sum_stride; line += 16) prefetch(rows + kLanes * sum_stride + line);
        for (int j = 0; j < 6 + channels; j += 4) load_columns(rows + j, size_t(sum_stride), in + j);
        for (int j = 0; j < 6 + channels; ++j) in[j] = keep(seen, in[j]);
        Projected p;
        project_vector(cam, settings.eps2d, data, part, p);
        const vf q00 = keep(seen, p.c11 * p.inverse_det), q01 = keep(seen, -p.c01 * p.inverse_det),
                 q11 = keep(seen, p.c00 * p.inverse_det);
        const vf sx = in[0], sy = in[1], s0 = in[5];
        const vf gu = q00 * sx + q01 * sy, gv = q01 * sx + q11 * sy;
        if (means2d != nullptr)
          for (int lane = 0; lane < lanes; ++lane) {
            means2d[2 * (at + lane)] = gu[lane];
            means2d[2 * (at + lane) + 1] = gv[lane];
          }
        const vf opacity = row(data, kOpacity, part);
        g_opacity += keep(seen, s0 / opacity);

        const float* w = cam.rotation;
        vf g_w[9] = {}, g_t[3] = {};
        if (want_axes || want_point) {
        // dL/dcov = Q H Q / 2, where H are the second moments (sigma = d^T Q d / 2, dL/dsigma = -g).
        const vf hxx = 0.5f * in[2], hxy = 0.5f * in[3], hyy = 0.5f * in[4];
        const vf e00 = q00 * hxx + q01 * hxy, e01 = q00 * hxy + q01 * hyy, e10 = q01 * hxx + q11 * hxy,
                 e11 = q01 * hxy + q11 * hyy;
        vf v00 = e00 * q00 + e01 * q01, v01 = e00 * q01 + e01 * q11, v11 = e10 * q01 + e11 * q11;
        if (settings.antialiased) {
          // comp^2 = det0 / det1, of the covariance without and with eps: adjugates over determinants.
          const vf f = 0.5f * s0, inverse0 = keep(seen & gt(p.det0, splat(1e-30f)), 1.0f / p.det0);
          v00 += f * ((p.c11 - settings.eps2d) * inverse0 - q00);
          v01 += f * (-p.c01 * inverse0 - q01);
          v11 += f * ((p.c00 - settings.eps2d) * inverse0 - q11);
        }
        // Through B, the Jacobian and the camera-space point.
        vf g_t0[3] = {}, g_t1[3] = {};
        for (int j = 0; j < 3; ++j) {
          const vf gb0 = 2 * (v00 * p.b0[j] + v01 * p.b1[j]), gb1 = 2 * (v01 * p.b0[j] + v11 * p.b1[j]);
          for (int i = 0; i < 3; ++i) {
            g_axes[3 * i + j] += keep(seen, p.t0[i] * gb0 + p.t1[i] * gb1);
            const vf axis = row(data, kAxes + 3 * i + j, part);
            g_t0[i] += gb0 * axis;
            g_t1[i] += gb1 * axis;
          }
        }
        const vf g_j00 = g_t0[0] * w[0] + g_t0[1] * w[1] + g_t0[2] * w[2];
        const vf g_j02 = g_t0[0] * w[6] + g_t0[1] * w[7] + g_t0[2] * w[8];
        const vf g_j11 = g_t1[0] * w[3] + g_t1[1] * w[4] + g_t1[2] * w[5];
        const vf g_j12 = g_t1[0] * w[6] + g_t1[1] * w[7] + g_t1[2] * w[8];
        const vf g_xz = keep(p.x_free, -p.j00 * g_j02), g_yz = keep(p.y_free, -p.j11 * g_j12);
        const vf wide = g_xz + cam.fx * gu, high = g_yz + cam.fy * gv;  // gradients of x/z and y/z
        vf gx = wide * p.iz, gy = high * p.iz;
        vf gz = -p.iz * (wide * p.x * p.iz + high * p.y * p.iz + p.j00 * g_j00 + p.j02 * g_j02 + p.j11 * g_j11 +
                         p.j12 * g_j12);
        if (settings.with_depth) {
          const vf g = in[6 + s.channels];
          gz += settings.inverse_depth ? -g * p.iz * p.iz : g;
        }
        gx = keep(seen, gx);
        gy = keep(seen, gy);
        gz = keep(seen, gz);
        const vf mean[3] = {row(data, kMean, part), row(data, kMean + 1, part), row(data, kMean + 2, part)};
        g_t[0] = gx;
        g_t[1] = gy;
        g_t[2] = gz;
        for (int i = 0; i < 3; ++i) {
          g_mean[i] += w[i] * gx + w[3 + i] * gy + w[6 + i] * gz;
          g_w[i] = keep(seen, gx * mean[i] + p.j00 * g_t0[i]);
          g_w[3 + i] = keep(seen, gy * mean[i] + p.j11 * g_t1[i]);
          g_w[6 + i] = keep(seen, gz * mean[i] + p.j02 * g_t0[i] + p.j12 * g_t1[i]);
        }
        }
        if (s.coefficients && (out.colors != nullptr || want_point)) {
          vf dx, dy, dz, inverse, basis[kMaxSh], weight[kMaxSh] = {};
          direction(cam, data, part, dx, dy, dz, inverse);
          sh_basis(s.degree, dx, dy, dz, basis);
          for (int c = 0; c < s.channels; ++c) {
            const vf g = keep(gt(shade(s, data, part, c, used, basis), vf{}), in[6 + c]);
            if (out.colors != nullptr)
              for (int k = 0; k < used; ++k) g_color[k * s.channels + c] += g * basis[k];
            if (want_point)
              for (int k = 0; k < used; ++k) weight[k] += g * row(data, kColor + k * s.channels + c, part);
          }
          vf ex, ey, ez;
          sh_direction(s.degree, dx, dy, dz, weight, ex, ey, ez);
          const vf radial = ex * dx + ey * dy + ez * dz;
          const vf g_view[3] = {keep(seen, (ex - radial * dx) * inverse), keep(seen, (ey - radial * dy) * inverse),
                                keep(seen, (ez - radial * dz) * inverse)};
          // The camera's center is -W^T t, so its gradient has the opposite sign.
          for (int i = 0; i < 3; ++i) {
            g_mean[i] += g_view[i];
            for (int j = 0; j < 3; ++j) {
              g_w[3 * i + j] += cam.translation[i] * g_view[j];
              g_t[i] += w[3 * i + j] * g_view[j];
            }
          }
        } else if (!s.coefficients) {
          for (int c = 0; c < s.channels; ++c) g_color[c] += in[6 + c];
        }
        if (camera_grads != nullptr) {
          float* sum = camera_grads + 16 * m;
          add_sums(sum, g_w[0], g_w[1], g_w[2], g_w[3], g_w[4], g_w[5], g_w[6], g_w[7]);
          add_sums(sum + 8, g_w[8], g_t[0], g_t[1], g_t[2], vf{}, vf{}, vf{}, vf{});
        }
      }
      // From the axes M = R diag(s) to the quaternion and the scales.
      vf g_quat[4] = {}, g_scale[3] = {};
      if (want_axes) {
        const mask valid = gt(row(data, kValid, part), vf{});
        vf q[4], scale[4];
        Rows rows(s.count, base);
        load_columns(rows.of(s.quats, 4), 4, q);
        load_columns(rows.of(s.scales, 3), 3, scale);
        const vf norm2 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
        const vf inverse = 1.0f / vsqrt(norm2);
        for (vf& one : q) one *= inverse;
        vf rotation[9], g[9];
        rotation_of(q, rotation);
        for (int j = 0; j < 3; ++j) {
          for (int i = 0; i < 3; ++i) {
            g_scale[j] += g_axes[3 * i + j] * rotation[3 * i + j];
            g[3 * i + j] = g_axes[3 * i + j] * scale[j];
          }
          g_scale[j] = keep(valid, g_scale[j]);
        }
        const vf w = q[0], x = q[1], y = q[2], z = q[3];
        g_quat[0] = 2 * (x * (g[7] - g[5]) + y * (g[2] - g[6]) + z * (g[3] - g[1]));
        g_quat[1] = 2 * (-2 * x * (g[4] + g[8]) + y * (g[1] + g[3]) + z * (g[2] + g[6]) + w * (g[7] - g[5]));
        g_quat[2] = 2 * (x * (g[1] + g[3]) - 2 * y * (g[0] + g[8]) + z * (g[5] + g[7]) + w * (g[2] - g[6]));
        g_quat[3] = 2 * (x * (g[2] + g[6]) + y * (g[5] + g[7]) - 2 * z * (g[0] + g[4]) + w * (g[3] - g[1]));
        const vf radial = g_quat[0] * w + g_quat[1] * x + g_quat[2] * y + g_quat[3] * z;
        for (int i = 0; i < 4; ++i) g_quat[i] = keep(valid, (g_quat[i] - radial * q[i]) * inverse);
      }
      for (int lane = 0; lane < lanes; ++lane) {
        const size_t n = size_t(base + lane);
        if (out.means != nullptr)
          for (int i = 0; i < 3; ++i) out.means[3 * n + size_t(i)] = g_mean[i][lane];
        if (out.quats != nullptr)
          for (int i = 0; i < 4; ++i) out.quats[4 * n + size_t(i)] = g_quat[i][lane];
        if (out.scales != nullptr)
          for (int i = 0; i < 3; ++i) out.scales[3 * n + size_t(i)] = g_scale[i][lane];
        if (out.opacities != nullptr) out.opacities[n] = g_opacity[lane];
        if (out.colors != nullptr) {
          const int width = (s.coefficients ? s.coefficients : 1) * s.channels;
          float* target = out.colors + n * size_t(width);
          for (int k = 0; k < width; ++k) target[k] = k < used * s.channels ? g_color[k][lane] : 0.0f;
        }
      }
    }
}

uint64_t multiply_add(int rounds) {
  constexpr int kChains = 16;  // enough to hide the latency on all tested machines, few enough for the registers
  constexpr int kUsed = kLanes == 16 ? kChains : 12;
  vf sum[kUsed];
  for (int i = 0; i < kUsed; ++i) sum[i] = splat(float(i));
  vf factor = splat(0.999f), addend = splat(0.001f);
  __asm__ volatile("" : "+m"(factor), "+m"(addend));
  for (int round = 0; round < rounds; ++round)
    for (int i = 0; i < kUsed; ++i) sum[i] = sum[i] * factor + addend;
  for (int i = 0; i < kUsed; ++i) __asm__ volatile("" : "+m"(sum[i]));
  return uint64_t(rounds) * kUsed * kLanes;
}

const Kernels kTable = {DGR_STR(DGR_ISA), multiply_add,   prepare,          project, spans, blend,
                        blend_backward,   project_backward};

}  // namespace

namespace dgr {
const Kernels* DGR_CONCAT(kernels_, DGR_ISA)() { return &kTable; }
}  // namespace dgr
