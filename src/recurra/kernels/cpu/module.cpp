// The Python face of the machine: programs made of plain lists, runs given addresses. The global lock is free while a
// run computes; several threads may run at once.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <stdexcept>

#include "dispatch.h"
#include "launch.h"

namespace nb = nanobind;
using namespace recurra;

namespace {

using Ints = std::vector<int32_t>;
using Table = std::vector<Ints>;
using Addresses = std::vector<uint64_t>;

// Whether each number of a LOOP is made of numbers of its own column alone, column j being the j-th of every operand: then
// members of a team, each with columns of its own, need not wait for each other in a frame, nor between frames.
bool columns_apart(const Program& p) {
    const int loop = int(Stage::LOOP), count = p.n_instructions[loop];
    const int n = count ? p.instructions[loop][0].n : 0;
    std::vector<Operand> read, written;
    for (int i = 0; i < count; i++) {
        const Instruction& in = p.instructions[loop][i];
        if (in.kind != Kind::GROUP || in.n != n) return false;
        for (int m = in.first; m < in.first + in.count; m++) {
            const Micro& micro = p.micros[m];
            read.insert(read.end(), {micro.a, micro.b, micro.c}), written.push_back(micro.d);
        }
    }
    for (int k = 0; k < p.n_states; k++) {
        const State& s = p.states[k];
        if (s.width != n) return false;
        read.insert(read.end(), {{k, 0}, s.next}), written.push_back({k, 0});
        if (s.store >= 0) written.push_back({s.store, 0});
    }
    read.insert(read.end(), written.begin(), written.end());
    for (const Operand w : written)
        for (const Operand r : read)  // slots are each member's own
            if (w.buffer >= 0 && r.buffer == w.buffer && r.offset != w.offset && std::abs(r.offset - w.offset) < n) return false;
    return count > 0;
}

// A program and the lists it points to.
struct Held {
    std::vector<Buffer> buffers;
    std::vector<Instruction> instructions[STAGES];
    std::vector<Micro> micros;
    Ints pairs;
    std::vector<double> constants;
    std::vector<Contraction> contractions;
    std::vector<Gradient> gradients;
    std::vector<Matrix> matrices;
    std::vector<State> states;
    Program program{};

