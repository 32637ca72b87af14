// The renderer of solids for one instruction set; setup.py compiles this file with its flags.
#include "solids_cpu.h"

namespace sds3d {
const RenderSolids RENDER_SOLIDS_BASELINE = baseline::render_solids;
}  // namespace sds3d
