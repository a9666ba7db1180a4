// Weights on their way in, and their gradients on their way out: once a run, by all of its threads.
#pragma once

#include "layout.h"

namespace recurra::RECURRA_TARGET {

template <class T>
int64_t packed_bytes(const Program& program, Weights kind) {
    int64_t bytes = 0;
    for (int m = 0; m < program.n_matrices; m++) bytes += packed_matrix<T>(program.matrices[m], kind);
    return bytes;
}

// This thread's part of the panels of every matrix.
template <class T>
void pack(const Program& program, const Run& run, int32_t part, int32_t parts) {
    char* to = (char*)run.packed;
    for (int i = 0; i < program.n_matrices; i++) {
        const Matrix& m = program.matrices[i];
        const Strided& s = run.matrices[i];
        const int64_t count = panels(m.n, PANEL<T>);
        const int first = int(count * part / parts), last = int(count * (part + 1) / parts);
        const T* from = (const T*)s.data;
        as_they_lie<T>(run.weights, to, [&](auto* panels) {
            if constexpr (sizeof(*panels) == sizeof(T))
                pack_panels(from, s.row, s.column, m.n, m.k, panels, first, last);
            else
                pack_narrow(from, s.row, s.column, m.n, m.k, panels, first, last);
        });
        to += packed_matrix<T>(m, run.weights);
    }
}

// This thread's rows of every gradient, from the sums of the workers, in their order.
template <class T>
void finish(const Program& program, const Run& run, int32_t part, int32_t parts) {
    for (int g = 0; g < program.n_gradients; g++) {
        const Gradient& gradient = program.gradients[g];
        const int m0 = int(int64_t(gradient.m) * part / parts), m1 = int(int64_t(gradient.m) * (part + 1) / parts);
        T* out = (T*)run.gradients[g];
        // A sum is one panel, a number wide.
        const int n = gradient.n ? gradient.n : 1, width = gradient.n ? PANEL<T> : 1;
        const int per = gradient.n ? gradient.m / gradient.heads : gradient.m;
        const int64_t rows = gradient.n ? int64_t(panels(per, TILE_ROWS)) * TILE_ROWS : per;
        bool first = true;
        for (int s = 0; s < run.workers; s++) {
            if (run.share_start[s] == run.share_start[s + 1]) continue;
            const Layout<T> layout(program, run, s, 0);
            const T* from = layout.gradients + layout.gradient_at[g];
            for (int m = m0; m < m1; m++)
                for (int p = 0; p < panels(n, width); p++) {
                    const T* sums = from + ((m / per * panels(n, width) + p) * rows + m % per) * width;
                    T* to = out + int64_t(m) * n + p * width;
                    const int some = n - p * width < width ? n - p * width : width;
                    for (int j = 0; j < some; j++) to[j] = first ? sums[j] : to[j] + sums[j];
                }
            first = false;
        }
        if (first)
            for (int m = m0; m < m1; m++)
                for (int j = 0; j < n; j++) out[int64_t(m) * n + j] = 0;
    }
}

}  // namespace recurra::RECURRA_TARGET
