"""Programs of the native machine as tables, and what must be given to a run of one."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from recurra.kernels.rows import Extent
from recurra.steps.stages import Stage

NOTHING = 2**31 - 1
# In the order of the table in kernels/cpu/pointwise.h.
OPERATIONS = (
    "copy add sub mul div neg fma fms fnma sigmoid tanh relu exp expm1 log log1p sqrt erf abs sign maximum minimum "
    "gt ge lt le eq ne where"
).split()
REDUCTIONS = "sum mean amax standardize standardize_grad spread".split()  # as in kernels/cpu/machine.h
STAGES = (Stage.HOIST, Stage.LOOP, Stage.SINK)


class Home(IntEnum):
    """Where the rows of a buffer live, as in kernels/cpu/machine.h."""

    ROW, FRAME, CHUNK, TAPE, INPUT, OUTPUT, STATE, ONCE = range(8)


class Operand(NamedTuple):
    """Numbers into the rows of a buffer; a slot of the strip where `buffer` is negative."""

    buffer: int
    offset: int

    def __str__(self) -> str:
        if self.buffer == NOTHING:
            return "-"
        return f"slot {-1 - self.buffer}" if self.buffer < 0 else f"[{self.buffer}]+{self.offset}"


NONE = Operand(NOTHING, 0)


class Micro(NamedTuple):
    """One pointwise operation of a group: ``d = op(a, b, c)``."""

    op: str
    d: Operand
    a: Operand
    b: Operand = NONE
    c: Operand = NONE

    def table(self) -> tuple[int, ...]:
        """As the machine reads it."""
        return (OPERATIONS.index(self.op), *self.d, *self.a, *self.b, *self.c)

    def __str__(self) -> str:
        return f"{self.d} = {self.op}({', '.join(str(o) for o in (self.a, self.b, self.c) if o is not NONE)})"


class Kind(IntEnum):
    """What an instruction does, as in kernels/cpu/machine.h."""

    GEMM, GROUP, REDUCE, MAP = range(4)


@dataclass(frozen=True)
class Instruction:
    """One instruction; see kernels/cpu/machine.h for what each kind makes of the fields."""

    kind: Kind
    d: Operand = NONE
    a: Operand = NONE
    b: Operand = NONE
    c: Operand = NONE
    n: int = 0
    k: int = 0
    reduction: str = ""
    matrix: int = 0
    micros: tuple[Micro, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    number: float = 0.0

    def __str__(self) -> str:
        match self.kind:
            case Kind.GEMM:
                return f"{self.d} = {self.a} @ matrix {self.matrix} ({self.n}, {self.k}) + {self.b}"
            case Kind.GROUP:
                return "\n".join([f"{len(self.micros)} on rows of {self.n}", *(f"    {m}" for m in self.micros)])
            case Kind.REDUCE:
                read = " ".join(str(o) for o in (self.a, self.b, self.c) if o is not NONE)
                return f"{self.d} = {self.reduction} of {self.k} x {self.n} in {read}"
        return f"{self.d} = {len(self.pairs)} numbers of {self.a}"


@dataclass(frozen=True)
class Contraction:
    """Σ over rows of g ⊗ a into a gradient, for the nodes `g` and `a` of a graph; Σ g where there is no a.

    `width` is that of the last axes of g and a; the latter is 0 for Σ g a, number by number. Where they have leading
    axes, these are rows too, or heads, which have a block of the gradient each.
    """

    g: int
    a: int | None
    heads: bool = False
    width: tuple[int, int] = (0, 0)


@dataclass
class Program:
    """Instructions on row buffers, stage by stage, and what they need from outside, in order."""

    buffers: list[tuple[Home, int, int]] = field(default_factory=list)  # home, width, which of its kind
    instructions: dict[Stage, list[Instruction]] = field(default_factory=lambda: {s: [] for s in STAGES})
    states: list[tuple[int, Operand, int]] = field(default_factory=list)  # width, next value, where it is kept or -1
    contractions: list[tuple[Operand, Operand, int, int, int, int]] = field(default_factory=list)  # g a m n result head
    gradients: list[tuple[int, int, int]] = field(default_factory=list)  # m, n (0: a sum), heads
    slots: int = 0  # of the largest group
    constants: list[float] = field(default_factory=list)
    vectors: list[tuple[int, Extent]] = field(default_factory=list)  # weight nodes, expanded to a shape
    matrices: list[tuple[int, int | None]] = field(default_factory=list)  # weight nodes, and which head
    matrix_sizes: list[tuple[int, int]] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)  # positions in the graph's inputs
    outputs: list[int] = field(default_factory=list)  # nodes
    once: list[int] = field(default_factory=list)  # nodes
    tapes: list[tuple[int, int]] = field(default_factory=list)  # node, width

    def buffer(self, home: Home, width: int, index: int = 0) -> int:
        """The number of a new buffer."""
        self.buffers.append((home, width, index))
        return len(self.buffers) - 1

    def matrix(self, source: int, head: int | None, size: tuple[int, int]) -> int:
        """The number of a packed matrix."""
        if (source, head) not in self.matrices:
            self.matrices.append((source, head))
            self.matrix_sizes.append(size)
        return self.matrices.index((source, head))

    @property
    def widest(self) -> int:
        """Width of the widest group: constants are repeated as often."""
        return max((i.n for s in STAGES for i in self.instructions[s] if i.kind is Kind.GROUP), default=1)

    def tables(self) -> dict[str, object]:
        """As plain lists of numbers, for the machine."""
        micros: list[tuple[int, ...]] = []
        pairs: list[int] = []
        numbers = [0.0]
        rows: list[list[tuple[int, ...]]] = []
        for stage in STAGES:
            rows.append([])
            for i in self.instructions[stage]:
                first = len(micros) if i.kind is Kind.GROUP else len(pairs) // 2
                micros += [m.table() for m in i.micros]
                pairs += [x for pair in i.pairs for x in pair]
                numbers.append(i.number)
                op = REDUCTIONS.index(i.reduction) if i.reduction else 0
                sizes = (i.n, i.k, i.matrix, first, len(i.micros) + len(i.pairs), len(numbers) - 1)
                rows[-1].append((i.kind, op, *i.d, *i.a, *i.b, *i.c, *sizes))
        return {
            "buffers": self.buffers,
            "instructions": [[tuple(map(int, i)) for i in stage] for stage in rows],
            "numbers": numbers,
            "micros": micros,
            "pairs": pairs,
            "constants": self.constants,
            "contractions": [(*g, *a, *rest) for g, a, *rest in self.contractions],
            "gradients": self.gradients,
            "matrices": self.matrix_sizes,
            "states": [(width, *after, store) for width, after, store in self.states],
            "slots": self.slots,
            "widest": self.widest,
        }

    def __str__(self) -> str:
        rows = [f"[{k}] {home.name.lower()} {width}" for k, (home, width, _) in enumerate(self.buffers)]
        for stage in STAGES:
            rows += [f"{stage.value}: {i}" for i in self.instructions[stage]]
        rows += [f"next state {k}: {after}" for k, (_, after, _) in enumerate(self.states)]
        rows += [f"gradient {r}: {g} x {a}" for g, a, _, _, r, _ in self.contractions]
        return "\n".join(rows)