    Held(const Table& buffers_, const std::vector<Table>& instructions_, const std::vector<double>& numbers,
         const Table& micros_, const Ints& pairs_, const std::vector<double>& constants_, const Table& contractions_,
         const Table& gradients_, const Table& matrices_, const Table& states_, int32_t slots, int32_t widest)
        : pairs(pairs_), constants(constants_) {
        for (const auto& b : buffers_) buffers.push_back({Home(b.at(0)), b.at(1), b.at(2)});
        for (int s = 0; s < STAGES; s++)
            for (const auto& i : instructions_.at(s))
                instructions[s].push_back({Kind(i.at(0)), i.at(1), {i.at(2), i.at(3)}, {i.at(4), i.at(5)},
                                           {i.at(6), i.at(7)}, {i.at(8), i.at(9)}, i.at(10), i.at(11), i.at(12), i.at(13),
                                           i.at(14), numbers.at(size_t(i.at(15)))});
        for (const auto& m : micros_)
            micros.push_back({m.at(0), {m.at(1), m.at(2)}, {m.at(3), m.at(4)}, {m.at(5), m.at(6)}, {m.at(7), m.at(8)}});
        for (const auto& c : contractions_)
            contractions.push_back({{c.at(0), c.at(1)}, {c.at(2), c.at(3)}, c.at(4), c.at(5), c.at(6), c.at(7)});
        for (const auto& g : gradients_) gradients.push_back({g.at(0), g.at(1), g.at(2)});
        for (const auto& m : matrices_) matrices.push_back({m.at(0), m.at(1)});
        for (const auto& s : states_) states.push_back({s.at(0), {s.at(1), s.at(2)}, s.at(3)});
        program.buffers = buffers.data(), program.n_buffers = int32_t(buffers.size());
        for (int s = 0; s < STAGES; s++)
            program.instructions[s] = instructions[s].data(),
            program.n_instructions[s] = int32_t(instructions[s].size());
        program.micros = micros.data(), program.n_micros = int32_t(micros.size());
        program.pairs = pairs.data(), program.n_pairs = int32_t(pairs.size() / 2);
        program.constants = constants.data(), program.n_constants = int32_t(constants.size());
        program.contractions = contractions.data(), program.n_contractions = int32_t(contractions.size());
        program.gradients = gradients.data(), program.n_gradients = int32_t(gradients.size());
        program.matrices = matrices.data(), program.n_matrices = int32_t(matrices.size());
        program.states = states.data(), program.n_states = int32_t(states.size());
        program.slots = slots, program.widest = widest;
        program.apart = columns_apart(program);
        if (program.n_buffers > 512 || program.n_gradients > 512)
            throw std::length_error("a step program has at most 512 buffers and gradients");
    }
};

template <class T>
std::vector<T> pointers(const Addresses& addresses) {
    std::vector<T> made;
    made.reserve(addresses.size());
    for (uint64_t a : addresses) made.push_back(reinterpret_cast<T>(a));
    return made;
}

// A run's rows: how they are dealt to threads. The lists outlive it.
void deal(Run& r, const Ints& share_start, const Ints& order, const Ints& lengths, int32_t workers, int32_t team) {
    r.shares = int32_t(share_start.size()) - 1, r.workers = workers, r.team = team;
    r.share_start = share_start.data(), r.order = order.data(), r.lengths = lengths.data();
}

using Matrices = std::vector<std::array<int64_t, 3>>;

std::vector<Strided> strided(const Matrices& matrices) {
    std::vector<Strided> made;
    for (const auto& m : matrices) made.push_back({reinterpret_cast<const void*>(m[0]), m[1], m[2]});
    return made;
}

// The matrices of a program as products read them: made once, for all runs until they change.
class Packed {
   public:
    Packed(const Held& held, int wide, int weights, const Matrices& matrices, int32_t threads)
        : weights(Weights(weights)), block(size_t(packed_bytes(held.program, this->weights, wide))) {
        const auto mat = strided(matrices);
        Run r{};
        r.weights = this->weights, r.packed = block.data(), r.matrices = mat.data(), r.workers = threads, r.team = 1;
        nb::gil_scoped_release released;
        pack(held.program, r, wide);
    }

    void use(Run& r) const { r.weights = weights, r.packed = block.data(); }

   private:
    const Weights weights;
    const pool::Block block;
};

// Whether all inputs were finite, if it was to `look`.
bool run(const Held& held, int wide, const Packed& packed, const Ints& sizes, const Ints& share_start, const Ints& order,
         const Ints& lengths, uint64_t reset, const Addresses& inputs, const Addresses& outputs, const Addresses& vectors,
         const Addresses& state, const Addresses& last, const Addresses& initial,
         const Addresses& caught, const Addresses& added, const Addresses& once, const Addresses& tapes,
         const Addresses& gradients, bool look) {
    const Program& program = held.program;
    const auto in = pointers<const void*>(inputs), vec = pointers<const void*>(vectors), sta = pointers<const void*>(state),
               ini = pointers<const void*>(initial), add = pointers<const void*>(added), onc = pointers<const void*>(once);
    const auto out = pointers<void*>(outputs), las = pointers<void*>(last), cau = pointers<void*>(caught),
               tap = pointers<void*>(tapes), gra = pointers<void*>(gradients);
    Run r{};
    packed.use(r);
    r.T = sizes.at(0), r.B = sizes.at(1), r.f0 = sizes.at(2), r.F = sizes.at(3), r.backwards = sizes.at(4),
    r.reverse = sizes.at(5), r.ragged = sizes.at(6), r.chunk = sizes.at(7);
    deal(r, share_start, order, lengths, sizes.at(8), sizes.at(9));
    r.reset = reinterpret_cast<const uint8_t*>(reset);
    r.inputs = in.data(), r.outputs = out.data(), r.vectors = vec.data();
    r.state = sta.data(), r.last = las.data();
    r.initial = ini.empty() ? nullptr : ini.data();
    r.caught = cau.empty() ? nullptr : cau.data();
    r.added = add.empty() ? nullptr : add.data();
    r.once = onc.data(), r.tapes = tap.data(), r.gradients = gra.data();
    uint8_t odd = 0;
    r.odd = look ? &odd : nullptr;

    nb::gil_scoped_release released;
    r.scratch_worker = scratch_bytes(program, r, wide);
    const pool::Block scratch(size_t(r.scratch_worker) * size_t(r.workers));
    std::vector<Gate> gates(size_t(r.workers * r.team));
    r.scratch = scratch.data(), r.gates = gates.data();
    launch(program, r, wide);
    return !odd;
}

// A step held ready: its weights packed, its scratch and its threads' shares kept from one push to the next.
class Stream {
   public:
    Stream(nb::object held, int wide, int weights)
        : owner(held), program(nb::cast<const Held&>(held).program), wide(wide), weights(weights) {}

