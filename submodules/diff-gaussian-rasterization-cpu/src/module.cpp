// The Python module: array conversion, choice of the instruction set, and scheduling.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "bin.hpp"
#include "kernel.hpp"
#include "pool.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace dgr {
namespace {

using In = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::c_contig, nb::device::cpu>;

std::vector<const Kernels*> available() {
  std::vector<const Kernels*> found;
#ifdef DGR_HAVE_generic
  found.push_back(kernels_generic());
#endif
#ifdef DGR_HAVE_sse2
  found.push_back(kernels_sse2());
#endif
#ifdef DGR_HAVE_avx2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(kernels_avx2());
#endif
#ifdef DGR_HAVE_avx512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
    found.push_back(kernels_avx512());
#endif
  return found;
}

std::atomic<const Kernels*> g_kernels{nullptr};

const Kernels& kernels() {
  if (g_kernels.load() == nullptr) g_kernels = available().back();
  return *g_kernels;
}

constexpr int kChunk = 64;  // blocks per task: 1024 Gaussians

template <class T = float>
T* as(const Memory& memory) {
  return reinterpret_cast<T*>(memory.get());
}

// Data for the passes over the pixels of one view.
struct View {
  Memory records, depths;  // whole blocks: [blocks kBlock, stride] and [blocks kBlock]
  TileLists lists;
  Memory blended, ends;    // decisions of the forward pass

  Trace trace() const { return {as<uint64_t>(blended), as<uint32_t>(ends)}; }
};

// Number of parts into which the backward pass splits the last view: otherwise, with 13 views one of two threads
// would wait for the other, and with a single view all but one.  It is fixed, so that sums do not depend on the number
// of threads.
constexpr int kBands = 4;

// Everything that the backward pass needs from a forward pass.
struct State {
  Scene scene{};
  Settings settings{};
  std::vector<Camera> cameras;
  std::vector<View> views;  // their memory is kept only if `saved`; it can be recomputed from `prepared`
  Memory prepared, image, transmittance;
  int invalid = 0;
  bool saved = true;
  const Kernels* kernels = nullptr;

  int channels() const { return scene.channels + (settings.with_depth ? 1 : 0); }
  int stride() const { return record_stride(channels()); }
  size_t plane() const { return size_t(settings.width) * settings.height; }
  int blocks() const { return (scene.count + kBlock - 1) / kBlock; }
  int chunks() const { return (blocks() + kChunk - 1) / kChunk; }

  // Projection and tile lists of one view, from the prepared Gaussians; with `inside`, by several threads.
  View look(int m, bool inside) const {
    View v;
    const size_t lanes = size_t(blocks()) * kBlock;
    v.records = take(sizeof(float) * lanes * size_t(stride()) + 64);
    v.depths = take(sizeof(float) * lanes + 64);
    const int parts = inside ? chunks() : 1, size = inside ? kChunk : blocks();
    parallel(parts, [&](int part) {
      kernels->project(scene, settings, cameras[size_t(m)], as(prepared), part * size,
                       std::min((part + 1) * size, blocks()), as(v.records), as(v.depths));
    });
    const bool cut = saved && m + 1 == int(cameras.size());
    v.lists = bin_tiles(*kernels, settings, scene.count, stride(), as(v.records), as(v.depths),
                        inside ? thread_count() : 1, cut);
    if (saved) {
      v.blended = take(sizeof(uint64_t) * (size_t(v.lists.pairs) + 1));
      v.ends = take(sizeof(uint32_t) * kMaxPasses * size_t(settings.tiles_x) * size_t(settings.tiles_y));
    }
    return v;
  }

