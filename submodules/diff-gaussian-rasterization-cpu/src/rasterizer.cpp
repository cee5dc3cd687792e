#include "rasterizer.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "pool.hpp"

namespace dgr {
namespace {

constexpr int kChunk = 64;  // blocks per task: 1024 Gaussians

// Draws one view.  If nothing is kept, the lists of only as many pairs exist at a time as `limits` allows.
void draw(State* state, int m, bool inside, const float* background, const Limits& limits) {
  State& s = *state;
  const Kernels& k = *s.kernels;
  View view;
  s.project(m, inside, &view);
  const Binning binning(k, s.settings, s.shape.count, s.stride(), view.projection(), inside ? thread_count() : 1);
  view.pairs = binning.pairs();
  view.visible = binning.visible();
  const Planes planes = s.planes(m);
  const auto blend = [&](RowRange rows, const Trace* trace) {
    const TileView tiles = view.tiles();
    if (!inside) return k.blend(s.settings, s.channels(), tiles, background, rows, planes, trace);
    parallel(rows.last - rows.first, [&](int row) {
      k.blend(s.settings, s.channels(), tiles, background, {rows.first + row, rows.first + row + 1}, planes, trace);
    });
  };
  const RowRange all = {0, s.settings.tiles_y};
  if (s.saved) {
    if (m + 1 == int(s.cameras.size())) view.reach = binning.reach();
    view.lists = binning.lists(all);
    view.blended = take_array<uint64_t>({size_t(view.lists.pairs) + 1}, "blended pixels of the pairs");
    view.ends = take_array<uint32_t>({kMaxPasses, size_t(s.settings.tiles_x), size_t(s.settings.tiles_y)}, "tiles");
    const Trace trace = view.trace();
    blend(all, &trace);
  } else {
    for (RowRange rows{0, 0}; rows.last < all.last;) {
      rows = binning.band(rows.last, limits.band_pairs);
      view.lists = TileLists();  // before the next are made
      view.lists = binning.lists(rows);
      blend(rows, nullptr);
    }
    view.records.reset();
    view.depths.reset();
    view.lists = TileLists();
  }
  s.views[size_t(m)] = std::move(view);
}

// A row of sums has 8 or 16 floats; with the width known, these are a few instructions.
template <size_t Width>
void clear_row(float* row) {
  std::memset(row, 0, sizeof(float) * Width);
}
void clear_row(float* row, size_t width) { width == 8 ? clear_row<8>(row) : clear_row<16>(row); }

// Row of `from` plus those of the further bands up to `to`, in order, which lie `step` floats apart behind `row`.
template <size_t Width>
void add_rows(float* row, size_t step, int from, int to) {
  std::memmove(row, row + size_t(from) * step, sizeof(float) * Width);
  for (int band = from + 1; band <= to; ++band)
    for (size_t j = 0; j < Width; ++j) row[j] += row[size_t(band) * step + j];
}
void add_rows(float* row, size_t width, size_t step, int from, int to) {
  width == 8 ? add_rows<8>(row, step, from, to) : add_rows<16>(row, step, from, to);
}

// The sums of the last view, in bands of tile rows with about the same number of pairs each: otherwise, with 13 views
// one of two threads would wait for the other, and with a single view all but one.  The number of bands is fixed, so
// that sums do not depend on the number of threads.  The first band adds to the view's sums, the others have theirs
// behind it; a Gaussian has sums only in the bands that it touches.
class Bands {
 public:
  Bands(const State& s, float* moments, float* absolute)
      : view_(s.views.back()),
        rows_(size_t(number(s.settings)) + 1, s.settings.tiles_y),
        band_of_(size_t(s.settings.tiles_y) + 1, 0),
        stride_(size_t(moment_stride(s.channels()))),
        count_(size_t(s.shape.count)),
        moments_(moments),
        absolute_(absolute) {
    const uint32_t* starts = as<uint32_t>(view_.lists.starts);
    rows_[0] = 0;
    for (int band = 1, row = 0; band < count(); ++band) {
      const uint64_t wanted = uint64_t(view_.lists.pairs) * uint64_t(band) / uint64_t(count());
      while (row < s.settings.tiles_y && starts[size_t(row) * size_t(s.settings.tiles_x)] < wanted) ++row;
      rows_[size_t(band)] = row;
      for (size_t y = size_t(row); y < band_of_.size(); ++y) band_of_[y] = uint8_t(band);
    }
    if (absolute != nullptr) more_absolute_ = take_array<float>({size_t(count()), count_, 2}, "screen gradients");
  }

