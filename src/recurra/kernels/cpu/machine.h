// What a step program is, and what one run of it is given: plain data, shared by all targets.
//
// A program is a list of instructions on row buffers. A row is one sequence at one frame; a row buffer has `width`
// numbers a row. Letters: T frames, B sequences, F processed frames, R rows of a share at a frame, N rows of a chunk.
//
// A share is a part of the batch that runs over all frames without waiting for others. A worker runs its shares one after
// the other: one thread, or a team, whose members split the units of each instruction, and wait for each other between
// two; of products, those who are done take pieces of slower ones. In a LOOP whose columns are apart they do not wait.
// Time is run in chunks: HOIST for all rows of a chunk, LOOP frame by frame, SINK for all rows, then the weight gradients'
// contractions while the chunk is in cache.
#pragma once

#include <cstdint>

namespace recurra {

// Where the rows of a buffer live.
enum class Home : int32_t {
    ROW,     // one row for all: a vector of weights, or a constant
    FRAME,   // scratch, of one frame
    CHUNK,   // scratch, of the rows of a chunk
    TAPE,    // kept from the forward run to the backward one: the packed rows of all frames
    INPUT,   // (T, B, width) from outside
    OUTPUT,  // (T, B, width) to outside
    STATE,   // of the frame that runs
    ONCE,    // (B, width) from outside: one row a sequence
};

struct Buffer {
    Home home;
    int32_t width;  // numbers a row
    int32_t index;  // which vector, tape, input, output, state, once; constants are the first vectors
};

enum class Stage : int32_t { HOIST, LOOP, SINK };
constexpr int STAGES = 3;

enum class Kind : int32_t { GEMM, GROUP, REDUCE, MAP };

// An operand: `offset` numbers into the rows of a buffer; a slot of the strip where buffer < 0 (-1 - slot).
struct Operand {
    int32_t buffer;
    int32_t offset;
};
constexpr int32_t NOTHING = INT32_MAX;

// One elementwise operation of a group: d = op(a, b, c).
struct Micro {
    int32_t op;
    Operand d, a, b, c;
};

// GEMM    c[rows, n] = (b or 0) + a[rows, k] @ matrix[index]
// GROUP   `count` micro operations from `first` on rows of `n` numbers, strip by strip
// REDUCE  op: d[outer] of a[outer, inner]; d[outer, inner] of a[outer] where it is spread. STANDARDIZE: d[outer, inner],
//         and the factors 1 / deviation into b[outer]; STANDARDIZE_GRAD: of a, the result b and the factors c
// MAP     d[to] = a[from] for `count` pairs from `first`
struct Instruction {
    Kind kind;
    int32_t op;
    Operand d, a, b, c;
    int32_t n, k;          // columns and depth of a product; width of a group; outer and inner of a reduction
    int32_t index;         // the matrix of a product
    int32_t first, count;  // micro operations, or pairs of a map
    double number;         // epsilon of a standardisation
};

enum Reduction : int32_t { SUM, MEAN, AMAX, STANDARDIZE, STANDARDIZE_GRAD, SPREAD };

// Σ over rows of g[m] ⊗ a[n]; where n is 0, Σ g[m] a[m], or Σ g[m] where a.buffer is NOTHING. Those with one g stand
// side by side.
struct Contraction {
    Operand g, a;
    int32_t m, n;
    int32_t gradient;  // which result
    int32_t head;      // which block of its rows
};

struct Gradient {
    int32_t m, n;   // (m, n); n is 0 for sums
    int32_t heads;  // blocks of rows that contractions fill one by one
};

struct Matrix {
    int32_t n, k;
};

// What becomes of a state between frames. State k is buffer k.
struct State {
    int32_t width;
    Operand next;   // where the step leaves it
    int32_t store;  // a CHUNK or TAPE buffer that keeps it as it was before each frame, or -1
};

struct Program {
    const Buffer* buffers;
    const Instruction* instructions[STAGES];
    const Micro* micros;
    const int32_t* pairs;  // from, to
    const double* constants;  // the numbers of the constant vectors
    const Contraction* contractions;
    const Gradient* gradients;
    const Matrix* matrices;
    const State* states;
    int32_t n_buffers, n_instructions[STAGES], n_micros, n_pairs, n_constants, n_contractions, n_gradients, n_matrices, n_states;
    int32_t slots;       // of the largest group
    int32_t widest;      // width of the widest group: how long constant vectors are
    bool apart;          // no column of the LOOP reads another: see module.cpp
};

// How packed matrices lie in memory. They are computed with as numbers of the run's own type. Doubles stay WHOLE.
enum class Weights : int32_t { WHOLE, BFLOAT16, INT8 };

// Where a weight matrix lies: element (n, k) at data + n * row + k * column.
struct Strided {
    const void* data;
    int64_t row, column;
};

// Where the members of a team wait for each other, and what has been taken of a member's part of a product: of this one,
// and of the one before it, in turn.
struct alignas(64) Gate {
    uint32_t arrived, passed, taken[2];
};

// One run over frames [0, F) of rows in processing order. All pointers belong to the caller and outlive the run; none of
// those written to overlaps another, but where it says so.
struct Run {
    int32_t T, B, F;
    int32_t backwards;  // frames from the last to the first: a backward program
    int32_t reverse;    // time runs from each sequence's last valid frame to its first
    int32_t ragged;     // lengths were given
    int32_t shares;
    int32_t workers;    // share s belongs to worker s % workers
    int32_t team;       // threads of a worker
    int32_t chunk;      // rows of a chunk, about
    int32_t f0;         // the frame of the sequences with which this run begins
    const int32_t* share_start;  // (shares + 1) into order
    const int32_t* order;        // (B) the sequence of each row, those of a share together, longest first
    const int64_t* places;       // (B) where the state of each sequence lies among the rows of `state` and `last`, or null
    const int32_t* lengths;      // (B) frames of each row, in the order of `order`, from frame 0
    const uint8_t* reset;        // (T, B) or null
    const void* const* inputs;   // (T, B, width)
    void* const* outputs;        // (T, B, width); frames past the end are not written
    const void* const* vectors;  // (width)
    const Strided* matrices;
    const void* const* state;    // (B, width) before the first processed frame
    void* const* last;           // (B, width) after the last; may be `state`
    const void* const* initial;  // (B, width) what a reset puts in place of the state; null without
    void* const* caught;         // (B, width) backwards: adds up the cotangents of `initial`; null without
    const void* const* added;    // (T, B, width) backwards: cotangents of the states of every frame; null without
    const void* const* once;     // (B, width) values of a sequence
    void* const* tapes;          // (rows, stride): rows packed share by share, frame by frame
    void* const* gradients;      // (m, n) results of the contractions
    uint8_t* odd;                // becomes 1 where a frame of an input holds NaN or infinity; null: nobody asks
    Weights weights;
    void* packed;                // matrices, packed
    void* scratch;               // of all workers
    int64_t scratch_worker;      // bytes of one
    Gate* gates;                 // one a thread; a team waits at its first
    void (*sleep)(Gate&, uint32_t passed);  // until the gate has been passed more often than that
    void (*wake)(Gate&);
};

// The functions of a target; [0] for float, [1] for double.
struct Kernels {
    int64_t (*stride[2])(int32_t width);  // numbers from row to row of a tape
    int64_t (*packed_bytes[2])(const Program&, Weights);
    int64_t (*scratch_bytes[2])(const Program&, const Run&);
    void (*pack[2])(const Program&, const Run&, int32_t part, int32_t parts);     // a part of the panels
    void (*run[2])(const Program&, const Run&, int32_t worker, int32_t member);   // the worker's shares, all frames
    void (*finish[2])(const Program&, const Run&, int32_t part, int32_t parts);   // sums gradients over the workers
    double (*peak[2])(int64_t repetitions);  // multiply-adds of registers alone: operations done
};

}  // namespace recurra
