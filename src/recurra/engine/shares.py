"""How a batch is dealt to threads, for executors that run rows of it on their own."""

from dataclasses import dataclass
from functools import cached_property

from recurra.shapes import numel
from recurra.steps.ops import Kind
from recurra.steps.stages import Stage, Staged

_CORE_CACHE = 512 << 10  # bytes of weights that a core may keep to itself
_TEAM_ROWS = 16  # rows that are worth reading weights for that it cannot keep
_TEAM_BYTES = 64 << 10  # of weights outside of the loop that are worth a team, where it does not wait in the loop
_BLOCK_ROWS = 48  # rows of a share, about, where weights stay in that cache: what a frame makes of them stays there too


@dataclass(frozen=True)
class Shares:
    """Which rows run in which frames, and who runs them."""

    T: int
    B: int
    reverse: bool
    shares: int
    workers: int  # how many shares run at a time; each worker runs its own one after the other
    team: int  # threads of a worker
    lengths: tuple[int, ...] | None

    @cached_property
    def order(self) -> list[int]:
        """The sequence of each row: those of a share together, longest first; shares are dealt like cards."""
        if self.lengths is None:
            return list(range(self.B))
        by_length = sorted(range(self.B), key=lambda b: -self.lengths[b])  # type: ignore[index]
        return [b for s in range(self.shares) for b in by_length[s :: self.shares]]

    @cached_property
    def share_start(self) -> list[int]:
        """Where each share begins among the rows."""
        if self.lengths is None:
            return [self.B * s // self.shares for s in range(self.shares + 1)]
        sizes = [len(range(s, self.B, self.shares)) for s in range(self.shares)]
        return [sum(sizes[:s]) for s in range(self.shares + 1)]

    @cached_property
    def row_lengths(self) -> list[int]:
        """The frames of each row."""
        return [self.T] * self.B if self.lengths is None else [self.lengths[b] for b in self.order]

    @cached_property
    def most(self) -> int:
        """The frames of the longest sequence."""
        return max(self.row_lengths, default=0)

    def rows(self, first: int, last: int) -> int:
        """How many valid frames lie in a piece of time."""
        return sum(min(max(n - first, 0), last - first) for n in self.row_lengths)


def weights_of(staged: Staged, *stages: Stage) -> int:
    """How many numbers the matrices have that these stages read."""
    graph = staged.graph
    products = [n for i, n in graph if n.kind is Kind.CONTRACTION and staged.stage[i] in stages]
    return sum(numel(graph.nodes[n.args[1]].shape) for n in products)


def loop_weights(staged: Staged) -> int:
    """How many numbers the matrices have that every frame reads."""
    return weights_of(staged, Stage.LOOP)


def team_weights(staged: Staged) -> int:
    """How many numbers all matrices have, where no unit of the loop reads another: 0 elsewhere."""
    graph = staged.graph
    loop = staged.nodes(Stage.LOOP)
    widths = {numel(graph.nodes[i].shape) for i in (*loop, *graph.states)}
    apart = len(widths) == 1 and all(graph.nodes[i].kind is Kind.POINTWISE for i in loop)
    return weights_of(staged, Stage.HOIST, Stage.SINK) if apart else 0


def split(B: int, threads: int, loop_bytes: int, team_bytes: int = 0) -> tuple[int, int, int]:
    """How many shares the batch is cut into, how many workers run them, and how many threads a worker has.

    Rows alone need no waiting. But where the weights of the loop outgrow a core's own cache, each share reads them anew
    in every frame: then few rows are better kept together, and their units split. So they are where rows are fewer than
    threads, and only the products outside of the loop have to wait.
    """
    if loop_bytes < _CORE_CACHE:
        workers = max(1, min(threads, B))
        team = threads // workers if team_bytes >= _TEAM_BYTES else 1
        return workers * max(1, round(B / workers / _BLOCK_ROWS)), workers, team
    workers = max(1, min(threads, B // _TEAM_ROWS))
    return workers, workers, max(1, threads // workers)
