"""From a staged step to a program of the native machine: where each value lives, and who writes it there.

What is read side by side by a product or a reduction, in another stage, or from outside has a buffer; it is computed
there at once where that can be, and copied there where it is needed in several places.
"""

from collections.abc import Sequence

from recurra.kernels.program import NONE, STAGES, Contraction, Home, Instruction, Kind, Micro, Operand, Program
from recurra.kernels.rows import Range, Row, rows_of
from recurra.kernels.schedule import POINTWISE, WHOLE, Copy, Item, Piece, Schedule, cut, inline, live
from recurra.shapes import extent
from recurra.steps.stages import Stage, Staged

Ranges = tuple[Range, ...]


def lower(
    staged: Staged,
    *,
    outputs: Sequence[int],
    keep: Sequence[int] = (),
    taped: Sequence[int] = (),
    contractions: Sequence[Contraction] = (),
    within: bool = True,
) -> Program:
    """The program of a staged graph.

    Args:
        staged: the step, forward or backward.
        outputs: nodes whose value of every frame goes outside.
        keep: nodes whose value of every frame is kept on a tape, in this order.
        taped: inputs, by position, that come from tapes instead, in this order, behind those kept.
        contractions: sums over all rows, for weight gradients.
        within: pointwise work is done inside of the loop wherever it can be: worth it where a frame has many rows. The
            bits of the results are the same.
    """
    return _Lowering(staged, list(dict.fromkeys(outputs)), keep, taped, contractions, within).program


