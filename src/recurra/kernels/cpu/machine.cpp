// Runs a step program over time: all frames of a share of the batch, as one of the threads that have it. Compiled once
// per target. Nothing here allocates, throws or knows a cell.
#include "weights.h"

namespace recurra::RECURRA_TARGET {
namespace {

constexpr int SPINS = 2000;  // some 50 µs: what waits for longer sleeps
constexpr int PIECES = 8;    // of a member's part of a product

bool by_rows(Home home) { return home == Home::CHUNK || home == Home::INPUT || home == Home::OUTPUT; }

template <class T>
class Machine : Layout<T> {
   public:
    Machine(const Program& program, const Run& run, int share, int member)
        : Layout<T>(program, run, share, member), program(program), run(run), member(member),
          apart(program.apart && run.team > 1), first(share < run.workers),
          gate(run.gates + share % run.workers * run.team) {}

    void go() {
        if (!share.rows) return;
        begin();
        const int F = run.F;
        if (run.backwards) {
            for (int f1 = F; f1 > 0;) {
                int f0 = f1, rows = 0;
                while (f0 > 0 && (f0 == f1 || rows + n_at(f0 - 1) <= share.most)) rows += n_at(--f0);
                chunk(f0, f1);
                f1 = f0;
            }
        } else {
            for (int f0 = 0; f0 < F;) {
                int f1 = f0, rows = 0;
                while (f1 < F && (f1 == f0 || rows + n_at(f1) <= share.most)) rows += n_at(f1++);
                chunk(f0, f1);
                f0 = f1;
            }
        }
        if (run.odd && hsum(nought) != 0) __atomic_store_n(run.odd, 1, __ATOMIC_RELAXED);
        end();
    }

   private:
    using Layout<T>::MOST, Layout<T>::far, Layout<T>::share, Layout<T>::at, Layout<T>::chunk_base, Layout<T>::direct, Layout<T>::constants, Layout<T>::slots,
        Layout<T>::pack_g, Layout<T>::pack_a, Layout<T>::gradients, Layout<T>::gradient_at, Layout<T>::gradient_count;

    const Program& program;
    const Run& run;
    const int member;  // of the team
    const bool apart;  // members have columns of their own in the LOOP, and do not wait for each other there
    const bool first;  // of the worker's shares
    Gate* const gate;  // of the team: the first member's
    int turn = 0;      // which `taken` counts

    int64_t step[MOST];                          // numbers from a far buffer's rows to those of the next frame, or 0
    int f_first = 0, f_end = 0, chunk_rows = 0;  // the running chunk
    int64_t tape_row = 0;                        // rows of this share before the running chunk
    int alive_now = 0;                           // rows of the running frame
    Vec<T> nought{};                             // NaN, once an input was not finite

    int n_at(int f) const { return run.ragged ? Share::alive(run, share.first, share.rows, f) : share.rows; }

    // --- the run ----------------------------------------------------------------------------------------------------

    int sequence(int r) const { return run.order[share.first + r]; }
    int64_t place(int r) const { return run.places ? run.places[sequence(r)] : sequence(r); }
    int length(int r) const { return run.lengths[share.first + r]; }
    int time(int f, int r) const { return run.reverse ? length(r) - 1 - (run.f0 + f) : run.f0 + f; }

    bool begins(int f, int r) const {  // whether a segment begins with this frame, as time is run through
        if (!run.reset) return false;
        const int t = time(f, r);
        if (!run.reverse) return run.reset[int64_t(t) * run.B + sequence(r)];
        return run.f0 + f > 0 && run.reset[int64_t(t + 1) * run.B + sequence(r)];
    }

    // The part of n things that falls to a member, in steps of `step`.
    struct Span {
        int lo, hi;
    };
    Span part_of(int whose, int n, int step) const {
        const int steps = (n + step - 1) / step;
        const int lo = steps * whose / run.team * step, hi = steps * (whose + 1) / run.team * step;
        return {lo < n ? lo : n, hi < n ? hi : n};
    }
    Span mine(int n, int step = 1) const { return part_of(member, n, step); }

