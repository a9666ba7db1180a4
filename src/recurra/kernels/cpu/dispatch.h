// Which of the targets that were compiled in does the work: chosen once, when it is first asked for.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "machine.h"

namespace recurra::dispatch {

// The best target that this machine can run, or the one named by RECURRA_CPU_TARGET.
// Throws std::invalid_argument where that name is unknown here, or this machine cannot run it.
const Kernels& kernels();
std::string target();

std::vector<std::pair<std::string, bool>> targets();  // compiled in, worst first; whether this machine can run it

}  // namespace recurra::dispatch
