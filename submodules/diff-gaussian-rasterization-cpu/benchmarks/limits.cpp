// What the benchmark compares times with: the rate of multiply-adds alone, and the pairs of pixels and Gaussians.
// Compiled by benchmark.py, with the flags of an instruction set.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <vector>

#if defined(__AVX512F__)
constexpr int kLanes = 16, kChains = 16;  // enough to hide the latency, few enough for the registers
#elif defined(__AVX2__)
constexpr int kLanes = 8, kChains = 12;
#else
constexpr int kLanes = 4, kChains = 12;
#endif
typedef float Vector __attribute__((vector_size(4 * kLanes)));

static double processor_seconds() {  // of this thread: other programs do not count
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

// Multiply-adds of one float each per second of processor time, on the calling thread.
extern "C" double multiply_add_rate(double seconds) {
  constexpr int kRounds = 200000;
  Vector sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = Vector{} + float(i);
  Vector factor = Vector{} + 0.999f, addend = Vector{} + 0.001f;
  const double start = processor_seconds();
  double done = 0, elapsed = 0;
  while (elapsed < seconds) {
    __asm__ volatile("" : "+m"(factor), "+m"(addend));
    for (int round = 0; round < kRounds; ++round)
      for (int i = 0; i < kChains; ++i) sum[i] = sum[i] * factor + addend;
    for (int i = 0; i < kChains; ++i) __asm__ volatile("" : "+m"(sum[i]));
    done += double(kRounds) * kChains * kLanes;
    elapsed = processor_seconds() - start;
  }
  return done / elapsed;
}

namespace {

constexpr int kTile = 8, kVector = 16;
constexpr float kAlphaMin = 1 / 255.0f, kAlphaMax = 0.99f, kTransmittanceMin = 1e-4f;

struct Ellipse {
  float u, v, q00, q01, q11, opacity;

  float sigma(float x, float y) const {
    const float dx = x - u, dy = y - v;
    return 0.5f * (q00 * dx * dx + q11 * dy * dy) + q01 * dx * dy;
  }
  // Smallest sigma in a rectangle: at the center, or on an edge.
  float least(float x0, float x1, float y0, float y1) const {
    if (u >= x0 && u <= x1 && v >= y0 && v <= y1) return 0;
    float best = INFINITY;
    for (float x : {x0, x1}) best = std::min(best, sigma(x, std::clamp(v - q01 / q11 * (x - u), y0, y1)));
    for (float y : {y0, y1}) best = std::min(best, sigma(std::clamp(u - q01 / q00 * (y - v), x0, x1), y));
    return best;
  }
};

}  // namespace

// Pairs of a pixel and a Gaussian in one view: those that the forward pass evaluates, those in the vectors of sixteen
// pixels that the backward pass visits, and those blended.  Arrays as in `info`, for n Gaussians.
extern "C" void pair_counts(int n, int width, int height, const float* means2d, const float* depths,
                            const float* conics, const float* opacities, int64_t* counts) {
  std::vector<int> order;
  for (int i = 0; i < n; ++i)
    if (depths[i] > 0) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return depths[a] < depths[b]; });
  const int tiles_x = (width + kTile - 1) / kTile, tiles_y = (height + kTile - 1) / kTile;
  std::vector<std::vector<Ellipse>> lists(size_t(tiles_x) * size_t(tiles_y));
  for (int i : order) {
    const Ellipse e = {means2d[2 * i],    means2d[2 * i + 1], conics[3 * i],
                       conics[3 * i + 1], conics[3 * i + 2],  opacities[i]};
    const double reach = 2 * std::log(std::max(255.0 * double(e.opacity), 1.0));
    const double det = std::max(double(e.q00) * e.q11 - double(e.q01) * e.q01, 1e-30);
    const double rx = std::sqrt(reach * e.q11 / det), ry = std::sqrt(reach * e.q00 / det);
    const auto tile = [](double x, int most) { return int(std::clamp(std::floor(x / kTile), 0.0, double(most))); };
    for (int y = tile(e.v - ry, tiles_y - 1); y <= tile(e.v + ry, tiles_y - 1); ++y)
      for (int x = tile(e.u - rx, tiles_x - 1); x <= tile(e.u + rx, tiles_x - 1); ++x) {
        const float left = float(x * kTile) + 0.5f, top = float(y * kTile) + 0.5f;
        const float right = std::min(left + kTile - 1, float(width) - 0.5f);
        const float bottom = std::min(top + kTile - 1, float(height) - 0.5f);
        if (e.least(left, right, top, bottom) <= 0.5 * reach) lists[size_t(y * tiles_x + x)].push_back(e);
      }
  }
  std::fill(counts, counts + 3, 0);
  for (int tile = 0; tile < tiles_x * tiles_y; ++tile) {
    float t[kTile * kTile];
    bool live[kTile * kTile];
    const int x0 = tile % tiles_x * kTile, y0 = tile / tiles_x * kTile;
    for (int i = 0; i < kTile * kTile; ++i) {
      t[i] = 1;
      live[i] = x0 + i % kTile < width && y0 + i / kTile < height;
    }
    bool going = true;
    for (const Ellipse& e : lists[size_t(tile)]) {
      if (!going) break;
      counts[0] += kTile * kTile;
      going = false;
      int counted = -1;  // vector
      for (int i = 0; i < kTile * kTile; ++i) {
        if (!live[i]) continue;
        going = true;
        const float alpha = e.opacity * std::exp(-e.sigma(float(x0 + i % kTile) + 0.5f, float(y0 + i / kTile) + 0.5f));
        if (alpha < kAlphaMin) continue;
        const float next = t[i] * (1 - std::min(alpha, kAlphaMax));
        live[i] = next > kTransmittanceMin;
        if (!live[i]) continue;
        t[i] = next;
        ++counts[2];
        if (counted != i / kVector) counts[1] += kVector;
        counted = i / kVector;
      }
    }
  }
}
