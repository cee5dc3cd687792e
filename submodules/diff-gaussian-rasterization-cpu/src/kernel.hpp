// What the kernels of every instruction set share with the rest: plain structs and one table of functions.
//
// No standard-library templates here or in the kernels: their out-of-line copies would be compiled once per
// instruction set, and the linker might keep one that this machine cannot run.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dgr {

constexpr int kTile = 8;             // pixels; a tile's 64 pixels live in registers
constexpr int kMaxPasses = 4;        // passes over a tile's list, with the shortest vectors
constexpr int kBlock = 16;           // Gaussians per block of the prepared arrays
constexpr int kMaxChannels = 4;      // color channels and depth
constexpr int kMaxSh = 16;           // coefficients of degree 3
constexpr int kMaxPixels = 65535;    // per side: tile coordinates fit in 16 bits, pixels are exact in float
constexpr uint32_t kSpanSlack = 16;  // spans are written one vector at a time
constexpr float kAlphaMin = 1.0f / 255.0f;
constexpr float kAlphaMax = 0.99f;
constexpr float kTransmittanceMin = 1e-4f;
constexpr float kLog2e = 1.44269504088896340736f;
constexpr float kLn2 = 0.69314718055994530942f;
constexpr double kLog2AlphaMinExact = -7.99435343685885793770;  // log2(1/255)
constexpr float kLog2AlphaMin = float(kLog2AlphaMinExact);

// Columns of the record of a projected Gaussian, with d = pixel - (u, v):
// alpha = 2^(level - (a d_x^2 + b d_x d_y + c d_y^2)).
namespace record {
enum Column { kU, kV, kA, kB, kC, kLevel, kColor };
}
// Columns of the gradient sums of one record, over the pairs that it was blended in, with g = dL/dalpha alpha:
// sum g d_x, sum g d_y, sum g d_x^2, sum g d_x d_y, sum g d_y^2, sum g, and dL/dcolor.
namespace moment {
enum Column { kX, kY, kXX, kXY, kYY, kAlpha, kColor };
}
constexpr int record_stride(int channels) { return channels <= 2 ? 8 : 12; }
constexpr int moment_stride(int channels) { return channels <= 2 ? 8 : 16; }

// Rows of a prepared block, kBlock floats each.
namespace prepared {
enum Row { kMean = 0, kAxes = 3, kOpacity = 12, kValid = 13, kColor = 14 };
}

struct Camera {
  float rotation[9];  // world to camera, row-major
  float translation[3];
  float center[3];  // in world coordinates
  float fx, fy, cx, cy;
  float x_low, x_high, y_low, y_high;  // limits of x/z and y/z in the projection's Jacobian
};

struct Settings {
  int width, height, tiles_x, tiles_y;
  int crop_x0, crop_y0;  // pixel at the corner of the output image
  float near_plane, far_plane, eps2d;
  bool antialiased;
  bool with_depth;  // one more channel: depth, or its inverse
  bool inverse_depth;
};

struct Shape {
  int count;         // Gaussians
  int channels;      // color channels (1 or 3), without depth
  int coefficients;  // spherical-harmonic coefficients in memory; 0: plain colors
  int degree;        // active degree

  constexpr int active() const { return coefficients ? (degree + 1) * (degree + 1) : 1; }
  constexpr int color_floats() const {
    return channels * (coefficients ? coefficients : 1);
  }  // of a Gaussian, in memory
  constexpr int prepared_floats() const { return kBlock * (prepared::kColor + channels * active()); }  // of a block
};

struct Gaussians {
  const float* means;      // [N, 3]
  const float* quats;      // [N, 4]
  const float* scales;     // [N, 3]
  const float* opacities;  // [N]
  const float* colors;     // [N, C] or [N, K, C]
};

struct Gradients {  // of the Gaussians' parameters; null if not requested
  float* means;
  float* quats;
  float* scales;
  float* opacities;
  float* colors;
};

// Gaussians in one camera, in whole blocks.
struct Projection {
  float* records;  // [blocks kBlock, record_stride]
  float* depths;   // [blocks kBlock]; 0 marks a culled Gaussian, whose record is undefined
};

// Tile rows [y0, y1) that a Gaussian touches; its spans begin at `first`.
struct TileRows {
  uint16_t y0, y1;
  uint32_t first;
};

struct SpanBuffer {
  TileRows* rows;   // of the Gaussians in order of depth
  uint32_t* spans;  // x0 | x1 << 16 for tiles [x0, x1), one per Gaussian and tile row
  uint32_t capacity, used;
  int32_t* changes;  // [tiles_y, tiles_x + 1]: +1 where a span begins, -1 behind its end
};

struct RowRange {  // tile rows [first, last)
  int first, last;
};

// The Gaussians of each tile, front to back, from tile row `first_row` on.
struct TileView {
  const float* records;
  const uint32_t* starts;  // [tiles + 1]
  const uint32_t* list;
  int first_row;
};

struct Planes {
  float* color;          // [C, H, W]
  float* transmittance;  // [H, W]
};

struct PlaneGradients {
  const float* color;          // [C, H, W]
  const float* transmittance;  // [H, W], or null
};

// Decisions of the forward pass for the backward pass, which neither repeats them nor works where nothing was blended.
struct Trace {
  uint64_t* blended;  // [pairs] bits, in the kernels' internal arrangement: the pixels that blended the Gaussian
  uint32_t* ends;     // [tiles, kMaxPasses] where each pass over a tile's list stopped
};

struct Sums {
  float* moments;   // [N, moment_stride]
  float* absolute;  // [N, 2] sums of absolute screen-space gradients, or null
};

// Where the projection's backward pass puts what belongs to cameras; null if not requested.
struct CameraGradients {
  float* cameras;  // [M, 16]: rotation 9, translation 3; added to
  float* means2d;  // [M, N, 2]
};

struct Kernels {
  const char* name;
  // Blocks [first, last) of the scene, in structure-of-arrays form; adds the number of invalid Gaussians.
  void (*prepare)(const Shape&, const Gaussians&, int first, int last, float* prepared, int* invalid);
  // Blocks [first, last) in one camera.
  void (*project)(const Shape&, const Settings&, const Camera&, const float* prepared, int first, int last,
                  const Projection&);
  // Exact spans of tiles in every tile row that the ellipses of the Gaussians order[first] ... order[last - 1] touch.
  // Stops early if the rest of the capacity is less than kSpanSlack plus a Gaussian's spans; returns where it stopped.
  uint32_t (*spans)(const Settings&, int stride, const float* records, const uint32_t* order, uint32_t first,
                    uint32_t last, SpanBuffer*);
  // Image and transmittance of some tile rows; writes what the backward pass needs to `trace`, unless null.
  void (*blend)(const Settings&, int channels, const TileView&, const float* background, RowRange, const Planes&,
                const Trace* trace);
  void (*blend_backward)(const Settings&, int channels, const TileView&, const Trace&, const Planes&,
                         const PlaneGradients&, RowRange, const Sums&);
  // Gradients of blocks [first, last) from the moments of all cameras.
  void (*project_backward)(const Shape&, const Gaussians&, const Settings&, int cameras, const Camera*,
                           const float* prepared, const float* const* depths, const float* moments, int first, int last,
                           const Gradients&, const CameraGradients&);
};

#define DGR_DECLARE(isa) const Kernels* kernels_##isa();
DGR_DECLARE(sse2)
DGR_DECLARE(avx2)
DGR_DECLARE(avx512)
DGR_DECLARE(generic)
#undef DGR_DECLARE

}  // namespace dgr
