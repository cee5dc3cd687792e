// Random calls of the rasterizer without Python, for a build with sanitizers:  fuzz FIRST_SEED SEEDS
//
// Each seed makes a scene: numbers of Gaussians around the multiples of the vectors' lengths, in arrays of exactly
// their size, so that the sanitizer sees one float read too many; ordinary, huge, tiny, denormal, infinite and NaN
// numbers; images from 1x1 on, wide and high ones, crops; cameras inside, far away and turned around.  It draws forward
// and backward with every instruction set of the machine and checks what must hold whatever the numbers are: the image
// does not depend on the threads or on the bands of pairs, gradients of invalid Gaussians are zero.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "instruction_sets.hpp"
#include "pool.hpp"
#include "rasterizer.hpp"

namespace {

using namespace dgr;

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  int below(int n) { return int(engine_() % unsigned(n)); }
  bool one_in(int n) { return below(n) == 0; }
  float uniform(float low, float high) { return std::uniform_real_distribution<float>(low, high)(engine_); }
  // A number from `low` to `high`; one in `rare` is anything.
  float number(float low, float high, int rare) {
    if (rare == 0 || !one_in(rare)) return uniform(low, high);
    static const float kOdd[] = {0.0f,
                                 -0.0f,
                                 1e-45f,
                                 -1e-42f,
                                 1e-38f,
                                 1e-30f,
                                 1e-20f,
                                 -1e-10f,
                                 1e4f,
                                 -1e6f,
                                 1e10f,
                                 1e19f,
                                 -1e19f,
                                 1e30f,
                                 -3e38f,
                                 3.4e38f,
                                 std::numeric_limits<float>::infinity(),
                                 -std::numeric_limits<float>::infinity(),
                                 std::nanf("")};
    return kOdd[below(int(sizeof(kOdd) / sizeof(*kOdd)))];
  }
  float finite(float low, float high, int rare) {
    float x;
    do x = number(low, high, rare);
    while (!std::isfinite(x));
    return x;
  }

 private:
  std::mt19937 engine_;
};

// Exactly `size` floats, so that reading one more is an error.
struct Array {
  explicit Array(size_t size) : count(size), floats(new float[size]()) {}
  size_t count;
  std::unique_ptr<float[]> floats;
};

struct Call {
  Shape shape;
  Settings settings;
  std::vector<Camera> cameras;
  std::vector<Array> inputs, backgrounds;
  bool absolute;

  Gaussians gaussians() const {
    return {inputs[0].floats.get(), inputs[1].floats.get(), inputs[2].floats.get(), inputs[3].floats.get(),
            inputs[4].floats.get()};
  }
};

Call make_call(Random* random) {
  Random& r = *random;
  Call c;
  static const int kCounts[] = {0,  1,  2,  3,  4,  5,  8,  9,  15, 16, 17,  18,
                                31, 32, 33, 34, 47, 48, 50, 63, 64, 65, 130, 1030};
  c.shape.count = kCounts[r.below(r.one_in(8) ? 24 : 23)];
  c.shape.channels = 1 + r.below(3);
  c.shape.degree = r.below(4);
  const int active = (c.shape.degree + 1) * (c.shape.degree + 1);
  c.shape.coefficients = active + r.below(kMaxSh - active + 1);
  if (r.one_in(3)) c.shape.coefficients = c.shape.degree = 0;
  static const int kSides[] = {1, 2, 7, 8, 9, 15, 16, 17, 33, 64, 100, 130};
  const int width = r.one_in(20) ? 2000 : kSides[r.below(12)], height = r.one_in(20) ? 1100 : kSides[r.below(12)];
  int x0 = 0, y0 = 0, w = width, h = height;
  if (r.one_in(3)) {
    x0 = r.below(width);
    y0 = r.below(height);
    w = 1 + r.below(width - x0);
    h = 1 + r.below(height - y0);
  }
  const int rare = r.one_in(3) ? 0 : 1 << (2 + r.below(7));  // 0: ordinary numbers only
  c.settings = {w,
                h,
                (w + kTile - 1) / kTile,
                (h + kTile - 1) / kTile,
                x0,
                y0,
                r.one_in(6) ? 1e-30f : 0.01f,
                r.one_in(6) ? 3e38f : 1e10f,
                r.one_in(3) ? 0.0f : 0.3f,
                r.one_in(2),
                r.one_in(2),
                r.one_in(2)};
  if (r.one_in(20)) c.settings.near_plane = -1e30f;  // Python refuses it; here it must not crash
  const size_t n = size_t(c.shape.count), colors = size_t(c.shape.color_floats());
  for (size_t width_of : {size_t(3), size_t(4), size_t(3), size_t(1), colors}) c.inputs.emplace_back(n * width_of);
  const float size = std::pow(10.0f, r.uniform(-2.5f, 1.5f)), thin = std::pow(10.0f, r.one_in(2) ? 0 : r.uniform(-20, 0));
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < 3; ++j) {
      c.inputs[0].floats[3 * i + j] = r.number(j < 2 ? -2.0f : -1.0f, j < 2 ? 2.0f : 6.0f, rare);
      c.inputs[2].floats[3 * i + j] = r.number(0, j == 0 ? size : size * thin, rare);
    }
    for (size_t j = 0; j < 4; ++j) c.inputs[1].floats[4 * i + j] = r.number(-1, 1, rare);
    c.inputs[3].floats[i] = r.number(0, 1, rare);
    for (size_t j = 0; j < colors; ++j) c.inputs[4].floats[colors * i + j] = r.number(-0.5f, 0.5f, rare);
  }
  const int views = 1 + r.below(3);
  c.backgrounds.emplace_back(size_t(views * c.shape.channels));
  for (size_t i = 0; i < c.backgrounds[0].count; ++i) c.backgrounds[0].floats[i] = r.finite(0, 1, rare);
  for (int m = 0; m < views; ++m) {
    float viewmat[16] = {}, k[9] = {};
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) viewmat[4 * i + j] = r.finite(-0.1f, 0.1f, 4 * rare) + (i == j ? 1.0f : 0.0f);
      viewmat[4 * i + 3] = r.finite(-0.3f, 0.3f, 4 * rare);
    }
    if (r.one_in(10)) viewmat[10] = -viewmat[10];
    k[0] = std::abs(r.finite(0.3f, 2.0f, 8 * rare)) * float(width) + 1e-30f;
    k[4] = std::abs(r.finite(0.3f, 2.0f, 8 * rare)) * float(height) + 1e-30f;
    k[2] = r.finite(0, float(width), 8 * rare);
    k[5] = r.finite(0, float(height), 8 * rare);
    c.cameras.push_back(make_camera(viewmat, k, width, height));
  }
  c.absolute = r.one_in(3);
  return c;
}

