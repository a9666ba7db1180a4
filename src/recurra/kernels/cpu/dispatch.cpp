#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>

// RECURRA_TARGETS, from the build: TARGET(x86_64_v2) TARGET(x86_64_v3) …, worst first.
#define TARGET(name)                \
    namespace recurra::name {       \
    extern const Kernels KERNELS;   \
    }
RECURRA_TARGETS
#undef TARGET

namespace recurra::dispatch {
namespace {

[[maybe_unused]] bool can_x86_64_v2() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("x86-64-v2");
#else
    return false;
#endif
}
[[maybe_unused]] bool can_x86_64_v3() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("x86-64-v3");
#else
    return false;
#endif
}
[[maybe_unused]] bool can_x86_64_v4() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("x86-64-v4");
#else
    return false;
#endif
}
[[maybe_unused]] bool can_aarch64() { return true; }
[[maybe_unused]] bool can_generic() { return true; }

struct Entry {
    std::string name;
    const Kernels* kernels;
    bool runs;
};

std::string spelled(std::string name) {  // x86_64_v3 is x86-64-v3 to people
    for (char& c : name)
        if (c == '_') c = '-';
    return name;
}

std::vector<Entry> entries() {
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
#define TARGET(name) {spelled(#name), &name::KERNELS, can_##name()},
    return {RECURRA_TARGETS};
#undef TARGET
}

Entry choose() {
    const std::vector<Entry> all = entries();
    std::string runnable;
    const Entry* best = nullptr;
    for (const Entry& e : all)
        if (e.runs) best = &e, runnable += (runnable.empty() ? "" : ", ") + e.name;
    const char* wanted = std::getenv("RECURRA_CPU_TARGET");
    if (!wanted || !*wanted) {
        if (!best) throw std::invalid_argument("this processor can run none of the targets that were compiled in");
        return *best;
    }
    for (const Entry& e : all)
        if (e.name == wanted && e.runs) return e;
    throw std::invalid_argument("RECURRA_CPU_TARGET is " + std::string(wanted) + "; this machine can run " + runnable);
}

const Entry& chosen() {
    static const Entry entry = choose();  // once; where it throws, the next call tries again
    return entry;
}

}  // namespace

const Kernels& kernels() { return *chosen().kernels; }

std::string target() { return chosen().name; }

std::vector<std::pair<std::string, bool>> targets() {
    std::vector<std::pair<std::string, bool>> found;
    for (const Entry& e : entries()) found.emplace_back(e.name, e.runs);
    return found;
}

}  // namespace recurra::dispatch