  // A view as in the forward pass, recomputed if it was not kept.
  template <class Use>
  void with_view(int m, const Use& use) const {
    if (saved) return use(views[size_t(m)]);
    const View again = look(m, false);
    use(again);
  }
};

Camera make_camera(const float* view, const float* k, int width, int height) {
  Camera c{};
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) c.rotation[3 * i + j] = view[4 * i + j];
    c.translation[i] = view[4 * i + 3];
  }
  for (int j = 0; j < 3; ++j)
    c.center[j] = -(c.rotation[j] * c.translation[0] + c.rotation[3 + j] * c.translation[1] +
                    c.rotation[6 + j] * c.translation[2]);
  c.fx = k[0];
  c.fy = k[4];
  c.cx = k[2];
  c.cy = k[5];
  // The Jacobian is evaluated at most 0.3 of half the field of view outside the image.
  const float margin_x = 0.3f * 0.5f * float(width) / c.fx, margin_y = 0.3f * 0.5f * float(height) / c.fy;
  c.x_high = (float(width) - c.cx) / c.fx + margin_x;
  c.x_low = -(c.cx / c.fx + margin_x);
  c.y_high = (float(height) - c.cy) / c.fy + margin_y;
  c.y_low = -(c.cy / c.fy + margin_y);
  return c;
}

// The Python layer checks shapes, types and values, because it can name the argument.
State* forward(In means, In quats, In scales, In opacities, In colors, int coefficients, int degree, In viewmats,
               In ks, int width, int height, std::optional<std::tuple<int, int, int, int>> crop, float near_plane,
               float far_plane, float eps2d, bool antialiased, bool with_depth, bool inverse_depth, bool save, std::optional<In> backgrounds) {
  auto owner = std::make_unique<State>();
  State& s = *owner;
  s.kernels = &kernels();
  s.scene = {int(means.shape(0)), int(colors.shape(colors.ndim() - 1)), coefficients, degree,
             means.data(), quats.data(), scales.data(), opacities.data(), colors.data()};
  int x0 = 0, y0 = 0, w = width, h = height;
  if (crop) std::tie(x0, y0, w, h) = *crop;
  s.settings = {w, h, (w + kTile - 1) / kTile, (h + kTile - 1) / kTile, x0, y0, near_plane, far_plane, eps2d,
                antialiased, with_depth, inverse_depth};
  const int views = int(viewmats.shape(0));
  for (int m = 0; m < views; ++m)
    s.cameras.push_back(make_camera(viewmats.data() + 16 * m, ks.data() + 9 * m, width, height));
  s.saved = save;

  nb::gil_scoped_release release;
  const int channels = s.channels(), blocks = s.blocks(), chunks = s.chunks();
  s.prepared = take(sizeof(float) * size_t(prepared_floats(s.scene)) * size_t(blocks));
  s.image = take(sizeof(float) * size_t(views) * channels * s.plane());
  s.transmittance = take(sizeof(float) * size_t(views) * s.plane());
  s.views.resize(size_t(views));

  std::vector<int> invalid(size_t(std::max(chunks, 1)), 0);
  parallel(chunks, [&](int chunk) {
    s.kernels->prepare(s.scene, chunk * kChunk, std::min((chunk + 1) * kChunk, blocks), as(s.prepared),
                       &invalid[size_t(chunk)]);
  });
  for (int bad : invalid) s.invalid += bad;

  auto blend_rows = [&](const View& view, int m, int row0, int row1) {
    float background[kMaxChannels] = {};
    if (backgrounds)
      for (int c = 0; c < s.scene.channels; ++c)
        background[c] = backgrounds->data()[m * s.scene.channels + c];
    const Trace trace = view.trace();
    s.kernels->blend(s.settings, channels, as(view.records), as<uint32_t>(view.lists.starts),
                     as<uint32_t>(view.lists.list), background, row0, row1,
                     as(s.image) + size_t(m) * channels * s.plane(), as(s.transmittance) + size_t(m) * s.plane(),
                     save ? &trace : nullptr);
  };
  auto draw = [&](int m, bool inside) {
    View view = s.look(m, inside);
    if (inside)
      parallel(s.settings.tiles_y, [&](int row) { blend_rows(view, m, row, row + 1); });
    else
      blend_rows(view, m, 0, s.settings.tiles_y);
    if (!save) {
      view.records.reset();
      view.depths.reset();
      view.lists.starts.reset();
      view.lists.list.reset();
    }
    s.views[size_t(m)] = std::move(view);
  };
  // One view per thread; all threads share the remaining views.
  const int threads = thread_count(), rest = views % threads, alone = 2 * rest > threads ? views : views - rest;
  parallel(alone, [&](int m) { draw(m, false); });
  for (int m = alone; m < views; ++m) draw(m, true);
  return owner.release();
}

