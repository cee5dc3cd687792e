// Vectors of floats with the width of the instruction set this file is compiled for.
//
// Arithmetic uses the vector extension of GCC and Clang; only masks, which the extension handles badly, are
// written out for each instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#define DGR_LANES 16
#elif defined(__AVX2__)
#include <immintrin.h>
#define DGR_LANES 8
#elif defined(__SSE2__)
#include <emmintrin.h>
#define DGR_LANES 4
#else
#if defined(__aarch64__)
#include <arm_neon.h>
#endif
#define DGR_LANES 4
#endif

namespace {

constexpr int kLanes = DGR_LANES;
typedef float vf __attribute__((vector_size(4 * DGR_LANES)));
typedef float vf_u __attribute__((vector_size(4 * DGR_LANES), aligned(4)));
typedef int32_t vi __attribute__((vector_size(4 * DGR_LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * DGR_LANES)));  // where a sum of bits may wrap

inline vf splat(float x) { return x - vf{}; }
inline vf load(const float* p) { return *reinterpret_cast<const vf_u*>(p); }
inline void store(float* p, vf x) { *reinterpret_cast<vf_u*>(p) = x; }

#if defined(__AVX512F__)
typedef __mmask16 mask;
inline mask ge(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ); }
inline mask gt(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ); }
inline bool any(mask m) { return m != 0; }
inline mask none() { return 0; }
inline mask all() { return 0xffff; }
inline mask andnot(mask a, mask b) { return mask(~a & b); }
inline uint32_t bits_of(mask m) { return m; }
inline mask mask_of(uint32_t bits) { return mask(bits); }
inline vf select(mask m, vf a, vf b) { return (vf)_mm512_mask_blend_ps(m, (__m512)b, (__m512)a); }
inline vf keep(mask m, vf a) { return (vf)_mm512_maskz_mov_ps(m, (__m512)a); }
inline vf vmin(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
inline vf vmax(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
inline vf vsqrt(vf a) { return (vf)_mm512_sqrt_ps((__m512)a); }
#else
typedef vi mask;
inline mask ge(vf a, vf b) { return a >= b; }
inline mask gt(vf a, vf b) { return a > b; }
inline mask none() { return mask{}; }
inline mask all() { return ~mask{}; }
inline mask andnot(mask a, mask b) { return mask(~a & b); }
inline vf select(mask m, vf a, vf b) { return (vf)((m & (vi)a) | (~m & (vi)b)); }
inline vf keep(mask m, vf a) { return (vf)(m & (vi)a); }
inline mask mask_of(uint32_t bits) {  // the low bits, one per lane
  vi lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = 1 << i;
  return ((int32_t(bits) - vi{}) & lane) != 0;
}
#if defined(__AVX2__)
inline uint32_t bits_of(mask m) { return uint32_t(_mm256_movemask_ps((__m256)m)); }
inline bool any(mask m) { return _mm256_movemask_ps((__m256)m) != 0; }
inline vf vmin(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
inline vf vmax(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
inline vf vsqrt(vf a) { return (vf)_mm256_sqrt_ps((__m256)a); }
#elif defined(__SSE2__)
inline uint32_t bits_of(mask m) { return uint32_t(_mm_movemask_ps((__m128)m)); }
inline bool any(mask m) { return _mm_movemask_ps((__m128)m) != 0; }
inline vf vmin(vf a, vf b) { return (vf)_mm_min_ps((__m128)a, (__m128)b); }
inline vf vmax(vf a, vf b) { return (vf)_mm_max_ps((__m128)a, (__m128)b); }
inline vf vsqrt(vf a) { return (vf)_mm_sqrt_ps((__m128)a); }
#elif defined(__aarch64__)
inline uint32_t bits_of(mask m) {
  const vi lane = {1, 2, 4, 8};
  return vaddvq_u32((uint32x4_t)(m & lane));
}
inline bool any(mask m) { return vmaxvq_u32((uint32x4_t)m) != 0; }
inline vf vmin(vf a, vf b) { return (vf)vminq_f32((float32x4_t)a, (float32x4_t)b); }
inline vf vmax(vf a, vf b) { return (vf)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
inline vf vsqrt(vf a) { return (vf)vsqrtq_f32((float32x4_t)a); }
#else
inline uint32_t bits_of(mask m) { return uint32_t((m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8)); }
inline bool any(mask m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }
inline vf vmin(vf a, vf b) { return select(a < b, a, b); }
inline vf vmax(vf a, vf b) { return select(a > b, a, b); }
inline vf vsqrt(vf a) {
  vf r;
  for (int i = 0; i < kLanes; ++i) r[i] = __builtin_sqrtf(a[i]);
  return r;
}
#endif
#endif

// Lane i of columns[j] is rows[i * stride + j]: a transposition, four floats of a row at a time.  Going through
// memory float by float would wait for every store to reach the cache.
typedef float v4 __attribute__((vector_size(16), may_alias));
typedef float v4_u __attribute__((vector_size(16), aligned(4)));
inline v4 load4(const float* p) { return *reinterpret_cast<const v4_u*>(p); }
inline void store4(float* p, v4 x) { *reinterpret_cast<v4_u*>(p) = x; }

#if DGR_LANES == 16
#define DGR_IN_FOURS(a, b, i, j, k, l)                                                                              \
  __builtin_shufflevector(a, b, i, j, k, l, i + 4, j + 4, k + 4, l + 4, i + 8, j + 8, k + 8, l + 8, i + 12, j + 12, \
                          k + 12, l + 12)
inline vf fours(const float* p, size_t step) {
  typedef float v8 __attribute__((vector_size(32)));
  const v8 low = __builtin_shufflevector(load4(p), load4(p + step), 0, 1, 2, 3, 4, 5, 6, 7);
  const v8 high = __builtin_shufflevector(load4(p + 2 * step), load4(p + 3 * step), 0, 1, 2, 3, 4, 5, 6, 7);
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
#elif DGR_LANES == 8
#define DGR_IN_FOURS(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l, i + 4, j + 4, k + 4, l + 4)
inline vf fours(const float* p, size_t step) {
  return __builtin_shufflevector(load4(p), load4(p + step), 0, 1, 2, 3, 4, 5, 6, 7);
}
#else
#define DGR_IN_FOURS(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
inline vf fours(const float* p, size_t) { return load4(p); }
#endif

// Each group of four lanes is a 4x4 matrix over the four vectors.
inline void transpose_fours(vf* x) {
  constexpr int n = kLanes;
  const vf a = DGR_IN_FOURS(x[0], x[1], 0, n, 1, n + 1), b = DGR_IN_FOURS(x[0], x[1], 2, n + 2, 3, n + 3);
  const vf c = DGR_IN_FOURS(x[2], x[3], 0, n, 1, n + 1), d = DGR_IN_FOURS(x[2], x[3], 2, n + 2, 3, n + 3);
  x[0] = DGR_IN_FOURS(a, c, 0, 1, n, n + 1);
  x[1] = DGR_IN_FOURS(a, c, 2, 3, n + 2, n + 3);
  x[2] = DGR_IN_FOURS(b, d, 0, 1, n, n + 1);
  x[3] = DGR_IN_FOURS(b, d, 2, 3, n + 2, n + 3);
}
#undef DGR_IN_FOURS

inline void load_columns(const float* rows, size_t stride, vf* columns) {
  for (size_t i = 0; i < 4; ++i) columns[i] = fours(rows + i * stride, 4 * stride);
  transpose_fours(columns);
}

// The inverse, for `width` columns, a multiple of four: rows[i * width + j] is lane i of columns[j]; overwrites the
// columns.  Goes row by row: memory that is not cached is prefetched only if it is written in order.
inline void store_columns(float* rows, int width, vf* columns) {
  for (int j = 0; j < width; j += 4) transpose_fours(columns + j);
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < width; j += 4)
      store4(rows + i * width + j, reinterpret_cast<const v4*>(columns + j + i % 4)[i / 4]);
}

// Lane i set where i < n.
inline mask first_lanes(int n) {
  vf index;
  for (int i = 0; i < kLanes; ++i) index[i] = float(i);
  return gt(splat(float(n)), index);
}

// 2^x for x in [-126, 1]: an integer power and a polynomial of the fraction, by minimax fit.  The relative
// error, 2.7e-6 or 6e-6 (see tests/simd_test.cpp), is far below the alpha threshold of 1/255.  Other x give some
// number.
inline vf exp2_small(vf x) {
#if defined(__AVX512F__)
  // Rounded down by additions, which have pipes of their own; VREDUCEPS and VSCALEFPS, which do the same, take two
  // cycles each of those that multiply.
  constexpr int down = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
  const vf magic = splat(12582912.0f);  // 1.5 * 2^23: rounds to an integer
  const vf shifted = (vf)_mm512_add_round_ps((__m512)x, (__m512)magic, down);
  const vf f = (vf)_mm512_sub_round_ps((__m512)x, (__m512)(shifted - magic), down);
  vf p = splat(1.353417e-2f);
  p = p * f + 5.201146e-2f;
  p = p * f + 2.4144275e-1f;
  p = p * f + 6.9300384e-1f;
  p = p * f + 1.0000026f;
#else
  const vf magic = splat(12582912.0f);  // 1.5 * 2^23: rounds to the nearest integer
  const vf shifted = x + magic;
  const vf f = x - (shifted - magic);
  vf p = splat(9.67070e-3f);
  p = p * f + 5.58326e-2f;
  p = p * f + 2.402231e-1f;
  p = p * f + 6.931435e-1f;
  p = p * f + 1.0f;
#endif
  const vu exponent = ((vu)shifted) << 23;
  return (vf)((vu)p + exponent);
}

// log2 of positive, finite x: the exponent plus an odd series in (m - 1) / (m + 1) on [1/sqrt 2, sqrt 2).
inline vf log2_positive(vf x) {
  const vi exponent = ((vi)x - 0x3f3504f3) >> 23;  // bits of 1/sqrt 2
  const vf m = (vf)((vu)x - ((vu)exponent << 23));
  const vf t = (m - 1.0f) / (m + 1.0f);
  const vf tt = t * t;
  vf p = splat(1.0f / 9);
  p = p * tt + 1.0f / 7;
  p = p * tt + 1.0f / 5;
  p = p * tt + 1.0f / 3;
  p = p * tt + 1.0f;
  return __builtin_convertvector(exponent, vf) + 2.88539008177792681472f * t * p;
}

// 1 / x for positive, normal x: the hardware estimate and one step of Newton's method (a division takes as long
// as the rest of a pair).
inline vf reciprocal(vf x) {
#if defined(__AVX512F__)
  const vf y = (vf)_mm512_rcp14_ps((__m512)x);
#elif defined(__AVX2__)
  const vf y = (vf)_mm256_rcp_ps((__m256)x);
#elif defined(__SSE2__)
  const vf y = (vf)_mm_rcp_ps((__m128)x);
#else
  return 1.0f / x;
#endif
#if defined(__SSE2__)
  return y * (2.0f - x * y);
#endif
}

#if DGR_LANES == 16
#define DGR_SHUF(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
// Adds the sums of eight vectors to eight consecutive floats of `row`.
inline void add_sums(float* row, vf s0, vf s1, vf s2, vf s3, vf s4, vf s5, vf s6, vf s7) {
#define DGR_PAIR8(a, b)                                                     \
  (DGR_SHUF(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) + \
   DGR_SHUF(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
#define DGR_PAIR4(a, b)                                                       \
  (DGR_SHUF(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) + \
   DGR_SHUF(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
#define DGR_PAIR2(a, b)                                                       \
  (DGR_SHUF(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) + \
   DGR_SHUF(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
  const vf a0 = DGR_PAIR8(s0, s4), a1 = DGR_PAIR8(s1, s5), a2 = DGR_PAIR8(s2, s6), a3 = DGR_PAIR8(s3, s7);
  const vf b0 = DGR_PAIR4(a0, a2), b1 = DGR_PAIR4(a1, a3);
  const vf c = DGR_PAIR2(b0, b1);
  // lanes now: s0 s0 s1 s1 | s2 s2 s3 s3 | s4 ...
  typedef float v8 __attribute__((vector_size(32)));
  typedef float v8u __attribute__((vector_size(32), aligned(4)));
  const v8 r = __builtin_shufflevector(c, c, 0, 2, 4, 6, 8, 10, 12, 14) +
               __builtin_shufflevector(c, c, 1, 3, 5, 7, 9, 11, 13, 15);
  *reinterpret_cast<v8u*>(row) = *reinterpret_cast<v8u*>(row) + r;
}
// The same for Sx Sy Sxx Sxy Syy S0 C if dx repeats every eight lanes: the halves are folded before they are
// multiplied by dx, which saves a third of the shuffles.  The eighth float is undefined.
inline void add_moments(float* row, vf s0, vf sy, vf syy, vf sc, vf dx) {
  const vf p = DGR_PAIR8(s0, sy), q = DGR_PAIR8(syy, sc);
  const vf x = p * dx, xx = x * dx;
  const vf a = DGR_PAIR4(x, p), b = DGR_PAIR4(xx, q);
  const vf c = DGR_PAIR2(a, b);
  // lanes now: Sx Sx Sxx Sxx | S0 S0 Syy Syy | Sxy Sxy . . | Sy Sy C C
  typedef float v8 __attribute__((vector_size(32)));
  typedef float v8u __attribute__((vector_size(32), aligned(4)));
  const v8 r = __builtin_shufflevector(c, c, 0, 12, 2, 8, 6, 4, 14, 10) +
               __builtin_shufflevector(c, c, 1, 13, 3, 9, 7, 5, 15, 11);
  *reinterpret_cast<v8u*>(row) = *reinterpret_cast<v8u*>(row) + r;
}
#undef DGR_PAIR8
#undef DGR_PAIR4
#undef DGR_PAIR2
#elif DGR_LANES == 8
#define DGR_SHUF(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
inline void add_sums(float* row, vf s0, vf s1, vf s2, vf s3, vf s4, vf s5, vf s6, vf s7) {
#define DGR_PAIR4(a, b) (DGR_SHUF(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + DGR_SHUF(a, b, 4, 5, 6, 7, 12, 13, 14, 15))
#define DGR_PAIR2(a, b) (DGR_SHUF(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + DGR_SHUF(a, b, 2, 3, 10, 11, 6, 7, 14, 15))
  const vf a0 = DGR_PAIR4(s0, s4), a1 = DGR_PAIR4(s1, s5), a2 = DGR_PAIR4(s2, s6), a3 = DGR_PAIR4(s3, s7);
  const vf b0 = DGR_PAIR2(a0, a2), b1 = DGR_PAIR2(a1, a3);
  // lanes: b0 = s0 s0 s2 s2 s4 s4 s6 s6, b1 = s1 s1 s3 s3 ...
  const vf r = DGR_SHUF(b0, b1, 0, 8, 2, 10, 4, 12, 6, 14) + DGR_SHUF(b0, b1, 1, 9, 3, 11, 5, 13, 7, 15);
  store(row, load(row) + r);
#undef DGR_PAIR4
#undef DGR_PAIR2
}
#else
inline vf sums4(vf a, vf b, vf c, vf d) {
  const vf ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const vf cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}
inline void add_sums(float* row, vf s0, vf s1, vf s2, vf s3, vf s4, vf s5, vf s6, vf s7) {
  store(row, load(row) + sums4(s0, s1, s2, s3));
  store(row + 4, load(row + 4) + sums4(s4, s5, s6, s7));
}
#endif

inline vf absolute(vf x) { return vmax(x, -x); }
inline void prefetch(const float* p) { __builtin_prefetch(p, 0); }
inline void prefetch_write(const float* p) { __builtin_prefetch(p, 1); }

}  // namespace
