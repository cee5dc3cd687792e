// Real spherical harmonics up to degree 3, in 3DGS's order and signs.
#pragma once

#include "../simd.hpp"

namespace {

constexpr float kY0 = 0.28209479177387814f, kY1 = 0.4886025119029199f;
constexpr float kY2a = 1.0925484305920792f, kY2b = 0.31539156525252005f, kY2c = 0.5462742152960396f;
constexpr float kY3a = 0.5900435899266435f, kY3b = 2.890611442640554f, kY3c = 0.4570457994644658f,
                kY3d = 0.3731763325901154f, kY3e = 1.445305721320277f;

// Values in the unit direction (x, y, z).
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

}  // namespace