    // The weights as they are now. The vectors are used where they lie until the next refresh.
    void refresh(const Addresses& vectors_, const Matrices& matrices) {
        vectors = pointers<const void*>(vectors_);
        packed = std::make_shared<Packed>(nb::cast<const Held&>(owner), wide, weights, matrices, 1);
        packed->use(r), r.vectors = vectors.data();
    }

    // What pushes have in common from now on: T frames of B rows, and how they are dealt.
    void shape(int32_t T, int32_t B, bool ragged, int32_t chunk, const Ints& share_start_, const Ints& order_,
               const Ints& lengths_, int32_t workers, int32_t team_) {
        share_start = share_start_, order = order_, lengths = lengths_;
        team = team_;
        r.T = r.F = T, r.B = B, r.ragged = ragged, r.chunk = chunk;
        deal(r, share_start, order, lengths, workers, team);
        r.scratch_worker = scratch_bytes(program, r, wide);
        const size_t need = size_t(r.scratch_worker) * size_t(workers);
        if (need > room) scratch.reset(), scratch = std::make_unique<pool::Block>(need), room = need;
        r.scratch = scratch->data();
        gates.assign(size_t(workers * team), Gate{});
        r.gates = gates.data();
    }

    // Where states lie, what a reset puts in their place, where outputs go, and what sequences have once.
    void bind(const Addresses& state_, const Addresses& initial_, const Addresses& outputs_, const Addresses& once_,
              uint64_t reset) {
        state = pointers<void*>(state_), outputs = pointers<void*>(outputs_);
        initial = pointers<const void*>(initial_), once = pointers<const void*>(once_);
        r.state = state.data(), r.last = state.data(), r.outputs = outputs.data();
        r.initial = initial.empty() ? nullptr : initial.data(), r.once = once.data();
        r.reset = reinterpret_cast<const uint8_t*>(reset);
    }

    // False, and nothing done, where it was to `look` and an input is not finite.
    bool push(const Addresses& inputs_, uint64_t places, bool look) {
        inputs.clear();
        for (uint64_t a : inputs_) inputs.push_back(reinterpret_cast<const void*>(a));
        r.inputs = inputs.data(), r.places = reinterpret_cast<const int64_t*>(places), r.team = team;
        nb::gil_scoped_release released;
        if (look && !finite()) return false;
        launch(program, r, wide);
        return true;
    }

    Stream* fork() const { return new Stream(*this, Forked{}); }

   private:
    const nb::object owner;  // of the program
    const Program& program;
    const int wide, weights;
    Run r{};
    Ints share_start, order, lengths;
    int32_t team = 1;
    std::vector<const void*> vectors, initial, once, inputs;
    std::vector<void*> state, outputs;
    std::vector<Gate> gates;
    std::shared_ptr<Packed> packed;  // of all forks
    std::unique_ptr<pool::Block> scratch;
    size_t room = 0;