  static int number(const Settings& settings) { return std::min(4, settings.tiles_y); }
  int count() const { return int(rows_.size()) - 1; }
  RowRange rows(int band) const { return {rows_[size_t(band)], rows_[size_t(band) + 1]}; }

  Sums sums(int band) const {
    float* absolute = absolute_ == nullptr || band == 0 ? absolute_ : as(more_absolute_) + 2 * count_ * size_t(band);
    return {moments_ + size_t(band) * count_ * stride_, absolute};
  }

  // For Gaussians [first, last).
  void clear(size_t first, size_t last) const {
    each(first, last, [this](size_t n, int from, int to) {
      for (int band = from; band <= to; ++band) {
        const Sums target = sums(band);
        clear_row(target.moments + n * stride_, stride_);
        if (target.absolute != nullptr) target.absolute[2 * n] = target.absolute[2 * n + 1] = 0.0f;
      }
    });
  }

  // The bands' sums into those of the view, in order of the bands.
  void add_up(size_t first, size_t last) const {
    each(first, last, [this](size_t n, int from, int to) {
      const Sums total = sums(0);
      add_rows(total.moments + n * stride_, stride_, count_ * stride_, from, to);
      if (total.absolute == nullptr) return;
      float* to_view = total.absolute + 2 * n;
      std::memmove(to_view, sums(from).absolute + 2 * n, 2 * sizeof(float));
      for (int band = from + 1; band <= to; ++band)
        for (size_t j = 0; j < 2; ++j) to_view[j] += sums(band).absolute[2 * n + j];
    });
  }

 private:
  // use(n, from, to) with the bands [from, to] that Gaussian n touches, for those whose sums are read.
  template <class Use>
  void each(size_t first, size_t last, const Use& use) const {
    const uint32_t* reach = as<uint32_t>(view_.reach);
    for (size_t n = first; n < last; ++n)
      if (as(view_.depths)[n] != 0.0f || absolute_ != nullptr)
        use(n, int(band_of_[reach[n] & 0xffff]), int(band_of_[std::max(reach[n] >> 16, 1u) - 1]));
  }

