// What the kernels of every instruction set share with the module: plain structs and one table of functions.
//
// No standard-library templates here or in kernel.cpp: their out-of-line copies would be compiled once per
// instruction set, and the linker might keep one that this machine cannot run.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dgr {

constexpr int kTile = 8;           // pixels; a tile's 64 pixels live in registers
constexpr int kMaxPasses = 4;      // passes over a tile's list, with the shortest vectors
constexpr int kBlock = 16;         // Gaussians per block of the prepared arrays
constexpr int kMaxChannels = 4;    // color channels and depth
constexpr int kMaxSh = 16;         // coefficients of degree 3
constexpr uint32_t kSpanSlack = 16;  // spans are written one vector at a time
constexpr float kAlphaMin = 1.0f / 255.0f;
constexpr float kAlphaMax = 0.99f;
constexpr float kTransmittanceMin = 1e-4f;

// A projected Gaussian: u v a b c l color..., with alpha = 2^(l - (a dx^2 + b dx dy + c dy^2)).
inline int record_stride(int channels) { return channels <= 2 ? 8 : 12; }
// Gradient sums of one record: Sx Sy Sxx Sxy Syy S0 color...
inline int gradient_stride(int channels) { return channels <= 2 ? 8 : 16; }

struct Camera {
  float rotation[9];     // world to camera, row-major
  float translation[3];
  float center[3];       // in world coordinates
  float fx, fy, cx, cy;
  float x_low, x_high, y_low, y_high;  // limits of x/z and y/z in the projection's Jacobian
};

struct Settings {
  int width, height, tiles_x, tiles_y;
  int crop_x0, crop_y0;  // pixel at the corner of the output image
  float near_plane, far_plane, eps2d;
  bool antialiased;
  bool with_depth;       // one more channel: depth, or its inverse
  bool inverse_depth;
};

struct Scene {
  int count;             // Gaussians
  int channels;          // color channels (1 or 3), without depth
  int coefficients;      // spherical-harmonic coefficients in memory; 0: plain colors
  int degree;            // active degree
  const float* means;    // [N, 3]
  const float* quats;    // [N, 4]
  const float* scales;   // [N, 3]
  const float* opacities;  // [N]
  const float* colors;   // [N, C] or [N, K, C]
};

// Floats of one prepared block: mean 3, axes 9, opacity 1, valid 1, color.
inline int prepared_floats(const Scene& s) {
  return kBlock * (14 + s.channels * (s.coefficients ? (s.degree + 1) * (s.degree + 1) : 1));
}

// Tile rows [y0, y1) that a Gaussian touches; its spans begin at `first`.
struct TileRows {
  uint16_t y0, y1;
  uint32_t first;
};

struct Gradients {       // null if not requested
  float* means;
  float* quats;
  float* scales;
  float* opacities;
  float* colors;
};

// Decisions of the forward pass for the backward pass, which neither repeats them nor works where nothing was blended.
struct Trace {
  uint64_t* blended;     // [pairs] bits, in the kernels' internal arrangement: the pixels that blended the Gaussian
  uint32_t* ends;        // [tiles, kMaxPasses] where each pass over a tile's list stopped
};

struct Kernels {
  const char* name;
  // Number of floats multiplied and added in `rounds` rounds of independent fused multiply-adds: the benchmark's limit.
  uint64_t (*multiply_add)(int rounds);
  // Blocks [first, last) of the scene, in structure-of-arrays form.
  void (*prepare)(const Scene&, int first, int last, float* prepared, int* invalid);
  // Records, depths and visibility of blocks [first, last) in one camera; depth 0 marks a culled Gaussian.
  void (*project)(const Scene&, const Settings&, const Camera&, const float* prepared, int first, int last,
                  float* records, float* depths);
  // Exact spans of tiles, x0 | x1 << 16 for [x0, x1), in every tile row that the ellipses of the Gaussians
  // order[first] ... order[last - 1] touch.  `changes` [tiles_y, tiles_x + 1] gets +1 where a span begins and
  // -1 behind its end.  Stops early if the rest of `capacity` is less than kSpanSlack plus a Gaussian's spans;
  // returns where it stopped.
  uint32_t (*spans)(const Settings&, int stride, const float* records, const uint32_t* order, uint32_t first,
                    uint32_t last, TileRows* rows, uint32_t* span, uint32_t capacity, uint32_t* used,
                    int32_t* changes);
  // Tile rows [row0, row1): image and transmittance; writes what the backward pass needs to `trace`, unless null.
  void (*blend)(const Settings&, int channels, const float* records, const uint32_t* starts, const uint32_t* list,
                const float* background, int row0, int row1, float* image, float* transmittance, const Trace*);
  void (*blend_backward)(const Settings&, int channels, const float* records, const uint32_t* starts,
                         const uint32_t* list, const Trace&, const float* image, const float* transmittance,
                         const float* grad_image, const float* grad_transmittance, int row0, int row1, float* sums,
                         float* absolute);
  // Gradients of blocks [first, last) from the sums of all cameras; adds to camera_grads [M, 16] (rotation 9,
  // translation 3).
  void (*project_backward)(const Scene&, const Settings&, int cameras, const Camera*, const float* prepared,
                           const float* const* depths, const float* sums, int first, int last, const Gradients&,
                           float* camera_grads, float* means2d);
};

#define DGR_DECLARE(isa) const Kernels* kernels_##isa();
DGR_DECLARE(sse2)
DGR_DECLARE(avx2)
DGR_DECLARE(avx512)
DGR_DECLARE(generic)
#undef DGR_DECLARE

}  // namespace dgr
