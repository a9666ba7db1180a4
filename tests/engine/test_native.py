"""What the native machine promises beyond the plain loop's numbers: the same bits, whatever runs beside a sequence."""

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from test_conformance import MAKES

import recurra
import recurra.engine.native as engine
from recurra.engine import options, scan
from recurra.engine.derive import derive
from recurra.errors import NaNInputError
from recurra.kernels.cpu import native
from recurra.testing.cases import contracting

pytestmark = pytest.mark.skipif(native() is None, reason="built without the native machine")
NAMES = sorted(MAKES)


def _cell(name, D=5, H=13, dtype=torch.float32):
    cell = MAKES[name](D, H).to(torch.float64)
    contracting(cell, torch.Generator().manual_seed(0))
    return cell.to(dtype).eval()


def _draw(cell, T, B, dtype=torch.float32, seed=1):
    rng = torch.Generator().manual_seed(seed)
    size = lambda shape: [d.size for d in shape]
    random = lambda *s: torch.randn(*s, generator=rng, dtype=torch.float64).to(dtype)
    x = [random(T, B, *size(s)) for s in cell.input_shapes.values()]
    state = [random(B, *size(s)) for s in cell.state_shapes.values()]
    constants = [random(B, *size(s)) for s in cell.constant_shapes.values()]
    return x, state, constants