void backward(const State& s, In means, In quats, In scales, In opacities, In colors, In grad_image,
              std::optional<In> grad_transmittance, std::optional<Out> grad_means, std::optional<Out> grad_quats,
              std::optional<Out> grad_scales, std::optional<Out> grad_opacities, std::optional<Out> grad_colors,
              std::optional<Out> grad_viewmats, std::optional<Out> grad_means2d, std::optional<Out> absolute_means2d) {
  Scene scene = s.scene;  // the inputs' memory may have moved since
  scene.means = means.data();
  scene.quats = quats.data();
  scene.scales = scales.data();
  scene.opacities = opacities.data();
  scene.colors = colors.data();
  auto pointer = [](std::optional<Out>& array) { return array ? array->data() : nullptr; };
  const Gradients gradients = {pointer(grad_means), pointer(grad_quats), pointer(grad_scales),
                               pointer(grad_opacities), pointer(grad_colors)};
  float* viewmats = pointer(grad_viewmats);
  float* means2d = pointer(grad_means2d);
  float* absolute = pointer(absolute_means2d);
  const float* image_grad = grad_image.data();
  const float* alpha_grad = grad_transmittance ? grad_transmittance->data() : nullptr;

  nb::gil_scoped_release release;
  const int views = int(s.cameras.size()), channels = s.channels(), count = scene.count;
  const int stride = gradient_stride(channels);
  const View& last_view = s.views.back();
  // Tasks: all views but the last, and bands of tile rows of the last view with about the same number of pairs each.
  // The first band adds to the sums of the view, the others have separate sums.
  const int whole = views - 1, bands = std::min(kBands, s.settings.tiles_y);
  const size_t one = size_t(count) * stride, two = 2 * size_t(count);
  // Sums are read in whole blocks.
  Memory sum_memory = take(sizeof(float) * (one * size_t(whole + bands) + size_t(kBlock * stride)));
  float* sums = as(sum_memory);
  Memory absolute_memory;
  if (absolute != nullptr) absolute_memory = take(sizeof(float) * two * size_t(bands));
  auto absolute_of = [&](int task) {
    if (absolute == nullptr) return static_cast<float*>(nullptr);
    return task <= whole ? absolute + two * size_t(task) : as(absolute_memory) + two * size_t(task - whole);
  };
  std::vector<int> band(size_t(bands) + 1, s.settings.tiles_y);
  {
    const uint32_t* starts = as<uint32_t>(last_view.lists.starts);
    band[0] = 0;
    for (int part = 1, row = 0; part < bands; ++part) {
      const uint64_t wanted = uint64_t(last_view.lists.pairs) * uint64_t(part) / uint64_t(bands);
      while (row < s.settings.tiles_y && starts[row * s.settings.tiles_x] < wanted) ++row;
      band[size_t(part)] = row;
    }
  }
  // The bands [first, last] that a Gaussian of the last view touches; it has sums only there.
  const uint32_t* reach = as<uint32_t>(last_view.lists.reach);
  std::vector<uint8_t> band_of(size_t(s.settings.tiles_y) + 1, 0);
  for (int part = 1; part < bands; ++part)
    for (int row = band[size_t(part)]; row <= s.settings.tiles_y; ++row) band_of[size_t(row)] = uint8_t(part);
  auto first_band = [&](int n) { return int(band_of[reach[n] & 0xffff]); };
  auto last_band = [&](int n) { return int(band_of[std::max(reach[n] >> 16, 1u) - 1]); };
  auto clear = [stride](float* sum) { std::memset(sum, 0, stride == 8 ? 32 : 64); };
  auto add = [stride](float* sum, const float* more) {
    for (int j = 0; j < 8; ++j) sum[j] += more[j];
    if (stride > 8)
      for (int j = 8; j < 16; ++j) sum[j] += more[j];
  };
  auto copy = [stride](float* sum, const float* from) { std::memmove(sum, from, stride == 8 ? 32 : 64); };
  const int blocks = s.blocks(), chunks = s.chunks();
  auto each_of_chunk = [&](int chunk, auto&& use) {
    const int end = std::min((chunk + 1) * kChunk * kBlock, count);
    for (int n = chunk * kChunk * kBlock; n < end; ++n) use(n, first_band(n), last_band(n));
  };
  const float* last_depths = as(last_view.depths);
  parallel(chunks, [&](int chunk) {
    each_of_chunk(chunk, [&](int n, int first, int last) {
      if (last_depths[n] == 0.0f && absolute == nullptr) return;  // never read
      for (int part = first; part <= last; ++part) {
        clear(sums + size_t(whole + part) * one + size_t(n) * stride);
        if (absolute != nullptr) absolute_of(whole + part)[2 * n] = absolute_of(whole + part)[2 * n + 1] = 0.0f;
      }
    });
  });
  parallel(whole + bands, [&](int task) {
    const int m = std::min(task, whole), part = task - m;
    const View& view = s.views[size_t(m)];
    float *target = sums + size_t(task) * one, *absolute_target = absolute_of(task);
    if (m < whole) {
      const float* depth = as(view.depths);
      for (int n = 0; n < count; ++n)
        if (depth[n] != 0.0f) clear(target + size_t(n) * stride);
      if (absolute != nullptr) std::memset(absolute_target, 0, sizeof(float) * two);
    }
    s.kernels->blend_backward(s.settings, channels, as(view.records), as<uint32_t>(view.lists.starts),
                              as<uint32_t>(view.lists.list), view.trace(),
                              as(s.image) + size_t(m) * channels * s.plane(),
                              as(s.transmittance) + size_t(m) * s.plane(),
                              image_grad + size_t(m) * channels * s.plane(),
                              alpha_grad == nullptr ? nullptr : alpha_grad + size_t(m) * s.plane(),
                              m < whole ? 0 : band[size_t(part)],
                              m < whole ? s.settings.tiles_y : band[size_t(part) + 1], target, absolute_target);
  });
  std::vector<const float*> depths;
  for (const View& view : s.views) depths.push_back(as(view.depths));
  const size_t camera_floats = size_t(views) * 16;
  std::vector<float> camera(viewmats != nullptr ? camera_floats * size_t(chunks) : 0, 0.0f);
  parallel(chunks, [&](int chunk) {
    const int first = chunk * kChunk, last = std::min(first + kChunk, blocks);
    each_of_chunk(chunk, [&](int n, int from, int to) {
      if (last_depths[n] == 0.0f && absolute == nullptr) return;
      float* sum = sums + size_t(whole) * one + size_t(n) * stride;
      copy(sum, sum + size_t(from) * one);
      for (int part = from + 1; part <= to; ++part) add(sum, sum + size_t(part) * one);  // in order of the bands
      if (absolute == nullptr) return;
      float* total = absolute_of(whole) + 2 * n;
      std::memmove(total, absolute_of(whole + from) + 2 * n, 8);
      for (int part = from + 1; part <= to; ++part)
        for (int j = 0; j < 2; ++j) total[j] += absolute_of(whole + part)[2 * n + j];
    });
    s.kernels->project_backward(scene, s.settings, views, s.cameras.data(), as(s.prepared), depths.data(), sums, first, last, gradients,
                                viewmats == nullptr ? nullptr : camera.data() + camera_floats * size_t(chunk), means2d);
  });
  if (viewmats != nullptr)
    for (int m = 0; m < views; ++m) {
      double total[12] = {};
      for (int chunk = 0; chunk < chunks; ++chunk)
        for (int j = 0; j < 12; ++j) total[j] += camera[camera_floats * size_t(chunk) + 16 * size_t(m) + size_t(j)];
      float* out = viewmats + 16 * m;
      for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) out[4 * i + j] = float(total[3 * i + j]);
        out[4 * i + 3] = float(total[9 + i]);
      }
      for (int j = 0; j < 4; ++j) out[12 + j] = 0.0f;
    }
}

