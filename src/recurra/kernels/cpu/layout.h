// Where everything of a share lies: which rows of the batch it has, and its scratch, buffer by buffer.
#pragma once

#include "gemm.h"
#include "machine.h"
#include "pointwise.h"

namespace recurra::RECURRA_TARGET {

constexpr int LINE = 64;  // bytes of a cache line

template <class T>
constexpr int STRIP = 2048 / int(sizeof(T));  // numbers of a slot: a group's slots stay in a first-level cache

constexpr int64_t aligned(int64_t bytes) { return (bytes + LINE - 1) / LINE * LINE; }

// Rows begin on whole vectors, and not all in the same sets of a cache.
template <class T>
int64_t stride(int32_t width) {
    const int64_t s = (width + LANES<T> - 1) / LANES<T> * LANES<T>;
    return s * int(sizeof(T)) % 1024 == 0 ? s + LINE / int(sizeof(T)) : s;
}

// f(panels), a pointer to numbers of the type that they have.
template <class T, class F>
auto as_they_lie(Weights kind, void* panels, F f) {
    if constexpr (sizeof(T) == sizeof(float)) {
        if (kind == Weights::BFLOAT16) return f((BFloat16*)panels);
        if (kind == Weights::INT8) return f((int8_t*)panels);
    }
    return f((T*)panels);
}

template <class T>
int64_t packed_matrix(const Matrix& m, Weights kind) {
    return as_they_lie<T>(kind, nullptr, [&]<class W>(W*) { return packed_size<T, W>(m.n, m.k); });
}

// How a share sees the run.
struct Share {
    int first, rows;  // in `order`
    int most;         // rows of the largest chunk
    int64_t tape;     // rows of the shares before it

    static int alive(const Run& run, int first, int rows, int frame) {  // rows longer than f0 + frame
        while (rows && run.lengths[first + rows - 1] <= run.f0 + frame) rows--;
        return rows;
    }

    static int clipped(const Run& run, int row) {
        const int left = run.lengths[row] - run.f0;
        return left < 0 ? 0 : left > run.F ? run.F : left;
    }

    Share(const Run& run, int share) {
        first = run.share_start[share], rows = run.share_start[share + 1] - first;
        tape = run.ragged ? 0 : int64_t(first) * run.F;
        for (int b = 0; run.ragged && b < first; b++) tape += clipped(run, b);
        most = rows > run.chunk ? rows : run.chunk;  // a chunk ends before the frame that would overflow it
    }
};

// Contractions of one g stand side by side: it is packed once for all of them.
inline bool same_g(const Contraction& x, const Contraction& y) {
    return x.g.buffer == y.g.buffer && x.g.offset == y.g.offset && x.m == y.m;
}

// n == 0: a sum. Otherwise `heads` blocks of whole tiles, each (m / heads rows).
template <class T>
int64_t size_of_gradient(const Gradient& g) {
    if (!g.n) return g.m;
    const int per = g.m / g.heads;
    return int64_t(g.heads) * panels(per, TILE_ROWS) * TILE_ROWS * panels(g.n, PANEL<T>) * PANEL<T>;
}

// All members of a share lay its scratch out alike; a strip of slots is each one's own.
template <class T>
struct Layout {
    static constexpr int MOST = 512;  // buffers of a program, states, gradients: checked when a program is made

    Share share;
    Rows<T> at[MOST];     // where row 0 of the running frame (or chunk) is
    T* chunk_base[MOST];  // where the chunk's rows begin
    bool direct[MOST];    // an INPUT or OUTPUT that is read or written where it lies
    T* constants;
    T* slots;
    Operand* far;  // what each micro operation fetches of the next strip
    T *pack_g = nullptr, *pack_a = nullptr;  // operands of a contraction
    T* gradients;                            // sums over this worker's rows, at one place for all of its shares
    int64_t gradient_at[MOST], gradient_count = 0;
    int64_t used = 0;  // bytes

    Layout(const Program& program, const Run& run, int index, int member)
        : share(run, index), base((char*)run.scratch + index % run.workers * run.scratch_worker) {
        int64_t total = 0;
        for (int g = 0; g < program.n_gradients; g++) {
            gradient_at[g] = total;
            total += (size_of_gradient<T>(program.gradients[g]) + 15) / 16 * 16;
        }
        gradients = take(total);
        gradient_count = total;
        constants = take(int64_t(program.n_constants) * stride<T>(program.widest));
        far = (Operand*)take(int64_t(program.n_micros) * int(sizeof(Operand)) / int(sizeof(T)));
        slots = take(int64_t(program.slots) * STRIP<T> * run.team) + int64_t(program.slots) * STRIP<T> * member;
        const int R = share.rows, N = share.most;
        for (int i = 0; i < program.n_buffers; i++) {
            const Buffer& b = program.buffers[i];
            at[i] = {nullptr, stride<T>(b.width)};
            direct[i] = false;
            switch (b.home) {
                case Home::ROW:
                    at[i].stride = 0;
                    at[i].data = b.index < program.n_constants
                                     ? constants + int64_t(b.index) * stride<T>(program.widest)
                                     : (T*)run.vectors[b.index - program.n_constants];
                    break;
                case Home::FRAME:
                case Home::STATE:
                case Home::ONCE: at[i].data = take(R * at[i].stride); break;
                case Home::INPUT:
                case Home::OUTPUT:
                    // Rows that lie together are used where they are; few of them are worth gathering.
                    direct[i] = !run.ragged && (R == run.B || R >= 8);
                    if (direct[i]) {
                        at[i].stride = b.width;
                        break;
                    }
                    [[fallthrough]];
                case Home::CHUNK: chunk_base[i] = take(N * at[i].stride); break;
                case Home::TAPE: break;
            }
        }
        int64_t m = 0, a = 0;  // numbers of the widest operands of a contraction
        for (int i = 0; i < program.n_contractions;) {
            int64_t mine = 0;
            const Contraction& c = program.contractions[i];
            if (c.m > m) m = c.m;
            for (; i < program.n_contractions && same_g(program.contractions[i], c); i++)
                if (program.contractions[i].n > mine) mine = program.contractions[i].n;
            if (mine > a) a = mine;
        }
        if (a) {
            pack_g = take(int64_t(panels(int(m), TILE_ROWS)) * TILE_ROWS * N);
            pack_a = take(int64_t(panels(int(a), PANEL<T>)) * PANEL<T> * N);
        }
    }

   private:
    char* base;

    T* take(int64_t numbers) {
        T* p = (T*)(base + used);
        used += aligned(numbers * int64_t(sizeof(T)));
        return p;
    }
};

// Bytes of scratch that a worker needs, at most.
template <class T>
int64_t scratch_bytes(const Program& program, const Run& run) {
    int64_t most = 0;
    for (int s = 0; s < run.shares; s++) {
        const int64_t used = Layout<T>(program, run, s, 0).used;
        if (used > most) most = used;
    }
    return aligned(most) + 4096;  // workers do not begin in the same sets of a cache
}

}  // namespace recurra::RECURRA_TARGET
