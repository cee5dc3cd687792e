// Scheduling of the kernels: several views, forward and backward, without Python.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernel.hpp"
#include "memory.hpp"
#include "tile_lists.hpp"

namespace dgr {

// Sizes that bound the memory of a call; tests make them small.
struct Limits {
  uint64_t band_pairs = uint64_t(1) << 26;  // pairs of a view that are drawn at once if nothing is kept
};

// Data for the passes over the pixels of one view.
struct View {
  Memory records, depths;  // whole blocks: [blocks kBlock, stride] and [blocks kBlock]
  TileLists lists;         // of all tile rows
  Memory reach;            // see Binning; of the last view only
  Memory blended, ends;    // decisions of the forward pass
  uint64_t pairs = 0;
  uint32_t visible = 0;

  Projection projection() const { return {as(records), as(depths)}; }
  TileView tiles() const { return lists.view(as(records)); }
  Trace trace() const { return {as<uint64_t>(blended), as<uint32_t>(ends)}; }
};

// Everything that the backward pass needs from a forward pass.
struct State {
  Shape shape{};
  Settings settings{};
  std::vector<Camera> cameras;
  std::vector<View> views;  // their memory is kept only if `saved`; it can be recomputed from `prepared`
  Memory prepared, image, transmittance;
  int invalid = 0;
  bool saved = false;
  const Kernels* kernels = nullptr;

  int channels() const { return shape.channels + (settings.with_depth ? 1 : 0); }
  int stride() const { return record_stride(channels()); }
  size_t plane() const { return size_t(settings.width) * size_t(settings.height); }
  int blocks() const { return (shape.count + kBlock - 1) / kBlock; }
  int chunks() const;
  Planes planes(int view) const;
  // Projection of one view from the prepared Gaussians; with `inside`, by several threads.
  void project(int view, bool inside, View*) const;
};

Camera make_camera(const float* viewmat, const float* k, int width, int height);

// Draws all views; `backgrounds` [M, C] may be null.  `save` keeps what `backward` needs.
// Throws OutOfMemory with the numbers.
std::unique_ptr<State> forward(const Kernels&, const Shape&, const Settings&, std::vector<Camera>, const Gaussians&,
                               const float* backgrounds, bool save, const Limits& = {});

struct ViewGradients {  // null if not requested
  float* viewmats;      // [M, 4, 4]
  float* means2d;       // [M, N, 2]
  float* absolute;      // [M, N, 2] sums of the absolute values over the pixels
};

// Gradients from those of the images [M, C, H, W] and transmittances [M, H, W] (null: zero) of a saved state.
void backward(const State&, const Gaussians&, const PlaneGradients&, const Gradients&, const ViewGradients&);

// Results of the forward pass for each Gaussian in each view; zero for culled Gaussians.
struct Statistics {
  float* means2d;    // [M, N, 2]
  float* depths;     // [M, N]
  float* conics;     // [M, N, 3]
  float* opacities;  // [M, N]
  int32_t* radii;    // [M, N, 2]
};
void statistics(const State&, const Statistics&);

}  // namespace dgr