    // f(lo, hi) for pieces of n things, of whole `step`s, until all are taken: those of one's own part, then what slower
    // members have not begun. It makes no difference to a piece who makes it. The members meet before the next deal.
    template <class F>
    void deal(int n, int step, F f) {
        if (run.team == 1) return f(0, n);
        const int piece = panels(n, PIECES * run.team * step) * step;
        turn = !turn;
        __atomic_store_n(&gate[member].taken[!turn], 0, __ATOMIC_RELAXED);
        for (int i = 0; i < run.team; i++) {
            const int whose = (member + i) % run.team;
            const Span part = part_of(whose, n, piece);
            uint32_t* const taken = &gate[whose].taken[turn];
            for (int lo; (lo = part.lo + int(__atomic_fetch_add(taken, piece, __ATOMIC_RELAXED))) < part.hi;)
                f(lo, lo + piece < part.hi ? lo + piece : part.hi);
        }
    }

    // What a member has of the rows and columns of states: those of its units, where these are apart.
    Span state_rows(int n) const { return apart ? Span{0, n} : mine(n); }
    Span state_columns(int width) const { return apart ? mine(width, LANES<T>) : Span{0, width}; }

    // Every member has come this far, and sees what the others have written.
    void meet() {
        if (run.team == 1) return;
        const uint32_t passed = __atomic_load_n(&gate->passed, __ATOMIC_ACQUIRE);
        if (__atomic_add_fetch(&gate->arrived, 1, __ATOMIC_ACQ_REL) == uint32_t(run.team)) {
            __atomic_store_n(&gate->arrived, 0, __ATOMIC_RELAXED);
            __atomic_store_n(&gate->passed, passed + 1, __ATOMIC_SEQ_CST);
            run.wake(*gate);
            return;
        }
        for (int spin = 0; spin < SPINS; spin++) {
            if (__atomic_load_n(&gate->passed, __ATOMIC_ACQUIRE) != passed) return;
#if defined(__x86_64__)
            _mm_pause();
#endif
        }
        run.sleep(*gate, passed);
    }

    // --- the next strip ---------------------------------------------------------------------------------------------
    // Inputs, outputs and tapes lie where no cache has them, and a processor does not guess where the next piece of a row
    // is. So each operation on a strip fetches what one far operand has in the next strip.

    bool is_far(int buffer) const { return program.buffers[buffer].home == Home::TAPE || direct[buffer]; }

    // Lists what the groups of the loop read and write far away, each once: one for each micro operation, or nothing.
    void find_far() {
        for (int m = 0; m < program.n_micros; m++) far[m] = {NOTHING, 0};
        if (run.team > 1) return;  // few rows, and each member has other columns
        const Instruction* list = program.instructions[int(Stage::LOOP)];
        for (int l = 0; l < program.n_instructions[int(Stage::LOOP)]; l++) {
            if (list[l].kind != Kind::GROUP) continue;
            Operand* const found = far + list[l].first;
            int n = 0;
            for (int m = list[l].first; m < list[l].first + list[l].count; m++) {
                const Micro& micro = program.micros[m];
                const Operand operands[] = {micro.a, micro.b, micro.c, micro.d};
                for (const Operand o : operands) {
                    if (o.buffer < 0 || o.buffer == NOTHING || !is_far(o.buffer)) continue;
                    bool known = n == list[l].count;
                    for (int k = 0; k < n; k++) known |= found[k].buffer == o.buffer && found[k].offset == o.offset;
                    if (!known) found[n++] = o;
                }
            }
        }
    }

    void find_step(int f) {
        const int next = run.backwards ? f - 1 : f + 1;
        const bool more = next >= 0 && next < run.F && n_at(next);
        for (int i = 0; i < program.n_buffers; i++) {
            step[i] = 0;
            if (!more || !is_far(i)) continue;
            const Buffer& b = program.buffers[i];
            step[i] = b.home != Home::TAPE ? int64_t(time(next, 0) - time(f, 0)) * run.B * b.width
                      : run.backwards      ? -n_at(next) * at[i].stride
                                           : n_at(f) * at[i].stride;
        }
    }

