#include "pool.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>

#if defined(__linux__)
#include <pthread.h>
#include <sys/mman.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace recurra::pool {
namespace {

constexpr size_t HUGE = size_t(2) << 20, LARGE = size_t(1) << 20;

struct Free {
    void* memory;
    size_t size;
};

struct State {
    std::mutex mutex;
    std::list<Free> idle;                                        // longest unused first
    std::multimap<size_t, std::list<Free>::iterator> by_size;
    std::unordered_map<void*, size_t> sizes;                     // of blocks in use
    size_t in_use = 0, kept = 0, peak = 0, made = 0;
    bool nan = false;
};

State& state() {
    static State* s = [] {
        auto* made = new State;  // never destroyed: tensors may outlive static destructors
#if defined(__linux__)
        static State* of_fork = made;  // a fork while another thread holds the lock would leave the child without it
        pthread_atfork([] { of_fork->mutex.lock(); }, [] { of_fork->mutex.unlock(); }, [] { of_fork->mutex.unlock(); });
#endif
        return made;
    }();
    return *s;
}

size_t rounded(size_t bytes) {
    if (bytes >= LARGE) return (bytes + HUGE - 1) / HUGE * HUGE;
    size_t size = 4096;
    while (size < bytes) size *= 2;
    return size;
}

void* fresh(size_t size) {
    void* memory = nullptr;
    if (posix_memalign(&memory, size >= LARGE ? HUGE : 4096, size)) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (size >= LARGE) madvise(memory, size, MADV_HUGEPAGE);
#endif
    return memory;
}

// To the address sanitizer, a block ends where it was asked to end, and one that is idle is nobody's.
void fence([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes, [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(memory, bytes);
    __asan_poison_memory_region(static_cast<char*>(memory) + bytes, size - bytes);
#endif
}

// Batches of unequal lengths ask for less or more from step to step: a block that is larger than need be serves as well,
// and costs nothing while no more is in use than once was.
bool suits(const State& s, size_t block, size_t size) {
    return block <= size + size / 4 || (block <= 16 * size && s.in_use + block <= s.peak);
}

void release(State& s, size_t limit) {  // of the longest unused, until no more than `limit` is kept
    while (s.kept > limit && !s.idle.empty()) {
        const Free oldest = s.idle.front();
        const auto range = s.by_size.equal_range(oldest.size);
        for (auto it = range.first; it != range.second; ++it)
            if (it->second == s.idle.begin()) {
                s.by_size.erase(it);
                break;
            }
        s.idle.pop_front();
        s.kept -= oldest.size;
        free(oldest.memory);
    }
}

}  // namespace

void* take(size_t bytes) {
    State& s = state();
    const size_t size = rounded(bytes);
    void* memory = nullptr;
    size_t got = size;
    bool nan;
    {
        std::lock_guard lock(s.mutex);
        nan = s.nan;
        const auto fit = s.by_size.lower_bound(size);
        if (fit != s.by_size.end() && suits(s, fit->first, size)) {
            got = fit->first;
            memory = fit->second->memory;
            s.idle.erase(fit->second);
            s.by_size.erase(fit);
            s.kept -= got;
        }
    }
    const bool made = !memory;
    if (made) memory = fresh(size);
    {
        std::lock_guard lock(s.mutex);
        if (made) s.made += got;
        s.sizes[memory] = got;
        s.in_use += got;
        if (s.in_use > s.peak) s.peak = s.in_use;
        // A quarter more than was once in use at a time: in blocks that do not fit each other's uses, no more would mean
        // that each step gives some back to the system and asks for them again.
        const size_t limit = s.peak + s.peak / 4;
        if (s.in_use + s.kept > limit) release(s, limit - s.in_use);
    }
    if (nan) {
        fence(memory, got, got);
        memset(memory, 0xff, got);
    }
    fence(memory, bytes, got);
    return memory;
}

void give(void* memory) {
    if (!memory) return;
    State& s = state();
    std::lock_guard lock(s.mutex);
    const auto known = s.sizes.find(memory);
    const size_t size = known->second;
    s.sizes.erase(known);
    s.in_use -= size;
    fence(memory, 0, size);
    s.idle.push_back({memory, size});
    s.by_size.emplace(size, std::prev(s.idle.end()));
    s.kept += size;
}

size_t held() {
    State& s = state();
    std::lock_guard lock(s.mutex);
    return s.kept;
}

size_t used() {
    State& s = state();
    std::lock_guard lock(s.mutex);
    return s.in_use;
}

size_t made() {
    State& s = state();
    std::lock_guard lock(s.mutex);
    return s.made;
}

void trim() {
    State& s = state();
    std::lock_guard lock(s.mutex);
    release(s, 0);
    s.peak = s.in_use;
}

void poison(bool on) {
    State& s = state();
    std::lock_guard lock(s.mutex);
    s.nan = on;
}

}  // namespace recurra::pool
