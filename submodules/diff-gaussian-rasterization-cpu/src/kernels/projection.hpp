// From the Gaussians' parameters to records of one camera, and the gradients back.
//
// Notation: W, t world-to-camera; M = R(q) diag(s), the axes; T = J W with J the Jacobian of the projection (EWA,
// Zwicker et al. 2001); B = T M, so that the screen covariance is C = B B^T + eps I and the conic its inverse Q.  The
// determinant of B B^T is |b0 x b1|^2 (Cauchy-Binet), which avoids the cancellation of a difference of products for
// needle-like Gaussians.
#pragma once

#include "../kernel.hpp"
#include "../simd.hpp"
#include "spherical_harmonics.hpp"

namespace {

using namespace dgr;

constexpr int kParts = kBlock / kLanes;  // vectors in a prepared row
constexpr float kMostCurved = 1e30f;     // trace of a conic

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
    // The four floats that begin with a row's last one reach three floats behind it.
    if (int64_t(left_ - kLanes) * width >= 3) return rows;
    for (int i = 0; i < kLanes; ++i)
      std::memcpy(copy_ + i * width, rows + (i < left_ ? i * width : 0), sizeof(float) * size_t(width));
    return copy_;
  }

 private:
  int base_, left_;
  float copy_[kLanes * 3 * kMaxSh + 4] = {};
};

