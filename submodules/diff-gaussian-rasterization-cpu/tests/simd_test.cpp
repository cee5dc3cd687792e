// The functions of simd.hpp against double precision, compiled for one instruction set.  Each approximation is tested
// on its whole domain against a bound in units in the last place (ULP) of the exact result; exact functions lane by
// lane. The program ends at once where the machine lacks the instruction set.
#include "simd.hpp"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <limits>

namespace {

int g_failures = 0;

void expect(bool condition, const char* what) {
  if (condition) return;
  std::printf("failed: %s\n", what);
  ++g_failures;
}

double ulps(float got, double exact) {
  const float nearest = float(exact);
  const double step =
      double(std::nextafter(std::fabs(nearest), std::numeric_limits<float>::infinity())) - double(std::fabs(nearest));
  return std::fabs(double(got) - exact) / step;
}

template <class Function>
vf filled(Function value) {
  vf x;
  for (int i = 0; i < kLanes; ++i) x[i] = value(i);
  return x;
}

// Largest error of `function` at positive `x` from `low` to `high`, every `step`-th float.
template <class Function, class Exact>
double worst(float low, float high, uint32_t step, Function function, Exact exact, bool relative = true) {
  double most = 0;
  uint32_t from, to;
  std::memcpy(&from, &low, 4);
  std::memcpy(&to, &high, 4);
  for (uint32_t at = from; at <= to; at += step * kLanes) {
    const vf x = filled([&](int lane) {
      const uint32_t bits = at + uint32_t(lane) * step <= to ? at + uint32_t(lane) * step : to;
      float value;
      std::memcpy(&value, &bits, 4);
      return value;
    });
    const vf y = function(x);
    for (int i = 0; i < kLanes; ++i) {
      const double wanted = exact(double(x[i]));
      most = std::fmax(most, relative ? ulps(y[i], wanted) : std::fabs(double(y[i]) - wanted));
    }
  }
  return most;
}

void bound(const char* name, const char* domain, double error, double most, const char* unit) {
  std::printf("%-14s %-24s %9.3g %s (bound %g)\n", name, domain, error, unit, most);
  expect(error <= most, name);
}

// The two polynomials of exp2_small, of degree 4 on [0, 1) and on [-0.5, 0.5].
#if defined(__AVX512DQ__)
constexpr double kExp2Bound = 46;
#else
constexpr double kExp2Bound = 100;
#endif

void test_approximations() {
  // Used on powers from -8 (alpha 1/255) to 1; the domain is that of normal results.
  const auto power = [](double x) { return std::exp2(x); };
  const auto negative = [](vf x) { return exp2_small(-x); };
  bound("exp2_small", "[-126, -1e-30]", worst(1e-30f, 126.0f, 997, negative, [](double x) { return std::exp2(-x); }),
        kExp2Bound, "ULP");
  bound("exp2_small", "[1e-30, 1]", worst(1e-30f, 1.0f, 997, exp2_small, power), kExp2Bound, "ULP");
  // Absolute, as a power of two is built from it; its values span -127 to 128.
  bound("log2_positive", "[0.5, 2], absolute",
        worst(
            0.5f, 2.0f, 7, log2_positive, [](double x) { return std::log2(x); }, false),
        3e-7, "");
  bound("log2_positive", "[2^-126, 2^-1]",
        worst(1.17549435e-38f, 0.5f, 997, log2_positive, [](double x) { return std::log2(x); }), 3, "ULP");
  bound("log2_positive", "[2, 2^127.99]",
        worst(2.0f, 3.4e38f, 997, log2_positive, [](double x) { return std::log2(x); }), 3, "ULP");
  // Used on 1 - alpha, from 0.01 to 1.
  bound("reciprocal", "[2^-126, 2^125]",
        worst(1.17549435e-38f, 4.2e37f, 997, reciprocal, [](double x) { return 1 / x; }), 4, "ULP");
  bound("vsqrt", "[2^-126, 2^127.99]",
        worst(1.17549435e-38f, 3.4e38f, 997, vsqrt, [](double x) { return std::sqrt(x); }), 0.5001, "ULP");
}

void test_masks() {
  const vf a = filled([](int i) { return float(i % 3); }), b = splat(1.0f), nan = splat(std::nanf(""));
  for (int i = 0; i < kLanes; ++i) {
    const uint32_t bit = 1u << i;
    const bool larger = i % 3 > 1, equal = i % 3 == 1;
    expect(((bits_of(gt(a, b)) & bit) != 0) == larger, "gt");
    expect(((bits_of(ge(a, b)) & bit) != 0) == (larger || equal), "ge");
    expect(((bits_of(andnot(gt(a, b), ge(a, b))) & bit) != 0) == equal, "andnot is not the first, and the second");
    expect(select(gt(a, b), a, splat(-5.0f))[i] == (larger ? a[i] : -5.0f), "select");
    expect(keep(gt(a, b), a)[i] == (larger ? a[i] : 0.0f), "keep");
    expect((bits_of(mask_of(0x5555u)) & bit) == (0x5555u & bit), "mask_of, bits_of");
    expect(vmin(a, b)[i] == std::fmin(a[i], 1.0f) && vmax(a, b)[i] == std::fmax(a[i], 1.0f), "vmin, vmax");
    expect(absolute(a - b)[i] == std::fabs(a[i] - 1.0f), "absolute");
  }
  expect(!any(gt(nan, b)) && !any(ge(nan, b)) && !any(gt(b, nan)), "NaN is not larger than anything");
  expect(!any(none()) && bits_of(all()) == (1ull << kLanes) - 1, "none, all");
  for (int n = 0; n <= kLanes; ++n) expect(bits_of(first_lanes(n)) == (1ull << n) - 1, "first_lanes");
}

void test_rows() {
  float rows[kLanes * 12 + 4], back[kLanes * 12] = {};
  for (int i = 0; i < kLanes * 12 + 4; ++i) rows[i] = float(i);
  for (size_t stride : {size_t(1), size_t(3), size_t(4), size_t(12)}) {
    vf columns[4];
    load_columns(rows, stride, columns);
    for (int i = 0; i < kLanes; ++i)
      for (int j = 0; j < 4; ++j) expect(columns[j][i] == float(i * int(stride) + j), "load_columns");
  }
  for (int width : {4, 8, 12}) {
    vf columns[12];
    for (int j = 0; j < width; ++j) columns[j] = filled([&](int i) { return float(i * width + j); });
    store_columns(back, width, columns);
    for (int i = 0; i < kLanes * width; ++i) expect(back[i] == float(i), "store_columns");
  }
}

void test_sums() {
  vf columns[8];
  float row[8];
  for (int j = 0; j < 8; ++j) {
    columns[j] = filled([&](int i) { return float((i + 1) * (j + 2)); });  // whole numbers: exact in any order
    row[j] = float(100 * j);
  }
  add_sums(row, columns[0], columns[1], columns[2], columns[3], columns[4], columns[5], columns[6], columns[7]);
  for (int j = 0; j < 8; ++j) expect(row[j] == float(100 * j + (j + 2) * kLanes * (kLanes + 1) / 2), "add_sums");
#if DGR_LANES == 16
  const vf dx = filled([](int i) { return float(i % 8 - 3); });
  float sums[8] = {}, wanted[7] = {};
  for (int i = 0; i < kLanes; ++i) {
    const float s0 = columns[0][i], sy = columns[1][i], syy = columns[2][i], sc = columns[3][i];
    const float terms[7] = {s0 * dx[i], sy, s0 * dx[i] * dx[i], sy * dx[i], syy, s0, sc};
    for (int j = 0; j < 7; ++j) wanted[j] += terms[j];
  }
  add_moments(sums, columns[0], columns[1], columns[2], columns[3], dx);
  for (int j = 0; j < 7; ++j) expect(sums[j] == wanted[j], "add_moments");
#endif
}

bool can_run() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

}  // namespace

int main() {
  if (!can_run()) return std::printf("this machine lacks the instruction set\n"), 0;
  std::printf("%d lanes\n", kLanes);
  test_approximations();
  test_masks();
  test_rows();
  test_sums();
  return g_failures == 0 ? 0 : 1;
}
