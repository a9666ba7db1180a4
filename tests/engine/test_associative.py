"""Recurrences that are linear in their state, solved for all frames at once."""

import pytest
import torch

from recurra.cells import CELLS, Cell, HiddenState, LRUCell, MinGRUCell, RGLRUCell
from recurra.engine import EXECUTORS, explain, options, plan_for, scan
from recurra.engine.parallel import Grid, solve
from recurra.engine.scan import make_request
from recurra.errors import ExecutorError
from recurra.testing import assert_within_eps

LINEAR = ("qrnn", "min_gru", "min_lstm", "lru", "rg_lru")


@pytest.mark.parametrize("T", [1, 2, 3, 4, 5, 15, 16, 17, 30])
def test_any_number_of_frames_is_cut_into_chunks(T):
    rng = torch.Generator().manual_seed(T)
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    A = [[draw(T, 2, 3) * 0.6 for _ in range(2)] for _ in range(2)]
    A[1][0] = None
    b, start = [draw(T, 2, 3), draw(T, 2, 3)], [draw(2, 3), draw(2, 3)]
    found = solve(A, b, start)
    s = start
    for t in range(T):
        s = [sum((f[t] * v for f, v in zip(row, s, strict=True) if f is not None), b[i][t]) for i, row in enumerate(A)]
        for i in range(2):
            assert_within_eps(found[i][t], s[i], units=20)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("sizes", [(3, 3, 3), (3, 2, 2, 1), (2, 1)])
def test_a_grid_gives_packed_frames_back(sizes, backwards):
    grid = Grid(sizes, 3, backwards)
    packed = torch.arange(float(grid.count))[:, None] + 1
    spread = grid.spread(packed, -1.0)
    assert spread.shape == (len(sizes), 3, 1)
    assert (spread == -1).sum() == len(sizes) * 3 - grid.count
    assert (grid.pack(spread) == packed).all()
    first = spread[-1 if backwards else 0]
    assert first[: sizes[0], 0].tolist() == packed[: sizes[0], 0].tolist()


def test_cells_that_are_linear_say_so_and_no_others_do():
    linear = {name for name, kind in CELLS.items() if explain(kind(3, 4)).linear.startswith("yes")}
    assert linear == set(LINEAR)


def test_the_plan_takes_it_where_it_is_cheaper():
    cell = MinGRUCell(4, 16)
    dearer = EXECUTORS["associative"].dearer
    of = lambda T, B: make_request(cell, torch.zeros(T, B, 4))
    assert dearer(of(64, 2)) == ""
    assert "cheaper below 48 frames" in dearer(of(20, 2))
    assert "hold more than 1024 numbers" in dearer(of(64, 100))
    assert "not linear in its state" in plan_for(CELLS["lstm"](4, 16), torch.zeros(64, 2, 4)).against["associative"]


def test_what_is_not_linear_is_refused():
    with options(executor="associative"), pytest.raises(ExecutorError, match="not linear in its state, unit by unit"):
        scan(CELLS["gru"](3, 4), torch.zeros(5, 2, 3))


@pytest.mark.parametrize("make", [MinGRUCell, LRUCell, RGLRUCell])
def test_long_sequences_do_not_drift(make):
    torch.manual_seed(0)
    cell, x = make(3, 8).double(), torch.randn(3001, 2, 3, dtype=torch.float64)
    reset = torch.rand(3001, 2) < 0.001
    found = {}
    for executor in ("associative", "reference"):
        with torch.no_grad(), options(executor=executor):
            found[executor] = scan(cell, x, lengths=torch.tensor([3001, 1777]), reset=reset)[0]
    assert_within_eps(found["associative"], found["reference"], units=40)


def test_saving_less_solves_piece_by_piece():
    cell, x = MinGRUCell(3, 8).double(), torch.randn(100, 2, 3, dtype=torch.float64)
    gradients = []
    for save in ("all", "sqrt", 2000):
        leaf = x.clone().requires_grad_()
        with options(executor="associative", save=save):
            scan(cell, leaf)[0].square().sum().backward()
        gradients.append(leaf.grad)
    assert_within_eps(gradients[1], gradients[0], units=20)
    assert_within_eps(gradients[2], gradients[0], units=20)


class Chosen(Cell[HiddenState]):
    """A factor that is chosen between two numbers, one of which no float32 holds."""

    def step(self, x, state):
        h = torch.where(x > 0, 0.1 * state.h, state.h / 3) - x
        return h, HiddenState(h)


def test_numbers_in_choices_are_not_rounded():
    x = torch.randn(50, 2, 4, dtype=torch.float64)
    with options(executor="associative"):
        found, _ = scan(Chosen(4, 4), x)
    with options(executor="reference"):
        assert_within_eps(found, scan(Chosen(4, 4), x)[0])