def _run(cell, x, state, constants, threads=1, seed=None, **arguments):
    """Outputs, states and the gradients of inputs and states; of weights too, last."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, state = [v.clone().requires_grad_() for v in x], [v.clone().requires_grad_() for v in state]
        with options(executor="native"):
            y, last = scan(
                cell,
                x[0] if cell.Input is None else cell.Input(*x),
                cell.State(*state),
                constants=None if cell.Constants is None else cell.Constants(*constants),
                **arguments,
            )
        # A cotangent that is a function of place alone: it must not depend on what else is in the batch.
        loss = sum((v * torch.cos(torch.arange(v.shape[-1], dtype=v.dtype))).sum() for v in (y, *last))
        leaves = [*x, *state]
        grads = torch.autograd.grad(loss, [*leaves, *cell.parameters()], allow_unused=True)
    finally:
        torch.set_num_threads(before)
    rows = [y.detach(), *(v.detach() for v in last)]
    return rows, list(grads[: len(leaves)]), list(grads[len(leaves) :])


def _same(a, b):
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_sequence_has_the_same_bits_in_any_batch(name, dtype):
    cell = _cell(name, dtype=dtype)
    T, B = 11, 37
    x, state, constants = _draw(cell, T, B, dtype)
    n_x = len(x)
    rows, grads, _ = _run(cell, x, state, constants, threads=2)
    for chosen in ([0], [36], [5, 3], list(range(7, 29))):
        r, g, _ = _run(cell, [v[:, chosen] for v in x], [v[chosen] for v in state], [v[chosen] for v in constants])
        _same(r, [rows[0][:, chosen], *(v[chosen] for v in rows[1:])])
        _same(g[:n_x], [v[:, chosen] for v in grads[:n_x]])
        _same(g[n_x:], [None if v is None else v[chosen] for v in grads[n_x:]])


@pytest.mark.parametrize("name", NAMES)
def test_threads_change_no_bits_of_rows(name):
    cell = _cell(name)
    x, state, constants = _draw(cell, 9, 21)
    lengths = torch.randint(0, 10, (21,), generator=torch.Generator().manual_seed(0))
    reset = torch.rand(9, 21, generator=torch.Generator().manual_seed(2)) < 0.2
    for arguments in ({}, {"lengths": lengths}, {"lengths": lengths, "reset": reset, "reverse": True}):
        one = _run(cell, x, state, constants, threads=1, **arguments)
        for threads in (2, 3):
            many = _run(cell, x, state, constants, threads=threads, **arguments)
            _same(many[0], one[0])
            _same(many[1], one[1])
            again = _run(cell, x, state, constants, threads=threads, **arguments)
            _same(again[2], many[2])  # weights' gradients: the same from run to run


@pytest.mark.parametrize("B", [1, 7, 40])
@pytest.mark.parametrize("name", NAMES)
def test_teams_change_no_bits(name, B, monkeypatch):
    cell = _cell(name, H=29)
    x, state, constants = _draw(cell, 9, B)
    lengths = torch.randint(0, 10, (B,), generator=torch.Generator().manual_seed(0)).clamp_min(1)
    reset = torch.rand(9, B, generator=torch.Generator().manual_seed(2)) < 0.2
    for arguments in ({}, {"lengths": lengths, "reset": reset, "reverse": True}):
        one = _run(cell, x, state, constants, threads=1, **arguments)
        with monkeypatch.context() as patch:
            patch.setattr("recurra.engine.shares._CORE_CACHE", 0)  # as if the weights were large
            for threads in (2, 3, 4):
                many = _run(cell, x, state, constants, threads=threads, **arguments)
                _same(many[0], one[0])
                _same(many[1], one[1])
                if B < 32:  # one share: the sums over rows are in one order too
                    _same(many[2], one[2])


APART = ("ind_rnn", "lru", "min_gru", "min_lstm", "rg_lru", "sru")  # no unit of the loop reads another


@pytest.mark.parametrize("name", NAMES)
def test_units_that_do_not_read_each_other_are_known(name):
    derived, T, B = derive(_cell(name)), 5, 1
    graph, weights, found = derived.forward.graph, derived.forward.weights, set()
    for need in (False, True):
        counts = (len(graph.inputs), len(graph.states), 0, len(graph.constants), len(weights))
        frames = engine.frames_of((1, 1, 1), T, B, False, None)
        kind = engine.kind_of(derived, torch.float32, False, frames, tuple((need,) * n for n in counts))
        found |= {kind.recording.handle.apart, *({kind.backward.handle.apart} if need else ())}
    assert found == {name in APART}
    assert (derived.team_weights > 0) == (name in APART)


@pytest.mark.parametrize("name", APART)
def test_fewer_sequences_than_threads_share_units(name, monkeypatch):
    cell = _cell(name, D=40, H=99)
    assert engine.dealt(derive(cell), 0, "float", 1)[2] == torch.get_num_threads()
    x, reset = torch.randn(300, 1, 40), torch.rand(300, 1) < 0.05
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)  # noqa: B023 - for this round
        with options(executor="native", save="sqrt"):
            given = x.clone().requires_grad_()
            y, last, every = scan(cell, given, reset=reset, return_states=True)
            loss = sum((v * torch.cos(torch.arange(v.shape[-1]))).sum() for v in (y, *last, *every))
            found.append([y, *last, *every, *torch.autograd.grad(loss, [given])])
    for many in found[1:]:
        _same(many, found[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("B", [1, 20])
def test_cuts_of_time_change_no_bits(name, B):
    cell = _cell(name)
    T = 19
    x, state, constants = _draw(cell, T, B)
    pick = lambda at: x[0][at] if cell.Input is None else cell.Input(*(v[at] for v in x))
    fixed = None if cell.Constants is None else cell.Constants(*constants)
    with torch.no_grad(), options(executor="native"):
        whole, last = scan(cell, pick(slice(None)), cell.State(*state), constants=fixed)
        for cuts in ((0, 7, 19), tuple(range(20))):
            carried, parts = cell.State(*state), []
            for start, stop in zip(cuts, cuts[1:], strict=False):
                y, carried = scan(cell, pick(slice(start, stop)), carried, constants=fixed)
                parts.append(y)
            assert torch.equal(torch.cat(parts), whole)
            _same(list(carried), list(last))


@pytest.mark.parametrize("name", NAMES)
def test_training_and_inference_have_the_same_bits(name):
    cell = _cell(name)
    x, state, constants = _draw(cell, 9, 18)
    rows, _, _ = _run(cell, x, state, constants)
    with torch.no_grad(), options(executor="native"):
        y, last = scan(
            cell,
            x[0] if cell.Input is None else cell.Input(*x),
            cell.State(*state),
            constants=None if cell.Constants is None else cell.Constants(*constants),
        )
    _same([y, *last], rows)


@pytest.mark.parametrize("name", ["lstm", "gru", "layer_norm_lstm", "min_gru", "heads"])
def test_lengths_and_padding_change_no_bits(name):
    cell = _cell(name)
    T, B = 13, 10
    x, state, constants = _draw(cell, T, B)
    lengths = torch.tensor([13, 0, 5, 1, 12, 7, 7, 3, 9, 2])
    rows, grads, _ = _run(cell, x, state, constants, threads=2, lengths=lengths)
    for b, n in enumerate(lengths.tolist()):
        if not n:
            continue
        r, g, _ = _run(cell, [v[:n, [b]] for v in x], [v[[b]] for v in state], [v[[b]] for v in constants])
        assert torch.equal(rows[0][:n, [b]], r[0])
        assert not rows[0][n:, b].any()
        _same([v[[b]] for v in rows[1:]], r[1:])
        for k, v in enumerate(g[: len(x)]):
            assert torch.equal(grads[k][:n, [b]], v)


@pytest.mark.parametrize("save", ["sqrt", 3000])
@pytest.mark.parametrize("name", ["lstm", "gru_before", "layer_norm_lstm", "slstm"])
def test_saving_less_changes_no_bits_of_rows(name, save, monkeypatch):
    monkeypatch.setattr(engine, "_PIECE_ROWS", 1)
    cell = _cell(name)
    x, state, constants = _draw(cell, 23, 9)
    rows, grads, _ = _run(cell, x, state, constants)
    with options(save=save):
        r, g, _ = _run(cell, x, state, constants)
    _same(r, rows)
    _same(g, grads)


@pytest.mark.parametrize("name", ["lstm", "min_gru", "rnn"])
@pytest.mark.parametrize(("B", "D", "threads"), [(1, 37, 2), (3, 1, 1), (40, 16, 2), (17, 70, 1)])
def test_nan_is_found_wherever_it_is_while_frames_are_read(name, B, D, threads, monkeypatch):
    monkeypatch.setattr("recurra.engine.shares._CORE_CACHE", 0)  # as if the weights were large: teams
    draw = torch.Generator().manual_seed(B)
    any_below = lambda n: int(torch.randint(n, (), generator=draw))
    T = 9
    for dtype in (torch.float32, torch.float64):
        cell = _cell(name, D, 13, dtype)
        lengths = torch.randint(1, T + 1, (B,), generator=draw)
        for arguments in ({}, {"reverse": True}, {"lengths": lengths}, {"lengths": lengths, "reverse": True}):
            (x,), state, constants = _draw(cell, T, B, dtype)
            b = any_below(B)
            end = int(arguments["lengths"][b]) if "lengths" in arguments else T
            t, d = any_below(end), any_below(D)
            x[t, b, d] = torch.nan
            with pytest.raises(NaNInputError, match=rf"x\[{t}, {b}, {d}\] .*; 1 numbers are"):
                _run(cell, [x], state, constants, threads, **arguments)
            x[t, b, d] = torch.inf  # is for the user to want
            _run(cell, [x], state, constants, threads, **arguments)
            if end < T:  # padding may hold anything
                x[t, b, d], x[end:, b] = 0, torch.nan
                _run(cell, [x], state, constants, threads, **arguments)


def test_several_threads_may_run_at_once():
    cell = _cell("lstm", 20, 40)
    jobs = [_draw(cell, 30, 1 + k, seed=k) for k in range(8)]
    alone = [_run(cell, *job) for job in jobs]
    gate = threading.Barrier(4)

    def work(k):
        if k < 4:
            gate.wait()
        with torch.no_grad(), options(executor="native"):
            return [scan(cell, jobs[k % 8][0][0], cell.State(*jobs[k % 8][1]))[0] for _ in range(20)]

    with ThreadPoolExecutor(4) as pool:
        for k, found in enumerate(pool.map(work, range(16))):
            assert all(torch.equal(y, alone[k % 8][0][0]) for y in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python warns of threads: that is what is tested
def test_a_forked_child_computes_the_same():
    cell = _cell("lstm")
    x, state, constants = _draw(cell, 12, 6)
    rows, _, grads = _run(cell, x, state, constants, threads=2)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        r, _, g = _run(cell, x, state, constants, threads=2)
        same = all(torch.equal(a, b) for a, b in zip([*rows, *grads], [*r, *g], strict=True))
        os.write(writer, b"same" if same else b"not the same")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reader, 20) == b"same"
    os.close(reader)
    os.close(writer)


def test_the_pool_is_reused_and_can_be_emptied():
    cell = _cell("lstm", 20, 40)
    machine = native()
    x, state, constants = _draw(cell, 100, 16)
    machine.trim()
    for _ in range(3):
        _run(cell, x, state, constants)
    held = machine.held()
    for _ in range(5):
        _run(cell, x, state, constants)
    assert machine.held() <= held + (2 << 20)
    assert held > 0
    machine.trim()
    assert machine.held() == 0


@pytest.mark.parametrize("ragged", [False, True])
def test_once_the_largest_batch_was_there_no_step_asks_the_system_for_memory(ragged):
    """Fresh pages cost more than what is computed in them: of layers on layers, and of batches of all lengths."""
    T, B = 200, 24
    layers = recurra.Recurrent("lstm", 48, [96, 64], bidirectional=True)
    machine = native()
    machine.trim()
    draw = torch.Generator().manual_seed(0)

    def step(lengths):
        x = torch.randn(T if lengths is None else int(lengths.max()), B, 48).transpose(0, 1).requires_grad_()
        layers(x, lengths=lengths)[0].sum().backward()

    step(None)
    step(None)
    made = machine.made()
    for _ in range(6):
        longest = int(torch.randint(T // 6, T + 1, (), generator=draw))
        step(torch.randint(longest // 3, longest + 1, (B,), generator=draw) if ragged else None)
    assert machine.made() - made <= machine.held() / 16


def test_a_long_sequence_keeps_all_that_the_backward_pass_needs_and_no_more():
    cell, machine = _cell("lstm", 8, 16), native()
    x = torch.randn(400, 4, 8, requires_grad=True)
    used = {}
    for save in ("all", "sqrt"):
        machine.trim()
        before = machine.used()
        with options(executor="native", save=save):
            y, _ = scan(cell, x)
        used[save] = machine.used() - before - y.numel() * 4
        y.sum().backward()
    assert used["sqrt"] < used["all"] / 8


def test_saving_the_root_keeps_the_root():
    """What is held between forward and backward, and what the pool gave for a whole step."""
    cell, machine, B = _cell("lstm", 8, 16), native(), 64
    held, given = {}, {}
    for T in (400, 6400):
        x, kept = torch.randn(T, B, 8), []
        machine.trim()
        count = lambda t: kept.append(t.nbytes) or t  # noqa: B023 - used within this turn only
        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t), options(executor="native", save="sqrt"):
            y, _ = scan(cell, x)
        held[T] = sum(kept) - x.nbytes
        y.sum().backward()
        given[T] = machine.held() + machine.used() - y.nbytes
    assert held[6400] < 5 * held[400]
    assert given[6400] < 5 * given[400] + (2 << 20)


@pytest.mark.parametrize("train", [False, True])
def test_scans_leave_nothing_to_the_collector(train):
    """A cycle would keep the tensors of a call until a collection."""
    cell, x = _cell("lstm"), torch.randn(4, 2, 5)

    def run():
        with options(executor="native"), torch.set_grad_enabled(train):
            y, _ = scan(cell, x)
            if train:
                y.sum().backward()

    run()  # deriving the step may leave what it likes
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        run()
        gc.collect()
        assert not [left for left in gc.garbage if isinstance(left, torch.Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_what_is_remembered_keeps_no_cell_alive():
    cell = _cell("lstm")
    scan(cell, torch.randn(4, 2, 5))[0].sum().backward()
    gone = weakref.ref(cell)
    del cell
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("save", ["all", "sqrt"])
def test_weights_may_change_in_any_way_between_calls(save):
    cell, x = _cell("lstm"), torch.randn(4, 2, 5)

    def equals_the_loop():
        with options(executor="native", save=save):
            fast = scan(cell, x)[0]
        with options(executor="reference"):
            torch.testing.assert_close(fast, scan(cell, x)[0])

    with torch.no_grad():
        equals_the_loop()
        cell.weight_hh.data *= 0.5
        equals_the_loop()
        cell.bias.data = torch.randn_like(cell.bias)
        equals_the_loop()
        cell.weight_ih = torch.nn.Parameter(torch.randn_like(cell.weight_ih))
        equals_the_loop()
    torch.nn.utils.parametrize.register_parametrization(cell, "weight_hh", torch.nn.Tanh())
    equals_the_loop()
