// The kernels without Python, for machines that are only emulated: one small scene, forward and backward,
// every result printed.  See the Makefile's target `neon`.
#include <cstdio>
#include <vector>

#include "bin.hpp"
#include "kernel.hpp"

namespace {

unsigned g_state = 12345;
float uniform(float low, float high) {
  g_state = g_state * 1664525u + 1013904223u;
  return low + (high - low) * float(g_state >> 8) / 16777216.0f;
}

void print(const char* name, const std::vector<float>& values) {
  for (size_t i = 0; i < values.size(); ++i) std::printf("%s %zu %.7g\n", name, i, double(values[i]));
}

}  // namespace

int main() {
  using namespace dgr;
  const Kernels& k = *kernels_generic();
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
  const Scene scene = {count, 3, coefficients, 3, means.data(), quats.data(), scales.data(), opacities.data(),
                       colors.data()};
  const Settings settings = {width, height, (width + kTile - 1) / kTile, (height + kTile - 1) / kTile, 0, 0, 0.01f,
                             1e10f, 0.3f, true, true, false};
  const Camera camera = {{1, 0, 0, 0, 1, 0, 0, 0, 1}, {0.1f, -0.05f, 1.0f}, {-0.1f, 0.05f, -1.0f},
                         40, 41, 18, 15, -0.6f, 0.6f, -0.5f, 0.5f};
  const int blocks = (count + kBlock - 1) / kBlock, channels = 4;
  const int stride = record_stride(channels), sum_stride = gradient_stride(channels);
  std::vector<float> prepared(size_t(prepared_floats(scene)) * blocks), records(size_t(blocks) * kBlock * stride),
      depths(size_t(blocks) * kBlock);
  int invalid = 0;
  k.prepare(scene, 0, blocks, prepared.data(), &invalid);
  k.project(scene, settings, camera, prepared.data(), 0, blocks, records.data(), depths.data());
  const TileLists lists = bin_tiles(k, settings, count, stride, records.data(), depths.data(), 2, false);
  const auto* starts = reinterpret_cast<const uint32_t*>(lists.starts.get());
  const auto* list = reinterpret_cast<const uint32_t*>(lists.list.get());
  std::vector<float> image(channels * width * height), transmittance(width * height), gradient(image.size());
  const float background[kMaxChannels] = {0.1f, 0.2f, 0.3f, 0};
  std::vector<uint64_t> blended(lists.pairs + 1);
  std::vector<uint32_t> ends(size_t(settings.tiles_x) * settings.tiles_y * kMaxPasses);
  const Trace trace = {blended.data(), ends.data()};
  k.blend(settings, channels, records.data(), starts, list, background, 0, settings.tiles_y, image.data(),
          transmittance.data(), &trace);
  for (float& g : gradient) g = uniform(-1, 1);
  std::vector<float> sums(size_t(blocks) * kBlock * sum_stride), absolute(2 * count);
  k.blend_backward(settings, channels, records.data(), starts, list, trace, image.data(), transmittance.data(),
                   gradient.data(), transmittance.data(), 0, settings.tiles_y, sums.data(), absolute.data());
  std::vector<float> g_means(3 * count), g_quats(4 * count), g_scales(3 * count), g_opacities(count),
      g_colors(3 * coefficients * count), g_camera(16), g_screen(2 * count);
  const Gradients out = {g_means.data(), g_quats.data(), g_scales.data(), g_opacities.data(), g_colors.data()};
  const float* depth_views[] = {depths.data()};
  k.project_backward(scene, settings, 1, &camera, prepared.data(), depth_views, sums.data(), 0, blocks,
                     out, g_camera.data(), g_screen.data());
  std::printf("pairs %u 0\nvisible %u 0\n", lists.pairs, lists.visible);
  print("image", image);
  print("transmittance", transmittance);
  print("means", g_means);
  print("quats", g_quats);
  print("scales", g_scales);
  print("opacities", g_opacities);
  print("colors", g_colors);
  print("camera", g_camera);
  print("screen", g_screen);
  print("absolute", absolute);
}
