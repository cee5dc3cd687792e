// Which Gaussians each tile blends, front to back.
#pragma once

#include <cstdint>

#include "kernel.hpp"
#include "pool.hpp"

namespace dgr {

struct TileLists {
  Memory starts;  // uint32 [tiles + 1]
  Memory list;    // uint32 [pairs], Gaussians in order of depth within a tile
  Memory reach;   // uint32 [Gaussians], if requested: first | last << 16 of the tile rows [first, last) touched
  uint32_t pairs = 0;
  uint32_t visible = 0;
};

// Records and depths are those of one camera; depth 0 marks a culled Gaussian.  Equal depths keep the order
// of the Gaussians.  The work is split into `parts`, run on the pool; the lists do not depend on their number.  Culled
// Gaussians have no reach.
TileLists bin_tiles(const Kernels& kernels, const Settings& settings, int count, int record_stride,
                    const float* records, const float* depths, int parts, bool want_reach);

}  // namespace dgr