void prepare(const Shape& s, const Gaussians& in, int first, int last, float* prepared, int* invalid) {
  using namespace dgr::prepared;
  const int size = s.prepared_floats(), colors = s.channels * s.active(), stride = s.color_floats();
  int bad = 0;
  for (int block = first; block < last; ++block) {
    float* out = prepared + size_t(block) * size_t(size);
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
      load_columns(rows.of(in.means, 3), 3, mean);
      for (int i = 0; i < 3; ++i) store(target + (kMean + i) * kBlock, mean[i]);
      load_columns(rows.of(in.quats, 4), 4, q);
      load_columns(rows.of(in.scales, 3), 3, scale);
      store(target + kOpacity * kBlock, load(rows.of(in.opacities, 1)));
      const float* color_rows = rows.of(in.colors, stride);
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
      bad += __builtin_popcount(bits_of(andnot(valid, there)));
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
  vf x, y, z, iz, xz, yz;  // camera space; x/z and y/z after the clamp
  mask x_free, y_free;     // where the clamp had no effect
  vf j00, j02, j11, j12;
  vf t0[3], t1[3], b0[3], b1[3];
  vf c00, c01, c11, det0, inverse_det;
};

inline void project_vector(const Camera& cam, float eps, const float* block, int part, Projected& p) {
  const float* w = cam.rotation;
  const vf mx = row(block, prepared::kMean, part), my = row(block, prepared::kMean + 1, part),
           mz = row(block, prepared::kMean + 2, part);
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
    const vf m0 = row(block, prepared::kAxes + j, part), m1 = row(block, prepared::kAxes + 3 + j, part),
             m2 = row(block, prepared::kAxes + 6 + j, part);
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
  x = row(block, prepared::kMean, part) - cam.center[0];
  y = row(block, prepared::kMean + 1, part) - cam.center[1];
  z = row(block, prepared::kMean + 2, part) - cam.center[2];
  inverse = 1.0f / vsqrt(vmax(x * x + y * y + z * z, splat(1e-30f)));
  x *= inverse;
  y *= inverse;
  z *= inverse;
}

// Color in a direction, before it is clamped at zero.
inline vf shade(const Shape& s, const float* block, int part, int channel, const vf* basis) {
  const int active = s.active();
  vf color = splat(0.5f);
  for (int k = 0; k < active; ++k) color += basis[k] * row(block, prepared::kColor + k * s.channels + channel, part);
  return color;
}

void project(const Shape& s, const Settings& settings, const Camera& cam, const float* prepared, int first, int last,
             const Projection& out) {
  const int size = s.prepared_floats(), stride = record_stride(s.channels + settings.with_depth);
  for (int block = first; block < last; ++block) {
    const float* data = prepared + size_t(block) * size_t(size);
    for (int part = 0; part < kParts; ++part) {
      const int base = block * kBlock + part * kLanes;
      if (base >= s.count) break;
      Projected p;
      project_vector(cam, settings.eps2d, data, part, p);
      vf opacity = row(data, prepared::kOpacity, part);
      if (settings.antialiased) opacity *= vsqrt(vmax(p.det0 * p.inverse_det, vf{}));
      const vf u = cam.fx * p.x * p.iz + cam.cx, v = cam.fy * p.y * p.iz + cam.cy;
      // Without a low-pass filter an ellipse may have no area, and its conic is infinite; gsplat culls it too.
      mask seen = gt(p.z, splat(settings.near_plane)) & gt(splat(settings.far_plane), p.z) &
                  gt(row(data, prepared::kValid, part), vf{}) & ge(opacity, splat(kAlphaMin)) &
                  gt(splat(kMostCurved), (p.c00 + p.c11) * p.inverse_det);
      const vf level = log2_positive(vmax(opacity, splat(1e-30f)));
      // Where alpha reaches 1/255: exp(-x^2 / 2 c00) = 1 / (255 opacity) along each axis.
      const vf reach = vmax((2 * kLn2) * (level - kLog2AlphaMin), vf{});
      const vf rx = vsqrt(reach * p.c00), ry = vsqrt(reach * p.c11);
      const float x0 = float(settings.crop_x0), y0 = float(settings.crop_y0);
      seen = seen & gt(u + rx, splat(x0)) & gt(splat(x0 + float(settings.width)), u - rx) & gt(v + ry, splat(y0)) &
             gt(splat(y0 + float(settings.height)), v - ry);
      store(out.depths + base, keep(seen, p.z));
      if (!any(seen)) continue;

      vf columns[12] = {u,
                        v,
                        (0.5f * kLog2e) * p.c11 * p.inverse_det,
                        -kLog2e * p.c01 * p.inverse_det,
                        (0.5f * kLog2e) * p.c00 * p.inverse_det,
                        level};
      if (s.coefficients) {
        vf dx, dy, dz, inverse, basis[kMaxSh];
        direction(cam, data, part, dx, dy, dz, inverse);
        sh_basis(s.degree, dx, dy, dz, basis);
        for (int c = 0; c < s.channels; ++c) columns[record::kColor + c] = vmax(shade(s, data, part, c, basis), vf{});
      } else {
        for (int c = 0; c < s.channels; ++c) columns[record::kColor + c] = row(data, prepared::kColor + c, part);
      }
      if (settings.with_depth) columns[record::kColor + s.channels] = settings.inverse_depth ? p.iz : p.z;
      store_columns(out.records + size_t(base) * size_t(stride), stride, columns);
    }
  }
}

// The backward pass, one function per step of the chain rule.  `g_x` is the gradient of the loss with respect to x.

// Inverse of the screen covariance; zero for culled Gaussians.
struct Conic {
  vf q00, q01, q11;
};

struct Covariance {  // symmetric 2x2
  vf v00, v01, v11;
};

struct CameraGradient {
  vf rotation[9], translation[3];
};

inline Conic conic_of(const Projected& p, mask seen) {
  return {keep(seen, p.c11 * p.inverse_det), keep(seen, -p.c01 * p.inverse_det), keep(seen, p.c00 * p.inverse_det)};
}

// dL/dC = Q H Q / 2, where H are the second moments (sigma = d^T Q d / 2, dL/dsigma = -g).
inline Covariance conic_backward(const Conic& q, const vf* moments) {
  const vf hxx = 0.5f * moments[moment::kXX], hxy = 0.5f * moments[moment::kXY], hyy = 0.5f * moments[moment::kYY];
  const vf e00 = q.q00 * hxx + q.q01 * hxy, e01 = q.q00 * hxy + q.q01 * hyy, e10 = q.q01 * hxx + q.q11 * hxy,
           e11 = q.q01 * hxy + q.q11 * hyy;
  return {e00 * q.q00 + e01 * q.q01, e00 * q.q01 + e01 * q.q11, e10 * q.q01 + e11 * q.q11};
}

// comp^2 = det0 / det1, of the covariance without and with eps: adjugates over determinants.
inline void compensation_backward(const Projected& p, float eps, mask seen, const Conic& q, vf g_opacity,
                                  Covariance* g) {
  const vf f = 0.5f * g_opacity, inverse0 = keep(seen & gt(p.det0, splat(1e-30f)), 1.0f / p.det0);
  g->v00 += f * ((p.c11 - eps) * inverse0 - q.q00);
  g->v01 += f * (-p.c01 * inverse0 - q.q01);
  g->v11 += f * ((p.c00 - eps) * inverse0 - q.q11);
}

// C = B B^T and B = T M: to the axes M, to which the gradient is added, and to T.
inline void covariance_backward(const Projected& p, const float* block, int part, mask seen, const Covariance& g,
                                vf* g_axes, vf* g_t0, vf* g_t1) {
  for (int j = 0; j < 3; ++j) {
    const vf gb0 = 2 * (g.v00 * p.b0[j] + g.v01 * p.b1[j]), gb1 = 2 * (g.v01 * p.b0[j] + g.v11 * p.b1[j]);
    for (int i = 0; i < 3; ++i) {
      g_axes[3 * i + j] += keep(seen, p.t0[i] * gb0 + p.t1[i] * gb1);
      const vf axis = row(block, prepared::kAxes + 3 * i + j, part);
      g_t0[i] += gb0 * axis;
      g_t1[i] += gb1 * axis;
    }
  }
}

// T = J W and (u, v): to the point in camera space.
inline void projection_backward(const Camera& cam, const Projected& p, vf gu, vf gv, const vf* g_t0, const vf* g_t1,
                                vf* g_point) {
  const float* w = cam.rotation;
  const vf g_j00 = g_t0[0] * w[0] + g_t0[1] * w[1] + g_t0[2] * w[2];
  const vf g_j02 = g_t0[0] * w[6] + g_t0[1] * w[7] + g_t0[2] * w[8];
  const vf g_j11 = g_t1[0] * w[3] + g_t1[1] * w[4] + g_t1[2] * w[5];
  const vf g_j12 = g_t1[0] * w[6] + g_t1[1] * w[7] + g_t1[2] * w[8];
  const vf g_xz = keep(p.x_free, -p.j00 * g_j02), g_yz = keep(p.y_free, -p.j11 * g_j12);
  const vf wide = g_xz + cam.fx * gu, high = g_yz + cam.fy * gv;  // gradients of x/z and y/z
  g_point[0] = wide * p.iz;
  g_point[1] = high * p.iz;
  g_point[2] =
      -p.iz * (wide * p.x * p.iz + high * p.y * p.iz + p.j00 * g_j00 + p.j02 * g_j02 + p.j11 * g_j11 + p.j12 * g_j12);
}

// point = W mean + t, and W's part in T: to the mean, to which the gradient is added, and to the camera.
inline void camera_backward(const Camera& cam, const Projected& p, const float* block, int part, mask seen,
                            const vf* g_point, const vf* g_t0, const vf* g_t1, vf* g_mean, CameraGradient* g) {
  const float* w = cam.rotation;
  const vf gx = g_point[0], gy = g_point[1], gz = g_point[2];
  for (int i = 0; i < 3; ++i) {
    const vf mean = row(block, prepared::kMean + i, part);
    g->translation[i] = g_point[i];
    g_mean[i] += w[i] * gx + w[3 + i] * gy + w[6 + i] * gz;
    g->rotation[i] = keep(seen, gx * mean + p.j00 * g_t0[i]);
    g->rotation[3 + i] = keep(seen, gy * mean + p.j11 * g_t1[i]);
    g->rotation[6 + i] = keep(seen, gz * mean + p.j02 * g_t0[i] + p.j12 * g_t1[i]);
  }
}

// Color of the viewing direction: to the coefficients (`g_color`, null if not requested), and through the direction to
// the mean and to the camera (`g`, null if not requested); all are added to.
inline void shade_backward(const Shape& s, const Camera& cam, const float* block, int part, mask seen,
                           const vf* g_shown, vf* g_color, vf* g_mean, CameraGradient* g) {
  const int active = s.active();
  vf dx, dy, dz, inverse, basis[kMaxSh], weight[kMaxSh] = {};
  direction(cam, block, part, dx, dy, dz, inverse);
  sh_basis(s.degree, dx, dy, dz, basis);
  for (int c = 0; c < s.channels; ++c) {
    const vf shown = keep(gt(shade(s, block, part, c, basis), vf{}), g_shown[c]);
    if (g_color != nullptr)
      for (int k = 0; k < active; ++k) g_color[k * s.channels + c] += shown * basis[k];
    if (g != nullptr)
      for (int k = 0; k < active; ++k) weight[k] += shown * row(block, prepared::kColor + k * s.channels + c, part);
  }
  if (g == nullptr) return;
  vf ex, ey, ez;
  sh_direction(s.degree, dx, dy, dz, weight, ex, ey, ez);
  const vf radial = ex * dx + ey * dy + ez * dz;
  const vf g_view[3] = {keep(seen, (ex - radial * dx) * inverse), keep(seen, (ey - radial * dy) * inverse),
                        keep(seen, (ez - radial * dz) * inverse)};
  // The camera's center is -W^T t, so its gradient has the opposite sign.
  for (int i = 0; i < 3; ++i) {
    g_mean[i] += g_view[i];
    for (int j = 0; j < 3; ++j) {
      g->rotation[3 * i + j] += cam.translation[i] * g_view[j];
      g->translation[i] += cam.rotation[3 * i + j] * g_view[j];
    }
  }
}

// M = R(q / |q|) diag(s): to the quaternion and the scales.
inline void axes_backward(const Gaussians& in, int count, int base, mask valid, const vf* g_axes, vf* g_quat,
                          vf* g_scale) {
  vf q[4], scale[4];
  Rows rows(count, base);
  load_columns(rows.of(in.quats, 4), 4, q);
  load_columns(rows.of(in.scales, 3), 3, scale);
  const vf norm2 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
  const vf inverse = 1.0f / vsqrt(norm2);
  for (vf& one : q) one *= inverse;
  vf rotation[9], g[9];
  rotation_of(q, rotation);
  for (int j = 0; j < 3; ++j) {
    g_scale[j] = vf{};
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

// Lanes of the first `lanes` Gaussians from `base` on to rows of `width` floats, unless null.
inline void store_rows(float* rows, int base, int lanes, int width, const vf* columns) {
  if (rows == nullptr) return;
  float* target = rows + size_t(base) * size_t(width);
  for (int lane = 0; lane < lanes; ++lane)
    for (int j = 0; j < width; ++j) *target++ = columns[j][lane];
}

void project_backward(const Shape& s, const Gaussians& in, const Settings& settings, int cameras, const Camera* cams,
                      const float* prepared, const float* const* depths, const float* moments, int first, int last,
                      const Gradients& out, const CameraGradients& to_cameras) {
  const int size = s.prepared_floats(), channels = s.channels + settings.with_depth;
  const int stride = moment_stride(channels), columns = moment::kColor + channels;
  // Only requested gradients are computed.
  const bool want_axes = out.quats != nullptr || out.scales != nullptr;
  const bool want_point = out.means != nullptr || to_cameras.cameras != nullptr;
  for (int block = first; block < last; ++block)
    for (int part = 0; part < kParts; ++part) {
      const float* data = prepared + size_t(block) * size_t(size);
      const int base = block * kBlock + part * kLanes;
      const int lanes = s.count - base < kLanes ? s.count - base : kLanes;
      if (lanes <= 0) break;
      vf g_mean[3] = {}, g_axes[9] = {}, g_opacity{}, g_color[kMaxSh * 3] = {};
      for (int m = 0; m < cameras; ++m) {
        const Camera& cam = cams[m];
        const size_t at = size_t(m) * size_t(s.count) + size_t(base);
        const mask seen = gt(load(depths[m] + base), vf{});
        float* means2d = to_cameras.means2d == nullptr ? nullptr : to_cameras.means2d + 2 * at;
        if (!any(seen)) {
          const vf none[2] = {};
          store_rows(means2d, 0, lanes, 2, none);
          continue;
        }
        // The moments of culled Gaussians are undefined.
        vf sums[12];
        const float* rows = moments + at * size_t(stride);
        // Prefetch those of the next block: the hardware prefetcher does not, because other views come in between.
        for (int line = 0; line < kLanes * stride; line += 16) prefetch(rows + kLanes * stride + line);
        for (int j = 0; j < columns; j += 4) load_columns(rows + j, size_t(stride), sums + j);
        for (int j = 0; j < columns; ++j) sums[j] = keep(seen, sums[j]);
        Projected p;
        project_vector(cam, settings.eps2d, data, part, p);
        const Conic q = conic_of(p, seen);
        const vf sx = sums[moment::kX], sy = sums[moment::kY], s0 = sums[moment::kAlpha];
        const vf g_center[2] = {q.q00 * sx + q.q01 * sy, q.q01 * sx + q.q11 * sy};
        store_rows(means2d, 0, lanes, 2, g_center);
        g_opacity += keep(seen, s0 / row(data, prepared::kOpacity, part));

        CameraGradient g = {};
        if (want_axes || want_point) {
          Covariance g_covariance = conic_backward(q, sums);
          if (settings.antialiased) compensation_backward(p, settings.eps2d, seen, q, s0, &g_covariance);
          vf g_t0[3] = {}, g_t1[3] = {}, g_point[3];
          covariance_backward(p, data, part, seen, g_covariance, g_axes, g_t0, g_t1);
          projection_backward(cam, p, g_center[0], g_center[1], g_t0, g_t1, g_point);
          if (settings.with_depth) {
            const vf shown = sums[moment::kColor + s.channels];
            g_point[2] += settings.inverse_depth ? -shown * p.iz * p.iz : shown;
          }
          for (vf& x : g_point) x = keep(seen, x);
          camera_backward(cam, p, data, part, seen, g_point, g_t0, g_t1, g_mean, &g);
        }
        const vf* g_shown = sums + moment::kColor;
        if (s.coefficients == 0)
          for (int c = 0; c < s.channels; ++c) g_color[c] += g_shown[c];
        else if (out.colors != nullptr || want_point)
          shade_backward(s, cam, data, part, seen, g_shown, out.colors == nullptr ? nullptr : g_color, g_mean,
                         want_point ? &g : nullptr);
        if (to_cameras.cameras != nullptr) {
          float* sum = to_cameras.cameras + 16 * size_t(m);
          const vf *w = g.rotation, *t = g.translation;
          add_sums(sum, w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]);
          add_sums(sum + 8, w[8], t[0], t[1], t[2], vf{}, vf{}, vf{}, vf{});
        }
      }
      vf g_quat[4] = {}, g_scale[3] = {};
      if (want_axes) {
        const mask valid = gt(row(data, prepared::kValid, part), vf{});
        axes_backward(in, s.count, base, valid, g_axes, g_quat, g_scale);
      }
      store_rows(out.means, base, lanes, 3, g_mean);
      store_rows(out.quats, base, lanes, 4, g_quat);
      store_rows(out.scales, base, lanes, 3, g_scale);
      store_rows(out.opacities, base, lanes, 1, &g_opacity);
      store_rows(out.colors, base, lanes, s.color_floats(), g_color);  // inactive coefficients are zero
    }
}

}  // namespace
