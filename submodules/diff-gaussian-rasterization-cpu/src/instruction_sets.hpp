// The kernels that were compiled and that this machine can run.
#pragma once

#include <vector>

#include "kernel.hpp"

namespace dgr {

std::vector<const Kernels*> available_kernels();  // the widest vectors last

}  // namespace dgr
