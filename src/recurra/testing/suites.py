"""Conformance as test classes: subclass one, say what is under test, and pytest runs the rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recurra.cells import CELLS, Cell
from recurra.engine import EXECUTORS, options, scan
from recurra.engine.derive import derive
from recurra.errors import ExecutorError
from recurra.kernels.cpu import native
from recurra.testing.assertions import allowance, assert_within_eps, relative_error
from recurra.testing.cases import CASES, Case, Scan, contracting, make_scan

CHOOSY = ("torch", "associative")  # executors that may refuse a cell of the vocabulary
DTYPES = (torch.float64, torch.float32, torch.bfloat16)
SHAPES = ((1, 1, 1, 1), (2, 3, 5, 7), (9, 4, 6, 5))  # (T, B, D, H): odd sizes first
LONG = (33, 5, 17, 31)
_DRAWS = 16  # runs of the plain loop whose worst error is the measure, where a difference of like numbers decides


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that torch, or the native machine's pool, hands out uninitialised holds NaN."""
    before, machine = torch.are_deterministic_algorithms_enabled(), native()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan().all()
    if machine:
        machine.poison(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        if machine:
            machine.poison(False)


def _compare(made: Scan, executor: str, dtype: torch.dtype, save: str | int = "all") -> None:
    """Against the plain loop in float64, measured by the plain loop in the same dtype."""
    try:
        with poisoned():
            got = made.results(executor, dtype, save)
    except ExecutorError as refusal:
        pytest.skip(str(refusal).splitlines()[0])  # a refusal is a value with a reason, never a wrong number
    reference = made.results("reference", torch.float64)
    # Float64 has nothing to be measured against; float32 shows by how many of its roundings a loop goes astray here.
    measured = torch.float32 if dtype is torch.float64 else dtype
    errors = lambda results: {name: relative_error(results[name], ref) for name, ref in reference.items()}
    assert got.keys() == reference.keys()
    off, own = errors(got), errors(made.results("reference", measured))
    for k in range(_DRAWS):  # where a difference of like numbers decides, one run of the loop is one draw of its error
        if all(off[name] <= allowance(own[name]) for name in off):
            break
        again = errors(made.moved(k, measured).results("reference", measured))
        own = {name: max(own[name], again[name]) for name in own}
    for name, ref in reference.items():
        assert got[name].dtype == dtype
        assert_within_eps(got[name], ref, own=own[name], what=name)
    if "lengths" in made.arguments:  # a norm would not see a little in the padding
        padding = torch.arange(len(made.x[0]))[:, None] >= made.arguments["lengths"]
        for name in ("y", *(f"d x{k}" for k in range(len(made.x)))):
            assert (got[name][padding] == 0).all(), (
                f"{name} is off by something in padding, where it must be exactly zero"
            )


class ExecutorConformance:
    """What an executor must hold for a cell: subclass, set `executor` and `make`.

    Every result and every gradient under random cotangents, in three dtypes, odd shapes and each way in which a scan
    can be asked for, is within 8 rounding steps of the plain loop in float64, or 3 times the plain loop's own error.

    Example:
        >>> class TestStagedLSTM(ExecutorConformance):
        ...     executor = "staged"
        ...     make = staticmethod(CELLS["lstm"])
    """

    executor: ClassVar[str] = "staged"
    make: ClassVar[Any]  # (D, H) -> Cell
    draw: ClassVar[Any] = staticmethod(contracting)

    @pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
    @pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "T{}-B{}-D{}-H{}".format(*s))
    @pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
    def test_equals_the_plain_loop(self, case: Case, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Every output and gradient."""
        _compare(make_scan(self.make, shape, case, dtype, draw=self.draw), self.executor, dtype)

    @pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
    @pytest.mark.parametrize("case", [c for c in CASES if c.name.startswith(("plain", "every"))], ids=lambda c: c.name)
    def test_equals_the_plain_loop_over_time(self, case: Case, dtype: torch.dtype) -> None:
        """Errors do not grow faster than the plain loop's own."""
        _compare(make_scan(self.make, LONG, case, dtype, draw=self.draw), self.executor, dtype)

    @pytest.mark.parametrize("save", ["sqrt", 1, 4000])
    @pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
    def test_saving_less_changes_nothing(self, case: Case, save: str | int) -> None:
        """What is computed again is the same."""
        _compare(make_scan(self.make, (17, 3, 4, 5), case, draw=self.draw), self.executor, torch.float64, save)

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(
        shape=st.tuples(st.integers(0, 12), st.integers(1, 5), st.integers(1, 4), st.integers(2, 6)),
        flags=st.tuples(*[st.booleans()] * 5),
        seed=st.integers(0, 2**16),
    )
    def test_any_shape_and_mask(self, shape: tuple[int, ...], flags: tuple[bool, ...], seed: int) -> None:
        """Sizes, lengths and resets that nobody thought of."""
        _compare(
            make_scan(self.make, shape, Case("drawn", *flags), seed=seed, draw=self.draw), self.executor, torch.float64
        )

    def test_needs_no_more_than_is_asked(self) -> None:
        """Gradients of a part alone are the same numbers, and no others are made."""
        made = make_scan(self.make, (5, 3, 4, 6), CASES[0], draw=self.draw)
        every = made.results(self.executor, torch.float64)
        cell = made.cell
        for name, parameter in cell.named_parameters():
            for other in cell.parameters():
                other.requires_grad_(other is parameter)
            part = made.results(self.executor, torch.float64)
            assert_within_eps(part[f"d {name}"], every[f"d {name}"], what=name)
            assert {k for k in part if k.startswith("d ")} >= {f"d {name}"}


class CellConformance:
    """What a cell must hold: subclass and set `make`.

    The step can be derived; all executors agree on it; gradients agree with finite differences, once and twice; cutting
    time in two and permuting the batch change nothing; padding changes nothing.

    Example:
        >>> class TestLight(CellConformance):
        ...     make = staticmethod(CELLS["gru"])
    """

    make: ClassVar[Any]  # (D, H) -> Cell
    draw: ClassVar[Any] = staticmethod(contracting)

    def cell(self, D: int = 3, H: int = 4) -> Cell[Any]:
        """A contracting cell in float64."""
        cell: Cell[Any] = self.make(D, H).double()
        self.draw(cell, torch.Generator().manual_seed(0))
        return cell

    def test_is_derivable(self) -> None:
        """No part of the step is outside of the vocabulary."""
        assert derive(self.cell()).forward.graph.outputs

    @pytest.mark.parametrize("executor", [e for e in EXECUTORS if e != "reference"])
    @pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
    def test_executors_agree(self, case: Case, executor: str) -> None:
        """Every executor that does not refuse gives the plain loop's numbers."""
        _compare(make_scan(self.make, (6, 4, 3, 5), case, draw=self.draw), executor, torch.float64)

    @pytest.mark.parametrize("executor", EXECUTORS)
    def test_gradients_are_the_limit_of_differences(self, executor: str) -> None:
        """Once, by ``gradcheck``, through lengths and a reset."""
        made = make_scan(self.make, (4, 3, 2, 3), CASES[0], draw=self.draw)
        lengths = torch.tensor([4, 0, 3])
        variants: list[dict[str, Any]] = [{"lengths": lengths}, {"reset": torch.rand(4, 3) < 0.4, "lengths": lengths}]
        ran = 0
        for arguments in variants:
            function, leaves = _as_function(made, executor, arguments)
            try:
                assert torch.autograd.gradcheck(function, leaves, eps=1e-6, atol=1e-7)
                ran += 1
            except ExecutorError:
                assert executor in CHOOSY
        assert ran or executor in CHOOSY

    @pytest.mark.parametrize("executor", EXECUTORS)
    def test_second_derivatives(self, executor: str) -> None:
        """Twice, by ``gradgradcheck``."""
        made = make_scan(self.make, (3, 2, 2, 2), CASES[0], draw=self.draw)
        function, leaves = _as_function(made, executor, {"lengths": torch.tensor([3, 1])})
        try:
            assert torch.autograd.gradgradcheck(function, leaves, eps=1e-6, atol=1e-6)
        except ExecutorError as refusal:
            pytest.skip(str(refusal).splitlines()[0])

    @pytest.mark.parametrize("executor", EXECUTORS)
    @pytest.mark.parametrize("cut", [0, 1, 4, 7])
    def test_two_pieces_are_the_whole(self, cut: int, executor: str) -> None:
        """The state carries everything from piece to piece."""
        made = make_scan(self.make, (7, 3, 3, 4), CASES[0], draw=self.draw)
        try:
            whole, last = _run(made, executor, slice(None), None)
            head, middle = _run(made, executor, slice(0, cut), None)
            tail, end = _run(made, executor, slice(cut, None), middle)
        except ExecutorError as refusal:
            pytest.skip(str(refusal).splitlines()[0])
        assert_within_eps(torch.cat([head, tail]), whole)
        for a, b in zip(end, last, strict=True):
            assert_within_eps(a, b)

    @pytest.mark.parametrize("executor", EXECUTORS)
    def test_permuting_the_batch_permutes_the_result(self, executor: str) -> None:
        """Sequences do not meet."""
        made = make_scan(self.make, (6, 5, 3, 4), Case("lengths", lengths=True), draw=self.draw)
        order = torch.tensor([3, 0, 4, 1, 2])
        cell = made.cell
        try:
            with options(executor=executor):
                y, _ = scan(cell, _pick(made, lambda v: v), made.state, constants=_fixed(made), **made.arguments)
                shuffled = made.arguments | {"lengths": made.arguments["lengths"][order]}
                z, _ = scan(
                    cell,
                    _pick(made, lambda v: v[:, order]),
                    cell.State(*(s[order] for s in made.state)),
                    constants=_fixed(made, order),
                    **shuffled,
                )
        except ExecutorError as refusal:
            pytest.skip(str(refusal).splitlines()[0])
        assert_within_eps(z, y[:, order])

    def test_the_fresh_cell_starts_well(self) -> None:
        """As initialised, 200 frames of noise neither blow up nor die."""
        cell = self.make(8, 16)
        with torch.no_grad():
            y, _ = scan(
                cell,
                _first(cell, [torch.randn(200, 4, *(d.size for d in s)) for s in cell.input_shapes.values()]),
                constants=_first_constants(cell, 4),
            )
        assert y.isfinite().all()
        assert y[-1].abs().max() > 0


def _first(cell: Cell[Any], leaves: list[torch.Tensor]) -> Any:
    return leaves[0] if cell.Input is None else cell.Input(*leaves)


def _first_constants(cell: Cell[Any], B: int) -> Any:
    if cell.Constants is None:
        return None
    return cell.Constants(*(torch.ones(B, *(d.size for d in s)) for s in cell.constant_shapes.values()))


def _pick(made: Scan, change: Any) -> Any:
    return _first(made.cell, [change(v) for v in made.x])


def _fixed(made: Scan, order: Any = slice(None)) -> Any:
    return None if made.cell.Constants is None else made.cell.Constants(*(c[order] for c in made.constants))


def _run(made: Scan, executor: str, frames: slice, state: Any) -> Any:
    with options(executor=executor):
        state = made.state if state is None else state
        return scan(made.cell, _pick(made, lambda v: v[frames]), state, constants=_fixed(made))


def _as_function(made: Scan, executor: str, arguments: dict[str, Any]) -> Any:
    """A function of inputs, states and weights, for torch's own checks."""
    cell = made.cell
    names = [name for name, _ in cell.named_parameters()]
    n_x, n_state = len(made.x), len(made.state)

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, *leaves: torch.Tensor) -> Any:
            x, state = leaves[:n_x], leaves[n_x:]
            with options(executor=executor):
                y, last = scan(cell, _first(cell, list(x)), cell.State(*state), constants=_fixed(made), **arguments)
            return (y, *last)

    wrapped = Wrapped()

    def function(*leaves: torch.Tensor) -> Any:
        weights = {f"cell.{name}": v for name, v in zip(names, leaves[n_x + n_state :], strict=True)}
        return torch.func.functional_call(wrapped, weights, leaves[: n_x + n_state])

    leaves = [*made.x, *made.state, *(p for p in cell.parameters())]
    return function, tuple(v.detach().clone().requires_grad_() for v in leaves)


ALL_CELLS = tuple(CELLS.values())