// Copies the results of the forward pass for each Gaussian in each view; zero for culled Gaussians.
void statistics(const State& s, Out means2d, Out depths, Out conics, Out opacities,
                nb::ndarray<int32_t, nb::c_contig, nb::device::cpu> radii) {
  constexpr float ln2 = 0.69314718055994530942f;
  const int stride = record_stride(s.channels());
  nb::gil_scoped_release release;
  const auto describe = [&](int m, const View& view) {
    for (int n = 0; n < s.scene.count; ++n) {
      const size_t i = size_t(m) * s.scene.count + n;
      const float depth = as(view.depths)[n];
      depths.data()[i] = depth;
      if (depth == 0.0f) {
        for (int j = 0; j < 2; ++j) means2d.data()[2 * i + j] = 0.0f;
        for (int j = 0; j < 2; ++j) radii.data()[2 * i + j] = 0;
        for (int j = 0; j < 3; ++j) conics.data()[3 * i + j] = 0.0f;
        opacities.data()[i] = 0.0f;
        continue;
      }
      const float* r = as(view.records) + size_t(n) * stride;
      means2d.data()[2 * i] = r[0];
      means2d.data()[2 * i + 1] = r[1];
      const float q00 = 2 * ln2 * r[2], q01 = ln2 * r[3], q11 = 2 * ln2 * r[4];
      conics.data()[3 * i] = q00;
      conics.data()[3 * i + 1] = q01;
      conics.data()[3 * i + 2] = q11;
      opacities.data()[i] = std::exp2(r[5]);
      const double det = std::max(double(q00) * q11 - double(q01) * q01, 1e-30);
      const double reach = std::max(2.0 * ln2 * (double(r[5]) + 7.99435343685885793770), 0.0);
      radii.data()[2 * i] = std::max(int(std::ceil(std::sqrt(reach * q11 / det))), 1);
      radii.data()[2 * i + 1] = std::max(int(std::ceil(std::sqrt(reach * q00 / det))), 1);
    }  };
  parallel(int(s.cameras.size()), [&](int m) { s.with_view(m, [&](const View& view) { describe(m, view); }); });
}

