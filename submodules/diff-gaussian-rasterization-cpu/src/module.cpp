// The Python module: arrays and their shapes, the choice of the instruction set, errors.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "instruction_sets.hpp"
#include "kernel.hpp"
#include "memory.hpp"
#include "pool.hpp"
#include "rasterizer.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace dgr {
namespace {

// Contiguous arrays of main memory.  A dimension of -1 is checked against the others by `expect`.
template <class T, ptrdiff_t... Dimensions>
using Array = nb::ndarray<T, nb::shape<Dimensions...>, nb::c_contig, nb::device::cpu>;
template <ptrdiff_t... Dimensions>
using In = Array<const float, Dimensions...>;
template <ptrdiff_t... Dimensions>
using Out = Array<float, Dimensions...>;
using AnyIn = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using AnyOut = nb::ndarray<float, nb::c_contig, nb::device::cpu>;

constexpr size_t kMostGaussians = size_t(INT32_MAX) - 64 * kBlock;  // indices are 32 bits wide, in whole chunks
constexpr size_t kMostViews = 1 << 24;

void expect(bool condition, const char* what) {
  if (!condition) throw nb::value_error(what);
}

template <class A>
bool has_shape(const A& array, std::initializer_list<size_t> wanted) {
  if (array.ndim() != wanted.size()) return false;
  size_t i = 0;
  for (size_t length : wanted)
    if (array.shape(i++) != length) return false;
  return true;
}

template <class A>
auto* data_or_null(const std::optional<A>& array) {
  return array ? array->data() : nullptr;
}

template <class A>
void expect_shape(const std::optional<A>& array, std::initializer_list<size_t> wanted, const char* what) {
  if (array) expect(has_shape(*array, wanted), what);
}

std::atomic<const Kernels*> g_kernels{nullptr};

const Kernels& kernels() {
  if (g_kernels.load() == nullptr) g_kernels = available_kernels().back();
  return *g_kernels;
}

void use_instruction_set(const std::string& name) {
  for (const Kernels* k : available_kernels())
    if (name == k->name) {
      g_kernels = k;
      return;
    }
  throw nb::value_error(("instruction set '" + name + "' is not available on this machine").c_str());
}

void use_threads(int count) {
  expect(count >= 0, "expected a number of threads, or 0 for one per processor");
  set_thread_count(count);
}

// Shapes only: the Python layer checks values, because it can name the argument.
std::unique_ptr<State> forward_call(In<-1, 3> means, In<-1, 4> quats, In<-1, 3> scales, In<-1> opacities, AnyIn colors,
                                    int coefficients, int degree, In<-1, 4, 4> viewmats, In<-1, 3, 3> ks, int width,
                                    int height, std::optional<std::tuple<int, int, int, int>> crop, float near_plane,
                                    float far_plane, float eps2d, bool antialiased, bool with_depth, bool inverse_depth,
                                    bool save, std::optional<In<-1, -1>> backgrounds) {
  const size_t n = means.shape(0), views = viewmats.shape(0);
  expect(n <= kMostGaussians && views <= kMostViews, "too many Gaussians or views");
  expect(quats.shape(0) == n && scales.shape(0) == n && opacities.shape(0) == n,
         "means, quats, scales, opacities: different numbers of Gaussians");
  expect(views >= 1 && ks.shape(0) == views, "viewmats, ks: expected one each per view");
  expect(coefficients >= 0 && coefficients <= kMaxSh && degree >= 0 && degree <= 3 &&
             (coefficients == 0 ? degree == 0 : (degree + 1) * (degree + 1) <= coefficients),
         "coefficients, degree: not supported");
  const size_t channels = colors.ndim() == 0 ? 0 : colors.shape(colors.ndim() - 1);
  expect(channels >= 1 && channels + (with_depth ? 1 : 0) <= kMaxChannels, "colors: not supported number of channels");
  expect(coefficients == 0 ? has_shape(colors, {n, channels}) : has_shape(colors, {n, size_t(coefficients), channels}),
         "colors: wrong shape");
  expect_shape(backgrounds, {views, channels}, "backgrounds: wrong shape");
  expect(width >= 1 && width <= kMaxPixels && height >= 1 && height <= kMaxPixels, "width, height: out of range");
  const auto [x0, y0, w, h] = crop.value_or(std::make_tuple(0, 0, width, height));
  expect(x0 >= 0 && y0 >= 0 && w >= 1 && h >= 1 && w <= width - x0 && h <= height - y0, "crop: outside of the image");

  std::vector<Camera> cameras;
  for (size_t m = 0; m < views; ++m)
    cameras.push_back(make_camera(viewmats.data() + 16 * m, ks.data() + 9 * m, width, height));
  const Shape shape = {int(n), int(channels), coefficients, degree};
  const Settings settings = {w,
                             h,
                             (w + kTile - 1) / kTile,
                             (h + kTile - 1) / kTile,
                             x0,
                             y0,
                             near_plane,
                             far_plane,
                             eps2d,
                             antialiased,
                             with_depth,
                             inverse_depth};
  const Gaussians in = {means.data(), quats.data(), scales.data(), opacities.data(), colors.data()};
  const float* behind = data_or_null(backgrounds);
  nb::gil_scoped_release release;
  return forward(kernels(), shape, settings, std::move(cameras), in, behind, save);
}

// The Gaussians are given again: their memory may have moved since.
void backward_call(const State& s, In<-1, 3> means, In<-1, 4> quats, In<-1, 3> scales, In<-1> opacities, AnyIn colors,
                   In<-1, -1, -1, -1> grad_image, std::optional<In<-1, -1, -1>> grad_transmittance,
                   std::optional<Out<-1, 3>> grad_means, std::optional<Out<-1, 4>> grad_quats,
                   std::optional<Out<-1, 3>> grad_scales, std::optional<Out<-1>> grad_opacities,
                   std::optional<AnyOut> grad_colors, std::optional<Out<-1, 4, 4>> grad_viewmats,
                   std::optional<Out<-1, -1, 2>> grad_means2d, std::optional<Out<-1, -1, 2>> absolute_means2d) {
  const size_t n = size_t(s.shape.count), views = s.cameras.size(), c = size_t(s.shape.channels);
  const size_t h = size_t(s.settings.height), w = size_t(s.settings.width), k = size_t(s.shape.coefficients);
  constexpr const char* kWrong = "arrays: other shapes than in the forward pass";
  expect(s.saved, "state: made without save");
  const auto expect_colors = [&](const auto& array) {
    expect(k == 0 ? has_shape(array, {n, c}) : has_shape(array, {n, k, c}), kWrong);
  };
  expect(means.shape(0) == n && quats.shape(0) == n && scales.shape(0) == n && opacities.shape(0) == n, kWrong);
  expect_colors(colors);
  if (grad_colors) expect_colors(*grad_colors);
  expect(has_shape(grad_image, {views, size_t(s.channels()), h, w}), kWrong);
  expect_shape(grad_transmittance, {views, h, w}, kWrong);
  expect_shape(grad_means, {n, 3}, kWrong);
  expect_shape(grad_quats, {n, 4}, kWrong);
  expect_shape(grad_scales, {n, 3}, kWrong);
  expect_shape(grad_opacities, {n}, kWrong);
  expect_shape(grad_viewmats, {views, 4, 4}, kWrong);
  expect_shape(grad_means2d, {views, n, 2}, kWrong);
  expect_shape(absolute_means2d, {views, n, 2}, kWrong);

  const Gaussians in = {means.data(), quats.data(), scales.data(), opacities.data(), colors.data()};
  const PlaneGradients gradient = {grad_image.data(), data_or_null(grad_transmittance)};
  const Gradients out = {data_or_null(grad_means), data_or_null(grad_quats), data_or_null(grad_scales),
                         data_or_null(grad_opacities), data_or_null(grad_colors)};
  const ViewGradients view_out = {data_or_null(grad_viewmats), data_or_null(grad_means2d),
                                  data_or_null(absolute_means2d)};
  nb::gil_scoped_release release;
  backward(s, in, gradient, out, view_out);
}

void statistics_call(const State& s, Out<-1, -1, 2> means2d, Out<-1, -1> depths, Out<-1, -1, 3> conics,
                     Out<-1, -1> opacities, Array<int32_t, -1, -1, 2> radii) {
  const size_t n = size_t(s.shape.count), views = s.cameras.size();
  expect(has_shape(means2d, {views, n, 2}) && has_shape(depths, {views, n}) && has_shape(conics, {views, n, 3}) &&
             has_shape(opacities, {views, n}) && has_shape(radii, {views, n, 2}),
         "arrays: other shapes than in the forward pass");
  const Statistics out = {means2d.data(), depths.data(), conics.data(), opacities.data(), radii.data()};
  nb::gil_scoped_release release;
  statistics(s, out);
}

// A float array in reused memory, for gradients: the system would have to clear fresh pages in every step.
nb::ndarray<nb::numpy, float> empty(const std::vector<size_t>& shape) {
  constexpr const char* kWhat = "gradients";
  size_t size = 1;
  for (size_t length : shape) size = product({size, length}, kWhat);
  auto memory = std::make_unique<Memory>(take_array<float>({size}, kWhat));
  float* data = as(*memory);
  nb::capsule owner(memory.release(), [](void* p) noexcept { delete static_cast<Memory*>(p); });
  return nb::ndarray<nb::numpy, float>(data, shape.size(), shape.data(), owner);
}

nb::tuple images(const State& s) {
  nb::object owner = nb::find(&s);
  const size_t views = s.cameras.size(), h = size_t(s.settings.height), w = size_t(s.settings.width);
  using Image = nb::ndarray<nb::numpy, float>;
  return nb::make_tuple(Image(as(s.image), {views, size_t(s.channels()), h, w}, owner),
                        Image(as(s.transmittance), {views, h, w}, owner));
}

size_t pairs(const State& s) {
  size_t sum = 0;
  for (const View& view : s.views) sum += view.pairs;
  return sum;
}

std::vector<uint32_t> visible(const State& s) {
  std::vector<uint32_t> counts;
  for (const View& view : s.views) counts.push_back(view.visible);
  return counts;
}

}  // namespace
}  // namespace dgr