    void begin() {
        if (!member) {
            find_far();
            for (int i = 0; i < program.n_constants; i++) {
                T* p = constants + int64_t(i) * stride<T>(program.widest);
                for (int j = 0; j < program.widest; j++) p[j] = T(program.constants[i]);
            }
            if (first) memset(gradients, 0, size_t(gradient_count) * sizeof(T));
        }
        for (int i = 0; i < program.n_buffers; i++) {
            const Buffer& b = program.buffers[i];
            if (b.home == Home::ONCE && !member) {
                const T* from = (const T*)run.once[b.index];
                for (int r = 0; r < share.rows; r++) copy(at[i].data + r * at[i].stride, from + int64_t(sequence(r)) * b.width, b.width);
            }
        }
        if (run.ragged && run.f0 == 0 && !member) pad();
        alive_now = run.backwards ? 0 : n_at(0);
        if (!run.backwards) {
            for (int k = 0; k < program.n_states; k++) fetch_state(k, 0, share.rows);
            leave(share.rows, alive_now);
        }
        for (uint32_t& taken : gate[member].taken) __atomic_store_n(&taken, 0, __ATOMIC_RELAXED);
        tape_row = 0;
        if (run.backwards)
            for (int r = 0; r < share.rows; r++) tape_row += Share::clipped(run, share.first + r);
        meet();
    }

    // Frames past the end of a sequence are exactly zero.
    void pad() {
        for (int i = 0; i < program.n_buffers; i++) {
            const Buffer& b = program.buffers[i];
            if (b.home != Home::OUTPUT) continue;
            for (int r = 0; r < share.rows; r++)
                for (int t = length(r); t < run.T; t++)
                    memset(outside(b) + (int64_t(t) * run.B + sequence(r)) * b.width, 0, size_t(b.width) * sizeof(T));
        }
    }

    void end() {
        if (run.backwards && alive_now < share.rows)
            for (int k = 0; k < program.n_states; k++) fetch_state(k, alive_now, share.rows);
        leave(run.backwards ? share.rows : alive_now, 0);
    }

    void fetch_state(int k, int from, int to) {
        if (member && !apart) return;
        const int w = program.states[k].width;
        const Span own = state_columns(w);
        const Rows<T> s = at[k];
        for (int r = from; r < to; r++)
            copy(s.data + r * s.stride, (const T*)run.state[k] + place(r) * w, own);
    }

    void leave(int from, int to) {  // rows [to, from) have their last state
        if (member && !apart) return;
        for (int k = 0; k < program.n_states; k++) {
            const int w = program.states[k].width;
            const Span own = state_columns(w);
            const Rows<T> s = at[k];
            for (int r = to; r < from; r++)
                copy((T*)run.last[k] + place(r) * w, s.data + r * s.stride, own);
        }
    }

    static void copy(T* to, const T* from, int n) { memcpy(to, from, size_t(n) * sizeof(T)); }
    static void copy(T* to, const T* from, Span own) { copy(to + own.lo, from + own.lo, own.hi - own.lo); }

    void chunk(int f0, int f1) {
        f_first = f0, f_end = f1, chunk_rows = 0;
        for (int f = f0; f < f1; f++) chunk_rows += n_at(f);
        if (run.backwards) tape_row -= chunk_rows;
        gather();
        meet();
        stage(Stage::HOIST);
        if (run.backwards) {
            int64_t row = chunk_rows;
            for (int f = f1 - 1; f >= f0; f--) frame(f, row -= n_at(f));
        } else {
            int64_t row = 0;
            for (int f = f0; f < f1; row += n_at(f++)) frame(f, row);
        }
        if (apart) meet();
        stage(Stage::SINK);
        contract();
        scatter();
        meet();
        if (!run.backwards) tape_row += chunk_rows;
    }

    // Points every buffer at frame f of the chunk (its first row: `row`).
    void point(int f, int64_t row) {
        for (int i = 0; i < program.n_buffers; i++) {
            const Buffer& b = program.buffers[i];
            if (b.home == Home::TAPE)
                at[i].data = (T*)run.tapes[b.index] + (share.tape + tape_row + row) * at[i].stride;
            else if (by_rows(b.home)) {
                if (direct[i])
                    at[i].data = outside(b) + (int64_t(time(f, 0)) * run.B + sequence(0)) * b.width;
                else
                    at[i].data = chunk_base[i] + row * at[i].stride;
            }
        }
    }

