// The arithmetic of the rasterizer, compiled once per instruction set (named by DGR_ISA).
#include "kernel.hpp"

#include "kernels/blending.hpp"
#include "kernels/projection.hpp"
#include "kernels/spans.hpp"

#define DGR_CONCAT_(a, b) a##b
#define DGR_CONCAT(a, b) DGR_CONCAT_(a, b)
#define DGR_STR_(a) #a
#define DGR_STR(a) DGR_STR_(a)

namespace {

const dgr::Kernels kTable = {DGR_STR(DGR_ISA), prepare, project, spans, blend, blend_backward, project_backward};

}  // namespace

namespace dgr {
const Kernels* DGR_CONCAT(kernels_, DGR_ISA)() { return &kTable; }
}  // namespace dgr