    struct Forked {};
    Stream(const Stream& other, Forked)
        : owner(other.owner), program(other.program), wide(other.wide), weights(other.weights), vectors(other.vectors),
          packed(other.packed) {
        packed->use(r), r.vectors = vectors.data();
    }

    template <class T>
    bool finite(const void* numbers, int64_t count) const {
        const T* x = static_cast<const T*>(numbers);
        T nought = 0;  // NaN, where there was one, or infinity
        for (int64_t i = 0; i < count; i++) nought += x[i] * 0;
        return nought == 0;
    }

    bool finite() const {
        for (int i = 0; i < program.n_buffers; i++) {
            const Buffer& b = program.buffers[i];
            if (b.home != Home::INPUT) continue;
            const int64_t count = int64_t(r.T) * r.B * b.width;
            const void* numbers = r.inputs[b.index];
            if (!(wide ? finite<double>(numbers, count) : finite<float>(numbers, count))) return false;
        }
        return true;
    }
};

template <class T>
nb::ndarray<nb::pytorch, T> empty(const std::vector<size_t>& shape) {
    size_t count = 1;
    for (size_t n : shape) count *= n;
    void* memory = pool::take(count ? count * sizeof(T) : 1);
    nb::capsule owner(memory, [](void* p) noexcept { pool::give(p); });
    return nb::ndarray<nb::pytorch, T>(memory, shape.size(), shape.data(), owner);
}

double peak(int wide, int threads) {  // operations a second of multiply-adds in registers
    const Kernels& kernels = dispatch::kernels();
    nb::gil_scoped_release released;
    double best = 0;
    for (int round = 0; round < 5; round++) {
        const auto began = std::chrono::steady_clock::now();
        std::vector<double> done(size_t(threads), 0.0);
        parallel(threads, [&](int i) { done[size_t(i)] = kernels.peak[wide](4'000'000); });
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
        double total = 0;
        for (double d : done) total += d;
        if (total / seconds > best) best = total / seconds;
    }
    return best;
}

}  // namespace

NB_MODULE(_native, m) {
    nb::set_leak_warnings(false);  // programs are remembered with their cells, until the process ends
    nb::class_<Held>(m, "Program")
        .def(nb::init<const Table&, const std::vector<Table>&, const std::vector<double>&, const Table&, const Ints&,
                      const std::vector<double>&, const Table&, const Table&, const Table&, const Table&, int32_t,
                      int32_t>(),
             nb::kw_only(), nb::arg("buffers"), nb::arg("instructions"), nb::arg("numbers"), nb::arg("micros"),
             nb::arg("pairs"), nb::arg("constants"), nb::arg("contractions"), nb::arg("gradients"),
             nb::arg("matrices"), nb::arg("states"), nb::arg("slots"), nb::arg("widest"))
        .def_prop_ro("apart", [](const Held& held) { return held.program.apart; });
    nb::class_<Packed>(m, "Packed").def(nb::init<const Held&, int, int, const Matrices&, int32_t>());
    nb::class_<Stream>(m, "Stream")
        .def(nb::init<nb::object, int, int>())
        .def("refresh", &Stream::refresh)
        .def("shape", &Stream::shape)
        .def("bind", &Stream::bind)
        .def("fork", &Stream::fork, nb::rv_policy::take_ownership)
        .def("push", &Stream::push);
    m.def("run", &run);
    m.def("stride", [](int wide, int32_t width) { return dispatch::kernels().stride[wide](width); });
    m.def("empty_float", &empty<float>);
    m.def("empty_double", &empty<double>);
    m.def("held", &pool::held);
    m.def("used", &pool::used);
    m.def("made", &pool::made);
    m.def("trim", &pool::trim);
    m.def("poison", &pool::poison);
    m.def("peak", &peak);
    m.def("target", &dispatch::target);
    m.def("targets", &dispatch::targets);
}