    T* outside(const Buffer& b) const {
        return b.home == Home::INPUT ? (T*)run.inputs[b.index] : (T*)run.outputs[b.index];
    }

    void gather() {
        for (int i = 0; i < program.n_buffers; i++) {
            const Buffer& b = program.buffers[i];
            if (b.home != Home::INPUT || direct[i] || i % run.team != member) continue;
            T* to = chunk_base[i];
            for (int f = f_first; f < f_end; f++)
                for (int r = 0, n = n_at(f); r < n; r++, to += at[i].stride)
                    copy(to, outside(b) + (int64_t(time(f, r)) * run.B + sequence(r)) * b.width, b.width);
        }
    }

    void scatter() {
        for (int i = 0; i < program.n_buffers; i++) {
            const Buffer& b = program.buffers[i];
            if (b.home != Home::OUTPUT || direct[i] || i % run.team != member) continue;
            const T* from = chunk_base[i];
            for (int f = f_first; f < f_end; f++)
                for (int r = 0, n = n_at(f); r < n; r++, from += at[i].stride)
                    copy(outside(b) + (int64_t(time(f, r)) * run.B + sequence(r)) * b.width, from, b.width);
        }
    }

    void stage(Stage which) {
        const Instruction* list = program.instructions[int(which)];
        for (int i = 0; i < program.n_instructions[int(which)]; i++) {
            if (together(list[i])) {
                point(f_first, 0);
                execute(list[i], chunk_rows);
                continue;
            }
            int64_t row = 0;
            for (int f = f_first; f < f_end; f++) {
                point(f, row);
                const int n = n_at(f);
                execute(list[i], n);
                row += n;
            }
        }
    }

    // Whether the rows of all frames of the chunk lie one behind the other.
    bool lie_together(Operand o) const {
        if (o.buffer < 0 || o.buffer == NOTHING || f_end - f_first == 1) return true;
        if (program.buffers[o.buffer].home == Home::ONCE) return false;
        return !direct[o.buffer] || (run.shares == 1 && !run.reverse);
    }

    bool together(const Instruction& in) const {
        if (!lie_together(in.d) || !lie_together(in.a) || !lie_together(in.b) || !lie_together(in.c)) return false;
        for (int i = 0; in.kind == Kind::GROUP && i < in.count; i++) {
            const Micro& m = program.micros[in.first + i];
            if (!lie_together(m.d) || !lie_together(m.a) || !lie_together(m.b) || !lie_together(m.c)) return false;
        }
        return true;
    }

