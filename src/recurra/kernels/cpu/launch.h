// Runs of a program on the threads of torch's pool.
#pragma once

#include "machine.h"
#include "pool.h"

namespace recurra {

// Packs all matrices of a run into run.packed, which has room for them.
void pack(const Program& program, const Run& run, int wide);

// All frames, then the gradients. Weights are packed; scratch_bytes(…) a worker and a gate a thread are given.
void launch(const Program& program, Run& run, int wide);

int64_t packed_bytes(const Program& program, Weights weights, int wide);
int64_t scratch_bytes(const Program& program, const Run& run, int wide);  // of one worker

// f(0) … f(n - 1), in as many threads as torch's pool gives.
void parallel(int n, void (*f)(void* self, int i), void* self);

template <class F>
void parallel(int n, F f) {
    parallel(n, [](void* self, int i) { (*static_cast<F*>(self))(i); }, &f);
}

}  // namespace recurra