// Counts pixel-Gaussian pairs in one view, to relate times to work: pairs that the forward pass evaluates, pairs in
// the vectors of sixteen pixels that the backward pass visits, and blended pairs.  Plain scalar code, for benchmarks.
std::tuple<size_t, size_t, size_t> pair_counts(const State& s, int view) {
  constexpr int kVector = 16;
  const int stride = record_stride(s.channels());
  size_t evaluated = 0, touched = 0, blended = 0;
  s.with_view(view, [&](const View& seen) {
  const uint32_t* starts = as<uint32_t>(seen.lists.starts);
  const uint32_t* list = as<uint32_t>(seen.lists.list);
  for (int tile = 0; tile < s.settings.tiles_x * s.settings.tiles_y; ++tile) {
    float t[kTile * kTile];
    bool live[kTile * kTile];
    const int x0 = tile % s.settings.tiles_x * kTile, y0 = tile / s.settings.tiles_x * kTile;
    for (int i = 0; i < kTile * kTile; ++i) {
      t[i] = 1.0f;
      live[i] = x0 + i % kTile < s.settings.width && y0 + i / kTile < s.settings.height;
    }
    bool going = true;
    for (uint32_t at = starts[tile]; going && at < starts[tile + 1]; ++at) {
      const float* r = as(seen.records) + size_t(list[at]) * stride;
      evaluated += kTile * kTile;
      going = false;
      int counted = -1;  // vector
      for (int i = 0; i < kTile * kTile; ++i) {
        if (!live[i]) continue;
        const float dx = float(s.settings.crop_x0 + x0 + i % kTile) + 0.5f - r[0];
        const float dy = float(s.settings.crop_y0 + y0 + i / kTile) + 0.5f - r[1];
        const float alpha = std::exp2(r[5] - r[2] * dx * dx - dy * (r[3] * dx + r[4] * dy));
        going = true;
        if (alpha < kAlphaMin) continue;
        const float next = t[i] * (1.0f - std::min(alpha, kAlphaMax));
        if (next > kTransmittanceMin) {
          t[i] = next;
          ++blended;
          if (counted != i / kVector) touched += kVector;
          counted = i / kVector;
        } else {
          live[i] = false;
        }
      }
    }
  }
  });
  return {evaluated, touched, blended};
}

// Fused multiply-adds per second, of one float each, on all threads at once.
double multiply_add_rate(double seconds) {
  nb::gil_scoped_release release;
  using Clock = std::chrono::steady_clock;
  constexpr int kRounds = 200000;
  std::vector<double> rates(size_t(thread_count()), 0.0);
  parallel(thread_count(), [&](int thread) {
    const auto start = Clock::now();
    uint64_t done = 0;
    double elapsed = 0;
    while (elapsed < seconds) {
      done += kernels().multiply_add(kRounds);
      elapsed = std::chrono::duration<double>(Clock::now() - start).count();
    }
    rates[size_t(thread)] = double(done) / elapsed;
  });
  double total = 0;
  for (double rate : rates) total += rate;
  return total;
}

