#include "launch.h"

#include <omp.h>

#include <atomic>

#if defined(__linux__)
#include <pthread.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#include "dispatch.h"

namespace recurra {
namespace {

// In a forked child torch's pool has lost its threads: there all is done by the thread that calls.
bool forked() {
    static std::atomic<bool> child{false};
#if defined(__linux__)
    static const int registered = pthread_atfork(nullptr, nullptr, [] { child = true; });
    (void)registered;
#endif
    return child;
}
const bool watching = forked();  // from the moment of loading

// What stands before `release` in some threads comes before what stands after `acquire` in others: said to the thread
// sanitizer alone, which cannot look into libgomp, and nothing in any other build.
struct Order {
#if defined(__SANITIZE_THREAD__)
    void release() { __tsan_release(this); }
    void acquire() { __tsan_acquire(this); }
#else
    void release() {}
    void acquire() {}
#endif
};

// f(thread, threads) in up to n threads of torch's pool. What libgomp hands to a thread is read before `fork.acquire`.
template <class F>
#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize("thread")))
#endif
void in_threads(int n, F f) {
    Order fork, join;
    fork.release();
#pragma omp parallel num_threads(n)
    {
        fork.acquire();
        f(omp_get_thread_num(), omp_get_num_threads());
        join.release();
    }
    join.acquire();
}

void sleep(Gate& gate, uint32_t passed) {
    std::atomic_ref<uint32_t>(gate.passed).wait(passed, std::memory_order_acquire);
}
void wake(Gate& gate) { std::atomic_ref<uint32_t>(gate.passed).notify_all(); }

}  // namespace

void parallel(int n, void (*f)(void* self, int i), void* self) {
    if (n <= 1 || forked()) {
        for (int i = 0; i < n; i++) f(self, i);
        return;
    }
    in_threads(n, [&](int first, int threads) {
        for (int i = first; i < n; i += threads) f(self, i);
    });
}

int64_t packed_bytes(const Program& program, Weights weights, int wide) {
    return dispatch::kernels().packed_bytes[wide](program, weights) + 64;
}

int64_t scratch_bytes(const Program& program, const Run& run, int wide) {
    return dispatch::kernels().scratch_bytes[wide](program, run);
}

void pack(const Program& program, const Run& run, int wide) {
    const int threads = run.workers * run.team;
    parallel(threads, [&](int i) { dispatch::kernels().pack[wide](program, run, i, threads); });
}

void launch(const Program& program, Run& run, int wide) {
    const Kernels& kernels = dispatch::kernels();
    run.sleep = sleep, run.wake = wake;
    const int threads = run.workers * run.team;
    // Members of a team wait for each other: they must all be there, or each worker is one thread after all.
    std::atomic<bool> apart{run.team == 1 || forked()};
    if (!apart)
        in_threads(threads, [&](int i, int there) {
            if (there == threads)
                kernels.run[wide](program, run, i / run.team, i % run.team);
            else
                apart = true;
        });
    if (apart) {
        run.team = 1;
        parallel(run.workers, [&](int i) { kernels.run[wide](program, run, i, 0); });
    }
    if (program.n_gradients) parallel(threads, [&](int i) { kernels.finish[wide](program, run, i, threads); });
}

}  // namespace recurra
