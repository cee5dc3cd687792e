// The rasterizer without Python, for other compilers and for machines that are only emulated: one small scene, forward
// and backward, every result printed.  See the Makefile's targets `clang` and `neon`.
#include <cstdio>
#include <vector>

#include "rasterizer.hpp"

namespace {

unsigned g_state = 12345;
float uniform(float low, float high) {
  g_state = g_state * 1664525u + 1013904223u;
  return low + (high - low) * float(g_state >> 8) / 16777216.0f;
}

void print(const char* name, const float* values, size_t count) {
  for (size_t i = 0; i < count; ++i) std::printf("%s %zu %.7g\n", name, i, double(values[i]));
}
void print(const char* name, const std::vector<float>& values) { print(name, values.data(), values.size()); }

}  // namespace

int main() {
  using namespace dgr;
  constexpr int count = 70, coefficients = 16, width = 37, height = 29;
  std::vector<float> means, quats, scales, opacities, colors;
  for (int n = 0; n < count; ++n) {
    for (float extent : {1.5f, 1.5f}) means.push_back(uniform(-extent, extent));
    means.push_back(uniform(-0.5f, 6.0f));
    for (int i = 0; i < 4; ++i) quats.push_back(uniform(-1, 1));
    for (int i = 0; i < 3; ++i) scales.push_back(uniform(0.02f, 0.5f));
    opacities.push_back(uniform(0.0f, 1.0f));
    for (int i = 0; i < 3 * coefficients; ++i) colors.push_back(uniform(-0.3f, 0.3f));
  }
  const Gaussians scene = {means.data(), quats.data(), scales.data(), opacities.data(), colors.data()};
  const Shape shape = {count, 3, coefficients, 3};
  const Settings settings = {
      width, height, (width + kTile - 1) / kTile, (height + kTile - 1) / kTile, 0, 0, 0.01f, 1e10f, 0.3f, true,
      true,  false};
  const float viewmat[16] = {1, 0, 0, 0.1f, 0, 1, 0, -0.05f, 0, 0, 1, 1, 0, 0, 0, 1};
  const float k[9] = {40, 0, 18, 0, 41, 15, 0, 0, 1};
  const float background[] = {0.1f, 0.2f, 0.3f};
  const auto state =
      forward(*kernels_generic(), shape, settings, {make_camera(viewmat, k, width, height)}, scene, background, true);
  const size_t pixels = state->plane(), channels = size_t(state->channels());
  std::vector<float> gradient(channels * pixels);
  for (float& g : gradient) g = uniform(-1, 1);
  std::vector<float> g_means(3 * count), g_quats(4 * count), g_scales(3 * count), g_opacities(count),
      g_colors(3 * coefficients * count), g_viewmat(16), g_screen(2 * count), absolute(2 * count);
  const Planes planes = state->planes(0);
  backward(*state, scene, {gradient.data(), planes.transmittance},
           {g_means.data(), g_quats.data(), g_scales.data(), g_opacities.data(), g_colors.data()},
           {g_viewmat.data(), g_screen.data(), absolute.data()});
  const View& view = state->views[0];
  std::printf("pairs %llu 0\nvisible %u 0\n", static_cast<unsigned long long>(view.pairs), view.visible);
  print("image", planes.color, channels * pixels);
  print("transmittance", planes.transmittance, pixels);
  print("means", g_means);
  print("quats", g_quats);
  print("scales", g_scales);
  print("opacities", g_opacities);
  print("colors", g_colors);
  print("camera", g_viewmat);
  print("screen", g_screen);
  print("absolute", absolute);
}