std::unique_ptr<State> draw(const Call& c, const Kernels& k, bool save, int threads, const Limits& limits = {}) {
  set_thread_count(threads);
  return forward(k, c.shape, c.settings, c.cameras, c.gaussians(), c.backgrounds[0].floats.get(), save, limits);
}

void expect(bool condition, const char* what, unsigned seed, const Kernels& k) {
  if (condition) return;
  std::printf("seed %u, %s: %s\n", seed, k.name, what);
  std::exit(1);
}

bool same_image(const State& a, const State& b) {
  const size_t pixels = a.plane() * a.cameras.size();
  return std::memcmp(a.image.get(), b.image.get(), sizeof(float) * pixels * size_t(a.channels())) == 0 &&
         std::memcmp(a.transmittance.get(), b.transmittance.get(), sizeof(float) * pixels) == 0;
}

std::vector<Array> gradients(const Call& c, const State& s, Random* random) {
  const size_t n = size_t(c.shape.count), views = c.cameras.size();
  Array image(views * size_t(s.channels()) * s.plane()), alpha(views * s.plane());
  for (Array* a : {&image, &alpha})
    for (size_t i = 0; i < a->count; ++i) a->floats[i] = random->uniform(-1, 1);
  std::vector<Array> out;
  for (const Array& input : c.inputs) out.emplace_back(input.count);
  out.emplace_back(16 * views);
  out.emplace_back(2 * n * views);
  out.emplace_back(2 * n * views);
  const auto maybe = [&](size_t i) { return random->one_in(4) ? nullptr : out[i].floats.get(); };
  const Gradients to = {maybe(0), maybe(1), maybe(2), maybe(3), maybe(4)};
  const ViewGradients to_views = {maybe(5), maybe(6), c.absolute ? out[7].floats.get() : nullptr};
  backward(s, c.gaussians(), {image.floats.get(), random->one_in(2) ? nullptr : alpha.floats.get()}, to, to_views);
  return out;
}

void run(unsigned seed) {
  Random random(seed);
  const Call c = make_call(&random);
  for (const Kernels* k : available_kernels()) {
    const auto plain = draw(c, *k, false, 1);
    const auto banded = draw(c, *k, false, 3, {uint64_t(random.below(40))});
    const auto saved = draw(c, *k, true, 1 + random.below(3));
    expect(same_image(*plain, *banded), "the image depends on bands or threads", seed, *k);
    expect(same_image(*plain, *saved), "the image depends on what is kept", seed, *k);
    const size_t n = size_t(c.shape.count), views = c.cameras.size();
    Array means2d(2 * n * views), depths(n * views), conics(3 * n * views), opacities(n * views);
    std::unique_ptr<int32_t[]> radii(new int32_t[2 * n * views]);
    for (const State* s : {plain.get(), saved.get()})
      statistics(*s,
                 {means2d.floats.get(), depths.floats.get(), conics.floats.get(), opacities.floats.get(), radii.get()});
    const unsigned gradient_seed = unsigned(random.below(1 << 30));
    std::vector<std::vector<Array>> both;
    for (int threads : {1, 3}) {
      set_thread_count(threads);
      Random again(gradient_seed);
      both.push_back(gradients(c, *saved, &again));
    }
    for (size_t i = 0; i < both[0].size(); ++i)
      expect(std::memcmp(both[0][i].floats.get(), both[1][i].floats.get(), sizeof(float) * both[0][i].count) == 0,
             "a gradient depends on threads", seed, *k);
    for (size_t i = 0; i < n; ++i) {
      const float* x = c.inputs[0].floats.get() + 3 * i;
      if (std::isfinite(x[0]) && std::isfinite(x[1]) && std::isfinite(x[2])) continue;
      for (size_t j = 0; j < 3; ++j)
        expect(both[0][0].floats[3 * i + j] == 0, "an invalid Gaussian has a gradient", seed, *k);
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return std::fprintf(stderr, "fuzz FIRST_SEED SEEDS\n"), 2;
  const unsigned first = unsigned(std::strtoul(arguments[1], nullptr, 10));
  const unsigned seeds = unsigned(std::strtoul(arguments[2], nullptr, 10));
  for (unsigned seed = first; seed < first + seeds; ++seed) run(seed);
  std::printf("%u scenes on", seeds);
  for (const Kernels* k : available_kernels()) std::printf(" %s", k->name);
  std::printf("\n");
}