// A float array in reused memory, for gradients: the system would have to clear fresh pages in every step.
nb::ndarray<nb::numpy, float> empty(const std::vector<size_t>& shape) {
  size_t size = 1;
  for (size_t length : shape) size *= length;
  auto memory = std::make_unique<Memory>(take(sizeof(float) * size));
  float* data = as(*memory);
  nb::capsule owner(memory.release(), [](void* p) noexcept { delete static_cast<Memory*>(p); });
  return nb::ndarray<nb::numpy, float>(data, shape.size(), shape.data(), owner);
}

nb::tuple pictures(const State& s) {
  // Views of the state's memory: the caller keeps the state alive along with them.
  nb::object owner = nb::find(&s);
  const size_t views = s.cameras.size(), h = size_t(s.settings.height), w = size_t(s.settings.width);
  using Array = nb::ndarray<nb::numpy, float>;
  return nb::make_tuple(Array(as(s.image), {views, size_t(s.channels()), h, w}, owner),
                        Array(as(s.transmittance), {views, h, w}, owner));
}

}  // namespace
}  // namespace dgr

NB_MODULE(_native, m) {
  using namespace dgr;
  nb::set_leak_warnings(false);  // images that live until the interpreter exits are not leaks
  m.doc() = "Differentiable Gaussian rasterization on the CPU";
  nb::class_<State>(m, "State")
      .def("pictures", &pictures, "Image [M, C, H, W] and transmittance [M, H, W], in the state's memory")
      .def("statistics", &statistics, "means2d"_a, "depths"_a, "conics"_a, "opacities"_a, "radii"_a)
      .def("pair_counts", &pair_counts, "view"_a, "Pairs of a pixel and a Gaussian evaluated, gone over backward, blended")
      .def_prop_ro("invalid", [](const State& s) { return s.invalid; })
      .def_prop_ro("pairs", [](const State& s) {
        size_t pairs = 0;
        for (const View& view : s.views) pairs += view.lists.pairs;
        return pairs;
      })
      .def_prop_ro("visible", [](const State& s) {
        std::vector<int> visible;
        for (const View& view : s.views) visible.push_back(int(view.lists.visible));
        return visible;
      });
  m.def("forward", &forward, nb::rv_policy::take_ownership, "means"_a.noconvert(), "quats"_a.noconvert(),
        "scales"_a.noconvert(), "opacities"_a.noconvert(), "colors"_a.noconvert(), "coefficients"_a, "degree"_a,
        "viewmats"_a.noconvert(), "ks"_a.noconvert(), "width"_a, "height"_a, "crop"_a.none(), "near_plane"_a,
        "far_plane"_a, "eps2d"_a, "antialiased"_a, "with_depth"_a, "inverse_depth"_a, "save"_a, "backgrounds"_a.none());
  m.def("backward", &backward, "state"_a, "means"_a, "quats"_a, "scales"_a, "opacities"_a, "colors"_a, "grad_image"_a,
        "grad_transmittance"_a.none(), "grad_means"_a.none(), "grad_quats"_a.none(), "grad_scales"_a.none(),
        "grad_opacities"_a.none(), "grad_colors"_a.none(), "grad_viewmats"_a.none(), "grad_means2d"_a.none(),
        "absolute_means2d"_a.none());
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const Kernels* k : available()) names.emplace_back(k->name);
    return names;
  });
  m.def("instruction_set", [] { return std::string(kernels().name); });
  m.def("set_instruction_set", [](const std::string& name) {
    for (const Kernels* k : available())
      if (name == k->name) {
        g_kernels = k;
        return;
      }
    throw nb::value_error(("instruction set '" + name + "' is not available on this machine").c_str());
  });
  m.def("thread_count", &thread_count);
  m.def("set_thread_count", &set_thread_count);
  m.def("multiply_add_rate", &multiply_add_rate, "seconds"_a);
  m.def("cached_bytes", &cached_bytes);
  m.def("empty", &empty, "shape"_a);
}