    void frame(int f, int64_t row) {
        const int n = n_at(f);
        point(f, row);
        if (run.backwards && n > alive_now) {
            for (int k = 0; k < program.n_states; k++) fetch_state(k, alive_now, n);
        } else if (!run.backwards && n < alive_now) {
            leave(alive_now, n);
        }
        if (run.reset && !run.backwards && (apart || !member)) {
            for (int r = 0; r < n; r++)
                if (begins(f, r))
                    for (int k = 0; k < program.n_states; k++) {
                        const int w = program.states[k].width;
                        copy(at[k].data + r * at[k].stride, (const T*)run.initial[k] + int64_t(sequence(r)) * w, state_columns(w));
                    }
        }
        const bool before = !apart && (run.added || run.reset || n != alive_now);
        alive_now = n;
        if (before) meet();
        const Span rows = state_rows(n);
        for (int k = 0; k < program.n_states; k++) {
            const State& s = program.states[k];
            const Span own = state_columns(s.width);
            if (run.added)
                for (int r = rows.lo; r < rows.hi; r++) {
                    T* to = at[k].data + r * at[k].stride;
                    const T* more = (const T*)run.added[k] + (int64_t(time(f, r)) * run.B + sequence(r)) * s.width;
                    for (int j = own.lo; j < own.hi; j++) to[j] += more[j];
                }
            if (s.store >= 0)
                for (int r = rows.lo; r < rows.hi; r++)
                    copy(at[s.store].data + r * at[s.store].stride, at[k].data + r * at[k].stride, own);
        }
        if (before) meet();
        if (run.team == 1) find_step(f);  // teams fetch nothing
        const Instruction* list = program.instructions[int(Stage::LOOP)];
        for (int i = 0; i < program.n_instructions[int(Stage::LOOP)]; i++) execute(list[i], n, !apart);
        if (run.odd) look(mine(n));
        for (int k = 0; k < program.n_states; k++) {
            const State& s = program.states[k];
            if (s.next.buffer == k) continue;  // it stays as it is
            const Span own = state_columns(s.width);
            const Rows<T> from = at[s.next.buffer];
            for (int r = rows.lo; r < rows.hi; r++)
                copy(at[k].data + r * at[k].stride, from.data + r * from.stride + s.next.offset, own);
        }
        if (run.reset && run.backwards) {
            for (int r = rows.lo; r < rows.hi; r++)
                if (begins(f, r))
                    for (int k = 0; k < program.n_states; k++) {
                        const int w = program.states[k].width;
                        const Span own = state_columns(w);
                        T* state = at[k].data + r * at[k].stride;
                        if (T* caught = (T*)run.caught[k])
                            for (int j = own.lo; j < own.hi; j++) caught[int64_t(sequence(r)) * w + j] += state[j];
                        memset(state + own.lo, 0, size_t(own.hi - own.lo) * sizeof(T));
                    }
        }
        if (!apart) meet();
    }

    // At this frame's inputs, which have just been read: a pass of its own would fetch them once more.
    void look(Span rows) {
        constexpr int L = LANES<T>;
        Vec<T> sums[4] = {nought};  // an addition begins before the one before it is done
        for (int i = 0; i < program.n_buffers; i++) {
            const int width = program.buffers[i].width;
            if (program.buffers[i].home != Home::INPUT) continue;
            for (int r = rows.lo; r < rows.hi; r++) {
                const T* x = at[i].data + r * at[i].stride;
                int j = 0;
                for (; j + 4 * L <= width; j += 4 * L)
                    for (int k = 0; k < 4; k++) sums[k] = fma(load(x + j + k * L), Vec<T>{}, sums[k]);
                for (; j + L <= width; j += L) sums[0] = fma(load(x + j), Vec<T>{}, sums[0]);
                if (j < width) sums[0] = fma(load_part(x + j, width - j), Vec<T>{}, sums[0]);
            }
        }
        nought = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }

    // --- instructions -----------------------------------------------------------------------------------------------

    Rows<T> rows_of(Operand o) const { return {at[o.buffer].data + o.offset, at[o.buffer].stride}; }

    void execute(const Instruction& in, int rows, bool together = true) {
        if (rows) part(in, rows);
        if (together) meet();
    }

    void part(const Instruction& in, int rows) {
        switch (in.kind) {
            case Kind::GEMM: {
                const Rows<T> a = rows_of(in.a), d = rows_of(in.d);
                const Rows<T> b = in.b.buffer == NOTHING ? Rows<T>{nullptr, 0} : rows_of(in.b);
                as_they_lie<T>(run.weights, packed(in.index), [&](const auto* weights) {
                    deal(panels(in.n, PANEL<T>), widest(rows), [&](int first, int last) {
                        gemm(a.data, a.stride, rows, in.k, weights, in.n, b.data, b.stride, d.data, d.stride, first, last);
                    });
                });
                break;
            }
            case Kind::GROUP: group(in, rows); break;
            case Kind::REDUCE: reduce(in, rows); break;
            case Kind::MAP: {
                const Rows<T> a = rows_of(in.a), d = rows_of(in.d);
                const int32_t* pairs = program.pairs + 2 * int64_t(in.first);
                for (int r = mine(rows).lo; r < mine(rows).hi; r++) {
                    const T* from = a.data + r * a.stride;
                    T* to = d.data + r * d.stride;
                    for (int j = 0; j < in.count; j++) to[pairs[2 * j + 1]] = from[pairs[2 * j]];
                }
                break;
            }
        }
    }

