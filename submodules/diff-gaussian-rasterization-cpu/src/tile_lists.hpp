// Which Gaussians each tile blends, front to back.
#pragma once

#include <cstdint>
#include <vector>

#include "kernel.hpp"
#include "memory.hpp"

namespace dgr {

struct TileLists {
  Memory starts;  // uint32 [tiles of the rows + 1]
  Memory list;    // uint32 [pairs], Gaussians in order of depth within a tile
  RowRange rows{};
  uint32_t pairs = 0;

  TileView view(const float* records) const { return {records, as<uint32_t>(starts), as<uint32_t>(list), rows.first}; }
};

// The visible Gaussians of one camera in order of depth, and the tiles that each of them touches.  Equal depths keep
// the order of the Gaussians.  The work is split into `parts`, run on the pool; no result depends on their number.
class Binning {
 public:
  Binning(const Kernels&, const Settings&, int count, int record_stride, const Projection&, int parts);

  uint32_t visible() const { return visible_; }
  uint64_t pairs() const { return pairs_; }  // of a Gaussian and a tile

  // Tile rows from `first` on that have at most `most` pairs together; at least one row.
  RowRange band(int first, uint64_t most) const;
  // Throws OutOfMemory if the rows have 2^32 pairs or more, which the lists cannot count.
  TileLists lists(RowRange) const;
  // uint32 [Gaussians], first | last << 16 of the tile rows [first, last) touched; 0 for culled Gaussians.
  Memory reach() const;

 private:
  // The spans of one part of the order, in growing memory.
  struct Part {
    uint32_t first = 0, last = 0;
    Memory spans, changes;
  };

  void find_spans(const Kernels&, int record_stride, const float* records, Part*);

  Settings settings_;
  int count_;
  uint32_t visible_ = 0;
  uint64_t pairs_ = 0;
  Memory order_, rows_;
  uint32_t* sorted_ = nullptr;  // in `order_`
  std::vector<Part> parts_;
  std::vector<uint64_t> row_pairs_;  // of each tile row
};

}  // namespace dgr
