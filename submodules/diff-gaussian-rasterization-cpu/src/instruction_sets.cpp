#include "instruction_sets.hpp"

namespace dgr {

std::vector<const Kernels*> available_kernels() {
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
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    found.push_back(kernels_avx512());
#endif
  return found;
}

}  // namespace dgr