class _Lowering:
    def __init__(
        self,
        staged: Staged,
        outputs: Sequence[int],
        keep: Sequence[int],
        taped: Sequence[int],
        contractions: Sequence[Contraction],
        within: bool,
    ):
        self.graph, self.program, self.made = staged.graph, Program(), rows_of(staged)
        self.rows = self.made.rows
        self.outputs, self.keep, self.taped, self.contractions = outputs, keep, taped, contractions
        self.own: dict[int, int] = {}  # row -> the buffer of its own
        self.store: dict[int, int] = {}  # state -> the buffer that keeps it frame by frame
        self.together: dict[Ranges, int] = {}  # ranges that must lie side by side -> how far: 1 a frame, 2 a chunk
        self.where: dict[Ranges, int] = {}  # the same -> buffer
        self.targets: dict[int, list[tuple[int, int, Operand]]] = {}  # pointwise row -> ranges, and where they go
        self.copies: list[Copy] = []
        self.filled: dict[Ranges, list[Copy]] = {}

        wanted = [*outputs, *keep, *(i for c in contractions for i in (c.g, c.a) if i is not None)]
        ends = {self._row(i) for i in wanted}
        states = {self._row(i) for i in self.graph.next_states}
        self.alive = live(self.made, [*ends, *states, *(self._row(s) for s in self.graph.states)])
        if within:
            inline(self.made, self.alive, ends, states)
        self._leaves()
        self._demand()
        self._place()
        made_of = [*self.together, *(tuple(self.made.resolve(self._row(i))) for i in (*keep, *outputs))]
        cuts = cut(self.made, self.alive, made_of)
        self.schedule = Schedule(self.made, self.alive, cuts, self.copies, self.filled)
        self._emit()
        self._finish()

    def _row(self, node: int) -> int:
        """The row of a node; a weight or a number may be an end of the step too."""
        if node not in self.made.of:
            n = self.graph.nodes[node]
            size = extent(n.shape)
            number = Row("number", 1, Stage.WEIGHT, number=n.attrs if n.op == "const" else 0.0)
            width = 1
            for d in size:
                width *= d
            vector = Row("vector", width, Stage.WEIGHT, source=node, extent=size)
            self.made.of[node] = self.made.add(number if n.op == "const" else vector)
        return self.made.of[node]

    # --- what is given, and what is needed side by side ---------------------------------------------------------------

    def _leaves(self) -> None:
        p = self.program
        for k, s in enumerate(self.graph.states):  # states are the first buffers
            self.own[self._row(s)] = p.buffer(Home.STATE, self.rows[self._row(s)].width, k)
        width = lambda node: self.rows[self._row(node)].width
        position = {self._row(i): k for k, i in enumerate(self.graph.inputs)}
        p.tapes = [(i, width(i)) for i in (*self.keep, *(self.graph.inputs[k] for k in self.taped))]
        ordered = sorted(self.alive)
        for i in ordered:
            row = self.rows[i]
            if row.op == "input" and position[i] in self.taped:
                self.own[i] = p.buffer(Home.TAPE, row.width, len(self.keep) + self.taped.index(position[i]))
            elif row.op == "input":
                p.inputs.append(position[i])
                self.own[i] = p.buffer(Home.INPUT, row.width, len(p.inputs) - 1)
            elif row.op == "once":
                p.once.append(row.source)
                self.own[i] = p.buffer(Home.ONCE, row.width, len(p.once) - 1)
            elif row.op == "number":
                p.constants.append(row.number)
                self.own[i] = p.buffer(Home.ROW, 1, len(p.constants) - 1)
        for i in ordered:  # behind the constants
            row = self.rows[i]
            if row.op == "vector":
                p.vectors.append((row.source, row.extent))
                self.own[i] = p.buffer(Home.ROW, row.width, len(p.constants) + len(p.vectors) - 1)

    def _demand(self) -> None:
        for i in self.alive:
            row = self.rows[i]
            if row.op in WHOLE:
                for a in row.args:
                    self._need(a, row.stage)
            elif row.op in POINTWISE and row.stage is not Stage.LOOP:
                for b, _, _ in (r for a in row.args for r in self.made.resolve(a)):
                    if self.rows[b].op == "state":
                        self._stored(b)
                    elif self.rows[b].op in WHOLE:
                        self.together[((b, 0, self.rows[b].width),)] = 2
        for c in self.contractions:
            for node in (c.g, c.a):
                if node is not None:
                    self._need(self._row(node), Stage.SINK)
        for s, node in zip(self.graph.states, self.graph.next_states, strict=True):
            if self.made.resolve(self._row(node)) != self.made.resolve(self._row(s)):
                self._need(self._row(node), Stage.LOOP, state=True)

    def _need(self, i: int, stage: Stage, *, state: bool = False) -> None:
        """A row must lie side by side when a stage reads it; `state`: when it becomes the next state."""
        ranges = tuple(self.made.resolve(i))
        b, op = ranges[0][0], self.rows[ranges[0][0]].op
        if len(ranges) == 1:
            if op in ("input", "once") or (not state and (op == "vector" or (op == "state" and stage is Stage.LOOP))):
                return  # it does
            if op == "state" and not state:
                self._stored(b)
                return
            if op in WHOLE:
                ranges = ((b, 0, self.rows[b].width),)
        self.together[ranges] = max(self.together.get(ranges, 0), 1 if stage is Stage.LOOP else 2)

    def _stored(self, state: int) -> None:
        if state not in self.store:
            self.store[state] = self.program.buffer(Home.CHUNK, self.rows[state].width)

    # --- buffers ------------------------------------------------------------------------------------------------------

    def _place(self) -> None:
        p = self.program
        for k, node in enumerate(self.outputs):
            p.outputs.append(node)
            self._aim(node, Home.OUTPUT, k)
        for k, node in enumerate(self.keep):
            row = self._row(node)
            if self.rows[row].op != "state":
                self._aim(node, Home.TAPE, k)
                continue
            self._stored(row)
            p.buffers[self.store[row]] = (Home.TAPE, self.rows[row].width, k)
        for ranges, reach in self.together.items():
            if ranges not in self.where:
                local = reach == 1 and all(self._in_loop(b) for b, _, _ in ranges)
                width = sum(hi - lo for _, lo, hi in ranges)
                self._fill(ranges, p.buffer(Home.FRAME if local else Home.CHUNK, width))
        for i in self.alive:
            made = self.rows[i]
            if made.op in WHOLE and i not in self.own:  # read by pointwise work of its own stage, or by the loop
                self.own[i] = p.buffer(Home.FRAME if made.stage is Stage.LOOP else Home.CHUNK, made.width)

    def _in_loop(self, b: int) -> bool:
        row = self.rows[b]
        return row.stage is Stage.LOOP or row.op in ("vector", "number", "once", "input", "state")

    def _aim(self, node: int, home: Home, index: int) -> None:
        row = self._row(node)
        self._fill(tuple(self.made.resolve(row)), self.program.buffer(home, self.rows[row].width, index))

    def _fill(self, ranges: Ranges, buffer: int) -> None:
        """Has these ranges written side by side into a buffer; the first such buffer is where they are then read."""
        self.where.setdefault(ranges, buffer)
        home, at = self.program.buffers[buffer][0], 0
        for b, lo, hi in ranges:
            row, to = self.rows[b], Operand(buffer, at)
            if row.op in POINTWISE:
                self.targets.setdefault(b, []).append((lo, hi, to))
            elif row.op in WHOLE and len(ranges) == 1 and (lo, hi) == (0, row.width) and b not in self.own:
                self.own[b] = buffer
            else:
                loop = row.op == "state" or home is Home.FRAME
                stage = row.stage if row.op in WHOLE else Stage.LOOP if loop else Stage.HOIST
                self.copies.append(Copy((b, lo, hi), to, stage))
                self.filled.setdefault(ranges, []).append(self.copies[-1])
            at += hi - lo

    # --- instructions -------------------------------------------------------------------------------------------------

    def _emit(self) -> None:
        groups = [(stage, group) for stage in STAGES for group in self.schedule.groups(stage)]
        self.at: dict[Piece, list[Operand]] = {}
        for i in sorted(self.schedule.cuts):
            for piece in self.schedule.pieces(i):
                for lo, hi, to in self.targets.get(i, []):
                    if lo <= piece.lo and piece.hi <= hi:
                        self.at.setdefault(piece, []).append(Operand(to.buffer, to.offset + piece.lo - lo))
        self._settle(groups)
        for stage, items in groups:
            whole = [x for x in items if isinstance(x, int)]
            light = [x for x in items if not isinstance(x, int)]
            for x in whole:
                self._whole(stage, x)
            if light:
                self._group(stage, light)

    def _settle(self, groups: Sequence[tuple[Stage, Sequence[Item]]]) -> None:
        """Gives a buffer to every piece that another group reads."""
        group_of = {x: k for k, (_, items) in enumerate(groups) for x in items}
        homes: dict[Piece, Home] = {}
        for k, (stage, items) in enumerate(groups):
            pieces = {
                w for x in items if not isinstance(x, int) for w in self.schedule.waits(x) if isinstance(w, Piece)
            }
            for w in sorted(pieces):
                if group_of[w] == k:
                    continue
                far = stage is not Stage.LOOP or groups[group_of[w]][0] is not Stage.LOOP
                at = self.at.get(w)
                if not at or (far and self.program.buffers[at[0].buffer][0] is Home.FRAME):
                    homes[w] = Home.CHUNK if far else homes.get(w, Home.FRAME)
        buffers: dict[tuple[int, Home], int] = {}
        for piece, home in homes.items():
            if (piece.row, home) not in buffers:
                buffers[piece.row, home] = self.program.buffer(home, self.rows[piece.row].width)
            self.at.setdefault(piece, []).insert(0, Operand(buffers[piece.row, home], piece.lo))

    def _side_by_side(self, i: int, stage: Stage) -> Operand:
        """Where the whole of a row lies."""
        ranges = tuple(self.made.resolve(i))
        b, lo, _ = ranges[0]
        if len(ranges) == 1 and self.rows[b].op == "state" and stage is not Stage.LOOP:
            return Operand(self.store[b], lo)  # the loop's own copy, for another state's sake, is of its last frame
        buffer = self.where.get(ranges)
        if buffer is None or (stage is not Stage.LOOP and self.program.buffers[buffer][0] is Home.FRAME):
            return Operand(self.own[b], lo)  # of a vector too a state may have a copy of its own
        return Operand(buffer, 0)

    def _whole(self, stage: Stage, i: int) -> None:
        row, out = self.rows[i], self.program.instructions[stage]
        d = Operand(self.own[i], 0)
        a, b, c = (*(self._side_by_side(a, stage) for a in row.args), NONE, NONE)[:3]
        match row.op:
            case "product":
                n, k = row.outer, row.inner
                for block, head in row.blocks:
                    addend = b if b is NONE else Operand(b.buffer, b.offset + block * n)
                    matrix = self.program.matrix(row.source, head, (n, k))
                    d, x = Operand(self.own[i], block * n), Operand(a.buffer, a.offset + block * k)
                    out.append(Instruction(Kind.GEMM, d, x, addend, NONE, n, k, matrix=matrix))
            case "reduce" if row.reduction == "inverse_deviation":
                pass  # the standardisation that reads it leaves it there
            case "reduce":
                n, k = row.inner, row.outer
                out.append(Instruction(Kind.REDUCE, d, a, b, c, n, k, reduction=row.reduction, number=row.number))
            case _:
                out.append(Instruction(Kind.MAP, d, a, pairs=row.pairs))

    def _group(self, stage: Stage, items: Sequence[Piece | Copy]) -> None:
        last = {w: k for k, x in enumerate(items) for w in self.schedule.waits(x)}  # who is the last to read
        slot: dict[Piece, int] = {}
        free: list[int] = []
        micros: list[Micro] = []
        count = 0
        for k, x in enumerate(items):
            reads = [self._read(r, stage, slot) for r in self.schedule.reads(x)]
            for w in {w for w in self.schedule.waits(x) if isinstance(w, Piece) and w in slot and last[w] == k}:
                free.append(slot.pop(w))
            if isinstance(x, Copy):
                micros.append(Micro("copy", x.to, *reads))
                continue
            to = self.at.get(x, [])
            if not to:
                if x not in last:
                    continue  # nobody reads it
                if not free:
                    free.append(count)
                    count += 1
                slot[x] = free.pop()
                to = [Operand(-1 - slot[x], 0)]
            micros.append(Micro(self.rows[x.row].op, to[0], *reads))
            micros += [Micro("copy", more, to[0]) for more in to[1:]]
        self.program.slots = max(self.program.slots, count)
        if micros:
            width = self.schedule.width(items[0])
            self.program.instructions[stage].append(Instruction(Kind.GROUP, n=width, micros=tuple(micros)))

    def _read(self, source: Range, stage: Stage, slot: dict[Piece, int]) -> Operand:
        b, lo, hi = source
        if b not in self.schedule.cuts:
            keeps = self.store if self.rows[b].op == "state" and stage is not Stage.LOOP else self.own
            return Operand(keeps[b], lo)
        if (piece := Piece(b, lo, hi)) in slot:
            return Operand(-1 - slot[piece], 0)
        whole = next(p for p in self.schedule.pieces(b) if p.lo <= lo and hi <= p.hi)
        to = self.at[whole][0]
        return Operand(to.buffer, to.offset + lo - whole.lo)

    def _finish(self) -> None:
        """What becomes of states, and the sums over all rows."""
        p = self.program
        for s, node in zip(self.graph.states, self.graph.next_states, strict=True):
            after = self._side_by_side(self._row(node), Stage.LOOP)
            p.states.append((self.rows[self._row(s)].width, after, self.store.get(self._row(s), -1)))
        for result, c in enumerate(self.contractions):
            g, whole, (m, n) = self._side_by_side(self._row(c.g), Stage.SINK), self.rows[self._row(c.g)].width, c.width
            a = NONE if c.a is None else self._side_by_side(self._row(c.a), Stage.SINK)
            if not n:
                p.gradients.append((whole, 0, 1))
                p.contractions.append((g, a, whole, 0, result, 0))
                continue
            count = whole // m
            p.gradients.append((m * count, n, count) if c.heads else (m, n, 1))
            for block in range(count):
                one, other = Operand(g.buffer, g.offset + block * m), Operand(a.buffer, a.offset + block * n)
                p.contractions.append((one, other, m, n, result, block if c.heads else 0))
        p.contractions.sort(key=lambda c: c[0])  # those of one g side by side: it is packed once