  const View& view_;
  std::vector<int> rows_;         // where each band begins
  std::vector<uint8_t> band_of_;  // tile row
  size_t stride_, count_;
  float *moments_, *absolute_;
  Memory more_absolute_;
};

void clear_visible(const View& view, size_t count, size_t stride, const Sums& sums) {
  for (size_t n = 0; n < count; ++n)
    if (as(view.depths)[n] != 0.0f) clear_row(sums.moments + n * stride, stride);
  if (sums.absolute != nullptr) std::memset(sums.absolute, 0, 2 * sizeof(float) * count);
}

// [M, 4, 4] from the chunks' sums of [M, 16]; the last row is constant.
void add_up_cameras(const std::vector<float>& sums, size_t chunks, size_t views, float* viewmats) {
  for (size_t m = 0; m < views; ++m) {
    double total[12] = {};
    for (size_t chunk = 0; chunk < chunks; ++chunk)
      for (size_t j = 0; j < 12; ++j) total[j] += double(sums[16 * (views * chunk + m) + j]);
    float* out = viewmats + 16 * m;
    for (size_t i = 0; i < 3; ++i) {
      for (size_t j = 0; j < 3; ++j) out[4 * i + j] = float(total[3 * i + j]);
      out[4 * i + 3] = float(total[9 + i]);
    }
    for (size_t j = 12; j < 16; ++j) out[j] = 0.0f;
  }
}

// At least 1; NaN becomes 1.
int32_t whole_pixels(double radius) { return int32_t(std::min(std::max(1.0, std::ceil(radius)), 2147483647.0)); }

}  // namespace

int State::chunks() const { return (blocks() + kChunk - 1) / kChunk; }

Planes State::planes(int view) const {
  return {as(image) + size_t(view) * size_t(channels()) * plane(), as(transmittance) + size_t(view) * plane()};
}

void State::project(int view, bool inside, View* out) const {
  const size_t lanes = size_t(blocks()) * kBlock;
  out->records = take_array<float>({lanes, size_t(stride())}, "projected Gaussians", 16);
  out->depths = take_array<float>({lanes}, "depths", 16);
  const Projection to = out->projection();
  const int parts = inside ? chunks() : 1, size = inside ? kChunk : blocks();
  parallel(parts, [&](int part) {
    kernels->project(shape, settings, cameras[size_t(view)], as(prepared), part * size,
                     std::min((part + 1) * size, blocks()), to);
  });
}

Camera make_camera(const float* viewmat, const float* k, int width, int height) {
  Camera c{};
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) c.rotation[3 * i + j] = viewmat[4 * i + j];
    c.translation[i] = viewmat[4 * i + 3];
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

std::unique_ptr<State> forward(const Kernels& kernels, const Shape& shape, const Settings& settings,
                               std::vector<Camera> cameras, const Gaussians& in, const float* backgrounds, bool save,
                               const Limits& limits) {
  auto owner = std::make_unique<State>();
  State& s = *owner;
  s.kernels = &kernels;
  s.shape = shape;
  s.settings = settings;
  s.cameras = std::move(cameras);
  s.saved = save;
  const int views = int(s.cameras.size()), blocks = s.blocks(), chunks = s.chunks();
  // All images at once, and the caller's alphas, which are not allocated here.
  expect_available(product({size_t(views), size_t(s.channels()) + 2, s.plane(), sizeof(float)}, "images"), "images");
  s.image = take_array<float>({size_t(views), size_t(s.channels()), s.plane()}, "images");
  s.transmittance = take_array<float>({size_t(views), s.plane()}, "transmittances");
  s.prepared = take_array<float>({size_t(shape.prepared_floats()), size_t(blocks)}, "prepared Gaussians");
  s.views.resize(size_t(views));

  std::vector<int> invalid(size_t(chunks), 0);
  parallel(chunks, [&](int chunk) {
    kernels.prepare(shape, in, chunk * kChunk, std::min((chunk + 1) * kChunk, blocks), as(s.prepared),
                    &invalid[size_t(chunk)]);
  });
  for (int bad : invalid) s.invalid += bad;

  const auto draw_one = [&](int m, bool inside) {
    float background[kMaxChannels] = {};
    if (backgrounds != nullptr)
      std::memcpy(background, backgrounds + size_t(m) * size_t(shape.channels), sizeof(float) * size_t(shape.channels));
    draw(&s, m, inside, background, limits);
  };
  // One view per thread; all threads share the remaining views.
  const int threads = thread_count(), rest = views % threads, alone = 2 * rest > threads ? views : views - rest;
  parallel(alone, [&](int m) { draw_one(m, false); });
  for (int m = alone; m < views; ++m) draw_one(m, true);
  return owner;
}

void backward(const State& s, const Gaussians& in, const PlaneGradients& gradient, const Gradients& out,
              const ViewGradients& view_out) {
  const int views = int(s.cameras.size()), whole = views - 1, blocks = s.blocks(), chunks = s.chunks();
  const size_t count = size_t(s.shape.count), stride = size_t(moment_stride(s.channels()));
  const size_t color_plane = size_t(s.channels()) * s.plane();
  // Moments of all views, and of the further bands of the last; they are read in whole blocks.
  const Memory memory =
      take_array<float>({size_t(whole + Bands::number(s.settings)), count, stride}, "gradient sums", kBlock * stride);
  const auto of_view = [&](float* one, int m, size_t width) {
    return one == nullptr ? nullptr : one + size_t(m) * count * width;
  };
  const Bands bands(s, of_view(as(memory), whole, stride), of_view(view_out.absolute, whole, 2));
  const auto gaussians_of = [&](int chunk) {
    const size_t first = size_t(chunk) * kChunk * kBlock;
    return std::make_pair(first, std::min(first + kChunk * kBlock, count));
  };
  parallel(chunks, [&](int chunk) {
    const auto [first, last] = gaussians_of(chunk);
    bands.clear(first, last);
  });
  parallel(whole + bands.count(), [&](int task) {
    const int m = std::min(task, whole), band = task - m;
    const View& view = s.views[size_t(m)];
    RowRange rows = {0, s.settings.tiles_y};
    Sums sums = {of_view(as(memory), m, stride), of_view(view_out.absolute, m, 2)};
    if (m < whole) {
      clear_visible(view, count, stride, sums);
    } else {
      rows = bands.rows(band);
      sums = bands.sums(band);
    }
    const float* alpha = gradient.transmittance;
    const PlaneGradients here = {gradient.color + size_t(m) * color_plane,
                                 alpha == nullptr ? nullptr : alpha + size_t(m) * s.plane()};
    s.kernels->blend_backward(s.settings, s.channels(), view.tiles(), view.trace(), s.planes(m), here, rows, sums);
  });

  std::vector<const float*> depths;
  for (const View& view : s.views) depths.push_back(as(view.depths));
  const size_t camera_floats = 16 * size_t(views);
  std::vector<float> cameras(view_out.viewmats == nullptr ? 0 : camera_floats * size_t(chunks), 0.0f);
  parallel(chunks, [&](int chunk) {
    const auto [first, last] = gaussians_of(chunk);
    bands.add_up(first, last);
    const CameraGradients to = {cameras.empty() ? nullptr : cameras.data() + camera_floats * size_t(chunk),
                                view_out.means2d};
    s.kernels->project_backward(s.shape, in, s.settings, views, s.cameras.data(), as(s.prepared), depths.data(),
                                as(memory), chunk * kChunk, std::min((chunk + 1) * kChunk, blocks), out, to);
  });
  if (view_out.viewmats != nullptr) add_up_cameras(cameras, size_t(chunks), size_t(views), view_out.viewmats);
}

void statistics(const State& s, const Statistics& out) {
  const size_t count = size_t(s.shape.count), stride = size_t(s.stride());
  const auto describe = [&](size_t m, const View& view) {
    for (size_t n = 0; n < count; ++n) {
      const size_t i = m * count + n;
      const float depth = as(view.depths)[n];
      out.depths[i] = depth;
      float *mean = out.means2d + 2 * i, *conic = out.conics + 3 * i;
      int32_t* radius = out.radii + 2 * i;
      if (depth == 0.0f) {
        mean[0] = mean[1] = conic[0] = conic[1] = conic[2] = out.opacities[i] = 0.0f;
        radius[0] = radius[1] = 0;
        continue;
      }
      const float* r = as(view.records) + n * stride;
      mean[0] = r[record::kU];
      mean[1] = r[record::kV];
      conic[0] = 2 * kLn2 * r[record::kA];
      conic[1] = kLn2 * r[record::kB];
      conic[2] = 2 * kLn2 * r[record::kC];
      const float level = r[record::kLevel];
      out.opacities[i] = std::exp2(level);
      const double q00 = double(conic[0]), q01 = double(conic[1]), q11 = double(conic[2]);
      const double det = std::max(q00 * q11 - q01 * q01, 1e-30);
      const double reach = std::max(2.0 * double(kLn2) * (double(level) - kLog2AlphaMinExact), 0.0);
      radius[0] = whole_pixels(std::sqrt(reach * q11 / det));
      radius[1] = whole_pixels(std::sqrt(reach * q00 / det));
    }
  };
  parallel(int(s.cameras.size()), [&](int m) {
    if (s.saved) return describe(size_t(m), s.views[size_t(m)]);
    View again;  // as in the forward pass, which did not keep it
    s.project(m, false, &again);
    describe(size_t(m), again);
  });
}

}  // namespace dgr
