#include "keras_sasa/kernels/base/tasks.h"

namespace keras_sasa {

// Here and not in the header, so that no level compiles a copy of its own that
// the linker could choose for the others.
Tasks::~Tasks() = default;

void Tasks::Finish() const {}

}  // namespace keras_sasa
