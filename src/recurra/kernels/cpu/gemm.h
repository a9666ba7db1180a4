// Matrix products on packed panels. Each element of a result is one sum in one order, whatever the number of rows and the
// tile that it falls into: the same bits for one row as for a thousand. A long sum is made of the sums of blocks, each
// from its own zero, so that its error grows with the root of their lengths; where blocks begin depends on k alone.
#pragma once

#include "vector.h"

namespace recurra::RECURRA_TARGET {

constexpr int PANEL_VECTORS = 2;
constexpr int ACCUMULATORS = REGISTERS == 32 ? 24 : 12;
constexpr int TILE_ROWS = ACCUMULATORS / PANEL_VECTORS;
template <class T>
constexpr int PANEL = PANEL_VECTORS * LANES<T>;

// Most depth of a block: a panel of it and a tile of rows stay in a first-level cache of 32 KiB.
template <class T>
constexpr int DEPTH = 20 * 1024 / int(sizeof(T)) / PANEL<T>;

constexpr int panels(int n, int width) { return (n + width - 1) / width; }

// Rows of a packed panel.
template <class W>
constexpr int depth_of(int k) {
    return panels(k, ROWS_LOADED<W>) * ROWS_LOADED<W>;
}

// Bytes of a packed matrix: its panels, then the factors of integers, one for each of its n rows.
template <class T, class W>
constexpr int64_t packed_size(int n, int k) {
    const int64_t columns = int64_t(panels(n, PANEL<T>)) * PANEL<T>;
    const int64_t bytes = columns * depth_of<W>(k) * int64_t(sizeof(W));
    return (bytes + (sizeof(W) == 1 ? columns * int64_t(sizeof(T)) : 0) + 63) / 64 * 64;
}

// matrix (n, k) -> panels [n / PANEL][k][PANEL], zeros behind the last column; panels [first, last).
template <class T>
void pack_panels(const T* matrix, int64_t row, int64_t column, int n, int k, T* packed, int first, int last) {
    constexpr int P = PANEL<T>;
    for (int p = first; p < last; p++) {
        T* to = packed + int64_t(p) * k * P;
        const int width = n - p * P < P ? n - p * P : P;
        const T* from = matrix + int64_t(p) * P * row;
        if (row == 1) {  // columns of the result lie side by side
            for (int i = 0; i < k; i++, to += P) {
                memcpy(to, from + i * column, size_t(width) * sizeof(T));
                for (int j = width; j < P; j++) to[j] = 0;
            }
            continue;
        }
        constexpr int BLOCK = 16;  // of k: each row of the matrix is read a cache line at a time
        for (int i0 = 0; i0 < k; i0 += BLOCK) {
            const int i1 = i0 + BLOCK < k ? i0 + BLOCK : k;
            for (int j = 0; j < P; j++)
                for (int i = i0; i < i1; i++) to[int64_t(i) * P + j] = j < width ? from[j * row + i * column] : T(0);
        }
    }
}

// The same in fewer bits, in the order of Loaded. Integers of a row are steps of its largest weight / 127.
template <class T, class W>
void pack_narrow(const T* matrix, int64_t row, int64_t column, int n, int k, W* packed, int first, int last) {
    constexpr int P = PANEL<T>, L = LANES<T>, R = ROWS_LOADED<W>;
    const int depth = depth_of<W>(k);
    T* const factors = (T*)(packed + int64_t(panels(n, P)) * P * depth);
    for (int j = first * P; j < last * P; j++) {
        W* to = packed + int64_t(j / P) * depth * P + j % L * 2 * R + j % P / L;
        const T* from = matrix + int64_t(j) * row;
        const int real = j < n ? k : 0;
        T most = 0;  // NaN, where one of them is
        for (int i = 0; i < real; i++) {
            const T size = __builtin_fabs(from[i * column]);
            if (!(size <= most)) most = size;
        }
        if constexpr (sizeof(W) == 1) factors[j] = most / 127 / (1 << 24);
        for (int i = 0; i < depth; i++) {
            const T x = i < real ? from[i * column] : T(0);
            W& place = to[int64_t(i / R) * P * R + i % R * 2];
            if constexpr (sizeof(W) == 1)
                place = most > 0 ? W(__builtin_lrint(x / most * 127)) : W(0);
            else
                place = rounded(float(x));
        }
    }
}

// c (M, V vectors) = (add or 0) + a (M, k) @ panels; V counts vectors over consecutive panels `stride` apart. `ahead` is
// what will be read next: a hint, which may lie behind the end. Integers have `factors`, one a column.
template <class T, class W, int M, int V>
ALWAYS_INLINE void tile(const T* a, int64_t lda, int k, const W* b, int64_t stride, const T* factors, const T* add,
                        int64_t ldadd, T* c, int64_t ldc, int columns, const W* ahead) {
    constexpr int L = LANES<T>;
    Vec<T> acc[M][V] = {};
    constexpr int R = ROWS_LOADED<W>, PANELS = (V + PANEL_VECTORS - 1) / PANEL_VECTORS;
    const auto some = [&](int i, int rows) ALWAYS_INLINE_LAMBDA {
        __builtin_prefetch(ahead, 0, 2);
#pragma GCC unroll 2
        for (int q = 0; q < rows; q++) {
            Vec<T> w[V];
#pragma GCC unroll 16
            for (int p = 0; p < PANELS; p++) {
                const Loaded<W> loaded(b + p * stride);
                w[p * PANEL_VECTORS] = loaded.first(q);
                if constexpr (V > 1) w[p * PANEL_VECTORS + 1] = loaded.second(q);
            }
#pragma GCC unroll 16
            for (int r = 0; r < M; r++) {
                const Vec<T> x = splat<T>(a[r * lda + i + q]);
#pragma GCC unroll 16
                for (int v = 0; v < V; v++) acc[r][v] = fma(x, w[v], acc[r][v]);
            }
        }
        b += R * PANEL<T>, ahead += R * PANEL<T>;
    };
    int i = 0;
    for (; i + R <= k; i += R) some(i, R);
    if (R > 1 && i < k) some(i, 1);
    if constexpr (sizeof(W) == 1) {
#pragma GCC unroll 16
        for (int r = 0; r < M; r++)
#pragma GCC unroll 16
            for (int v = 0; v < V; v++) acc[r][v] *= load(factors + v * L);
    }
    if (columns >= V * L) {
#pragma GCC unroll 16
        for (int r = 0; r < M; r++)
#pragma GCC unroll 16
            for (int v = 0; v < V; v++)
                store(c + r * ldc + v * L, add ? load(add + r * ldadd + v * L) + acc[r][v] : acc[r][v]);
        return;
    }
#pragma GCC unroll 16
    for (int r = 0; r < M; r++)
#pragma GCC unroll 16
        for (int v = 0; v < V; v++) {
            const int n = columns - v * L < L ? columns - v * L : L;
            if (n <= 0) continue;
            const Vec<T> before = !add ? Vec<T>{} : n == L ? load(add + r * ldadd + v * L) : load_part(add + r * ldadd + v * L, n);
            const Vec<T> sum = add ? before + acc[r][v] : acc[r][v];
            if (n == L)
                store(c + r * ldc + v * L, sum);
            else
                store_part(c + r * ldc + v * L, sum, n);
        }
}

template <class T, class W>
using Tile = void (*)(const T*, int64_t, int, const W*, int64_t, const T*, const T*, int64_t, T*, int64_t, int, const W*);

template <class T, class W, int M, int V>
void tile_function(const T* a, int64_t lda, int k, const W* b, int64_t stride, const T* factors, const T* add,
                   int64_t ldadd, T* c, int64_t ldc, int columns, const W* ahead) {
    tile<T, W, M, V>(a, lda, k, b, stride, factors, add, ldadd, c, ldc, columns, ahead);
}

// How many panels a tile of m rows takes at once, so that few rows still fill the registers.
constexpr int together(int m) {
    const int p = ACCUMULATORS / (PANEL_VECTORS * m);
    return p > 4 ? 4 : p < 1 ? 1 : p;
}

// The same for all rows of a product.
constexpr int widest(int rows) { return together(panels(rows, panels(rows, TILE_ROWS))); }

template <class T, class W>
struct Tiles {
    Tile<T, W> wide[TILE_ROWS + 1], one[TILE_ROWS + 1], narrow[TILE_ROWS + 1];  // by rows; narrow: half of a panel
};

template <class T, class W, int M = TILE_ROWS>
constexpr void fill_tiles(Tiles<T, W>& tiles) {
    tiles.wide[M] = tile_function<T, W, M, PANEL_VECTORS * together(M)>;
    tiles.one[M] = tile_function<T, W, M, PANEL_VECTORS>;
    tiles.narrow[M] = tile_function<T, W, M, 1>;
    if constexpr (M > 1) fill_tiles<T, W, M - 1>(tiles);
}

template <class T, class W>
constexpr Tiles<T, W> make_tiles() {
    Tiles<T, W> tiles{};
    fill_tiles<T, W>(tiles);
    return tiles;
}

template <class T, class W>
constexpr Tiles<T, W> TILES = make_tiles<T, W>();

// c (rows, n) = (add or 0) + a (rows, k) @ packed; `add` may be c itself. Of the panels only [first, last) are made.
template <class T, class W>
void gemm(const T* a, int64_t lda, int rows, int k, const W* packed, int n, const T* add, int64_t ldadd, T* c,
          int64_t ldc, int first, int last) {
    constexpr int P = PANEL<T>;
    const int tiles = panels(rows, TILE_ROWS);
    if (k == 0 || rows == 0) {  // nothing to sum
        for (int r = 0; r < rows; r++)
            for (int j = first * P; j < n && j < last * P; j++) c[r * ldc + j] = add ? add[r * ldadd + j] : T(0);
        return;
    }
    const int64_t whole = depth_of<W>(k);  // rows of a panel
    const T* const factors = (const T*)(packed + panels(n, P) * P * whole);
    const int block = depth_of<W>(panels(k, panels(k, DEPTH<T>)));  // blocks of nearly one depth
    for (int k0 = 0; k0 < k; k0 += block) {
        const int depth = k - k0 < block ? k - k0 : block;
        const T* before = k0 ? c : add;
        const int64_t ldbefore = k0 ? ldc : ldadd;
        const int most = widest(rows);
        for (int p = first; p < last;) {
            const int at_once = last - p >= most && (p + most) * P <= n ? most : 1;
            const int columns = n - p * P < at_once * P ? n - p * P : at_once * P;
            const W* b = packed + (p * whole + k0) * P;
            for (int t = 0, r = 0; t < tiles; t++) {  // tiles of nearly one height
                const int m = rows / tiles + (t < rows % tiles);
                const bool wide = at_once > 1 && together(m) == at_once;
                for (int q = 0; q < (wide ? 1 : at_once); q++) {
                    const int left = wide ? columns : columns - q * P < P ? columns - q * P : P;
                    const auto& kinds = TILES<T, W>;
                    const Tile<T, W> f = wide ? kinds.wide[m] : left <= LANES<T> ? kinds.narrow[m] : kinds.one[m];
                    const int64_t j = int64_t(p + q) * P;
                    const W* mine = b + q * whole * P;
                    // While the first rows read a panel, the next one is fetched from the last-level cache.
                    f(a + r * lda + k0, lda, depth, mine, whole * P, factors + j, before ? before + r * ldbefore + j : nullptr,
                      ldbefore, c + r * ldc + j, ldc, left, t || tiles <= 2 ? mine : mine + at_once * whole * P);
                }
                r += m;
            }
            p += at_once;
        }
    }
}

// --- weight gradients: c (m, n) += Σ over rows of g[row, m] a[row, n], both packed by rows ---------------------------

// rows of `from` (rows, n) -> panels [n / W][depth][W] at row `at`, zeros behind the last column.
template <class T, int W>
ALWAYS_INLINE void pack_row(const T* from, int n, T* packed, int64_t depth, int at) {
    T* to = packed + int64_t(at) * W;
    int j = 0;
    for (; j + W <= n; j += W, to += depth * W) memcpy(to, from + j, W * sizeof(T));
    if (j < n) {
        for (int i = 0; i < W; i++) to[i] = j + i < n ? from[j + i] : T(0);
    }
}

// One tile of rows of g by one panel of a. c: [TILE_ROWS][PANEL].
template <class T, int V>
void outer_tile(const T* g, const T* a, int depth, T* c) {
    constexpr int L = LANES<T>, ldc = PANEL<T>;
    Vec<T> acc[TILE_ROWS][V] = {};
    for (int i = 0; i < depth; i++, g += TILE_ROWS, a += PANEL<T>) {
        Vec<T> w[V];
#pragma GCC unroll 16
        for (int v = 0; v < V; v++) w[v] = load(a + v * L);
#pragma GCC unroll 16
        for (int r = 0; r < TILE_ROWS; r++) {
            const Vec<T> x = splat<T>(g[r]);
#pragma GCC unroll 16
            for (int v = 0; v < V; v++) acc[r][v] = fma(x, w[v], acc[r][v]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 16
        for (int v = 0; v < V; v++) store(c + r * ldc + v * L, load(c + r * ldc + v * L) + acc[r][v]);
}

// Bytes of g that stay in a second-level cache while all panels of a go by.
constexpr int RESIDENT = 192 * 1024;

// g: [m / TILE_ROWS][depth][TILE_ROWS], a: [n / PANEL][depth][PANEL], c: [n / PANEL][rows][PANEL] from one of its rows on.
template <class T>
void outer(const T* g, int m, const T* a, int n, int depth, T* c, int64_t rows) {
    if (m == 0 || depth == 0) return;
    constexpr int P = PANEL<T>;
    const int tiles = panels(m, TILE_ROWS), fit = RESIDENT / int(sizeof(T)) / TILE_ROWS / depth;
    const int some = panels(tiles, panels(tiles, fit < 8 ? 8 : fit));  // blocks of nearly one size
    for (int t0 = 0; t0 < tiles; t0 += some)
        for (int p = 0; p < panels(n, P); p++)
            for (int t = t0; t < tiles && t < t0 + some; t++) {
                const T* gt = g + int64_t(t) * depth * TILE_ROWS;
                const T* ap = a + int64_t(p) * depth * P;
                T* ct = c + (p * rows + t * TILE_ROWS) * P;
                if (n - p * P <= LANES<T>)
                    outer_tile<T, 1>(gt, ap, depth, ct);
                else
                    outer_tile<T, PANEL_VECTORS>(gt, ap, depth, ct);
            }
}

}  // namespace recurra::RECURRA_TARGET