    void* packed(int index) const {
        int64_t bytes = 0;
        for (int m = 0; m < index; m++) bytes += packed_matrix<T>(program.matrices[m], run.weights);
        return (char*)run.packed + bytes;
    }

    void group(const Instruction& in, int rows) {
        const Span span = mine(in.n, LANES<T>);
        if (span.lo == span.hi) return;
        const int columns = span.hi - span.lo < STRIP<T> ? span.hi - span.lo : STRIP<T>;
        const int at_once = STRIP<T> / columns;
        const Micro* micros = program.micros + in.first;
        for (int r = 0; r < rows; r += at_once) {
            const int R = rows - r < at_once ? rows - r : at_once;
            for (int j = span.lo; j < span.hi; j += columns) {
                const int C = span.hi - j < columns ? span.hi - j : columns;
                const auto strip = [&](Operand o) -> Rows<T> {
                    if (o.buffer == NOTHING) return {slots, 0};
                    if (o.buffer < 0) return {slots + int64_t(-1 - o.buffer) * STRIP<T>, C};
                    const Rows<T>& x = at[o.buffer];
                    return {x.data + r * x.stride + o.offset + j, x.stride};
                };
                // Where the next strip begins: beside this one, below it, or in the next frame.
                const bool beside = j + columns < span.hi, below = !beside && r + at_once < rows;
                for (int i = 0; i < in.count; i++) {
                    const Micro& m = micros[i];
                    const Rows<T> a = strip(m.a), b = strip(m.b), c = strip(m.c);
                    const Operand next = far[in.first + i];
                    const bool fetch = next.buffer != NOTHING;
                    Rows<const T> ahead{nullptr, 0};
                    if (fetch) {
                        const Rows<T>& x = at[next.buffer];
                        const T* first = x.data + next.offset;
                        ahead = {beside  ? first + r * x.stride + j + columns
                                 : below ? first + (r + at_once) * x.stride + span.lo
                                         : first + step[next.buffer] + span.lo,
                                 x.stride};
                    }
                    POINTWISE<T>[m.op][fetch](strip(m.d), {a.data, a.stride}, {b.data, b.stride}, {c.data, c.stride}, ahead, R, C);
                }
            }
        }
    }

    void reduce(const Instruction& in, int rows) {
        const Rows<T> d = rows_of(in.d), a = rows_of(in.a);
        const Rows<T> b = in.b.buffer == NOTHING ? Rows<T>{nullptr, 0} : rows_of(in.b);
        const Rows<T> c = in.c.buffer == NOTHING ? Rows<T>{nullptr, 0} : rows_of(in.c);
        const int outer = in.k, inner = in.n;
        for (int r = mine(rows).lo; r < mine(rows).hi; r++) {
            const T* x = a.data + r * a.stride;
            T* y = d.data + r * d.stride;
            for (int o = 0; o < outer; o++, x += in.op == SPREAD ? 1 : inner) {
                switch (Reduction(in.op)) {
                    case SUM: y[o] = row_sum(x, inner); break;
                    case MEAN: y[o] = row_sum(x, inner) / T(inner); break;
                    case AMAX: y[o] = row_max(x, inner); break;
                    case STANDARDIZE:
                        b.data[r * b.stride + o] = standardize(y + o * inner, x, inner, T(in.number));
                        break;
                    case STANDARDIZE_GRAD:
                        standardize_grad(y + o * inner, x, b.data + r * b.stride + o * inner, c.data[r * c.stride + o],
                                         inner);
                        break;
                    case SPREAD:
                        for (int j = 0; j < inner; j++) y[o * inner + j] = *x;
                        break;
                }
            }
        }
    }

    // --- weight gradients -------------------------------------------------------------------------------------------

    template <int W>
    void pack_operand(Operand o, int n, T* to) {
        point(f_first, 0);
        if (lie_together(o)) {
            const Rows<T> x = rows_of(o);
            const Span rows = mine(chunk_rows);
            for (int r = rows.lo; r < rows.hi; r++) pack_row<T, W>(x.data + r * x.stride, n, to, chunk_rows, r);
            return;
        }
        int64_t row = 0;
        for (int f = f_first; f < f_end; f++) {
            point(f, row);
            const Rows<T> x = rows_of(o);
            const int R = n_at(f);
            const Span rows = mine(R);
            for (int r = rows.lo; r < rows.hi; r++)
                pack_row<T, W>(x.data + r * x.stride, n, to, chunk_rows, int(row) + r);
            row += R;
        }
    }