NB_MODULE(_native, m) {
  using namespace dgr;
  nb::set_leak_warnings(false);  // images that live until the interpreter exits are not leaks
  m.doc() = "Differentiable Gaussian rasterization on the CPU";
  nb::class_<State>(m, "State")
      .def("images", &images, "Image [M, C, H, W] and transmittance [M, H, W], in the state's memory")
      .def("statistics", &statistics_call, "means2d"_a.noconvert(), "depths"_a.noconvert(), "conics"_a.noconvert(),
           "opacities"_a.noconvert(), "radii"_a.noconvert(),
           "Fills arrays with the results for each Gaussian in each view")
      .def_prop_ro("invalid", [](const State& s) { return s.invalid; })
      .def_prop_ro("pairs", &pairs)
      .def_prop_ro("visible", &visible);
  m.def("forward", &forward_call, "means"_a.noconvert(), "quats"_a.noconvert(), "scales"_a.noconvert(),
        "opacities"_a.noconvert(), "colors"_a.noconvert(), "coefficients"_a, "degree"_a, "viewmats"_a.noconvert(),
        "ks"_a.noconvert(), "width"_a, "height"_a, "crop"_a.none(), "near_plane"_a, "far_plane"_a, "eps2d"_a,
        "antialiased"_a, "with_depth"_a, "inverse_depth"_a, "save"_a, "backgrounds"_a.none().noconvert());
  m.def("backward", &backward_call, "state"_a, "means"_a.noconvert(), "quats"_a.noconvert(), "scales"_a.noconvert(),
        "opacities"_a.noconvert(), "colors"_a.noconvert(), "grad_image"_a.noconvert(),
        "grad_transmittance"_a.none().noconvert(), "grad_means"_a.none().noconvert(), "grad_quats"_a.none().noconvert(),
        "grad_scales"_a.none().noconvert(), "grad_opacities"_a.none().noconvert(), "grad_colors"_a.none().noconvert(),
        "grad_viewmats"_a.none().noconvert(), "grad_means2d"_a.none().noconvert(),
        "absolute_means2d"_a.none().noconvert());
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const Kernels* k : available_kernels()) names.emplace_back(k->name);
    return names;
  });
  m.def("instruction_set", [] { return std::string(kernels().name); });
  m.def("set_instruction_set", &use_instruction_set);
  m.def("thread_count", &thread_count);
  m.def("set_thread_count", &use_threads);
  m.def("cached_bytes", &cached_bytes);
  m.def("empty", &empty, "shape"_a);
}