    // result[m] += the sum over the rows of the chunk, of g or of g a
    void add_rows(Operand g, Operand a, int m, T* result) {
        constexpr int L = LANES<T>;
        const Span columns = mine(m, L);
        const bool product = a.buffer != NOTHING, whole = lie_together(g) && lie_together(a);
        for (int j = columns.lo; j < columns.hi; j += L) {
            const int n = columns.hi - j < L ? columns.hi - j : L;
            Vec<T> sum{};
            int64_t row = 0;
            for (int f = f_first; f < f_end; f += whole ? f_end - f_first : 1) {
                point(f, row);
                const Rows<T> x = rows_of(g), y = product ? rows_of(a) : x;
                const int R = whole ? chunk_rows : n_at(f);
                const T *from = x.data + j, *by = y.data + j;
                const auto at = [&](const T* p) { return n == L ? load(p) : load_part(p, n); };
                if (product)
                    for (int r = 0; r < R; r++, from += x.stride, by += y.stride) sum = fma(at(from), at(by), sum);
                else
                    for (int r = 0; r < R; r++, from += x.stride) sum += at(from);
                row += R;
            }
            if (n == L)
                store(result + j, load(result + j) + sum);
            else
                store_part(result + j, load_part(result + j, n) + sum, n);
        }
    }

    void contract() {
        const Contraction* list = program.contractions;
        for (int i = 0; i < program.n_contractions; i++) {
            const Contraction& c = list[i];
            T* result = gradients + gradient_at[c.gradient];
            if (!c.n) {
                add_rows(c.g, c.a, c.m, result);
                continue;
            }
            meet();  // nobody reads the last ones any more
            if (!i || !same_g(list[i - 1], c) || !list[i - 1].n)
                pack_operand<TILE_ROWS>(c.g, c.m, pack_g);
            pack_operand<PANEL<T>>(c.a, c.n, pack_a);
            meet();
            const int tiles = panels(c.m, TILE_ROWS), rows = tiles * TILE_ROWS;
            T* block = result + int64_t(c.head) * rows * panels(c.n, PANEL<T>) * PANEL<T>;
            deal(tiles, 1, [&](int first, int last) {
                outer<T>(pack_g + int64_t(first) * chunk_rows * TILE_ROWS, (last - first) * TILE_ROWS, pack_a, c.n,
                         chunk_rows, block + int64_t(first) * TILE_ROWS * PANEL<T>, rows);
            });
        }
        meet();
    }
};

template <class T>
void run_worker(const Program& program, const Run& run, int32_t worker, int32_t member) {
    for (int share = worker; share < run.shares; share += run.workers) Machine<T>(program, run, share, member).go();
}

template <class T>
double peak(int64_t repetitions) {
    Vec<T> acc[ACCUMULATORS];
    const Vec<T> a = splat<T>(T(1) - T(1e-6)), b = splat<T>(T(1e-7));
    for (auto& v : acc) v = b;
    for (int64_t i = 0; i < repetitions; i++) {
#pragma GCC unroll 32
        for (auto& v : acc) v = fma(v, a, b);
    }
    Vec<T> sum{};
    for (auto& v : acc) sum += v;
    volatile T keep = hsum(sum);
    (void)keep;
    return double(repetitions) * ACCUMULATORS * LANES<T> * 2;
}

}  // namespace

extern const Kernels KERNELS;
const Kernels KERNELS = {
    {stride<float>, stride<double>},
    {packed_bytes<float>, packed_bytes<double>},
    {scratch_bytes<float>, scratch_bytes<double>},
    {pack<float>, pack<double>},
    {run_worker<float>, run_worker<double>},
    {finish<float>, finish<double>},
    {peak<float>, peak<double>},
};

}  // namespace recurra::RECURRA_TARGET
