"""The functional core: what it promises besides numbers, and what it refuses."""

import copy
import math
import pickle

import pytest
import torch

import recurra
from recurra.cells import CELLS, GRUCell, LSTMCell, LSTMState, RNNCell
from recurra.engine import executors, explain, options, plan_for, program, scan
from recurra.errors import (
    ExecutorError,
    InputShapeError,
    InputTypeError,
    LengthsError,
    NaNInputError,
    OptionError,
    ResetError,
    StateShapeError,
    UnknownNameError,
)
from recurra.testing import assert_within_eps

T, B, D, H = 5, 2, 3, 4


@pytest.fixture
def cell():
    torch.manual_seed(0)
    return LSTMCell(D, H)


@pytest.fixture
def x():
    return torch.randn(T, B, D, generator=torch.Generator().manual_seed(1))


BAD = {
    "batch first": (lambda c, x: scan(c, x[0]), InputShapeError, r"x must be \(T, B, D\) = \(T, B, 3\)"),
    "another width": (lambda c, x: scan(c, torch.zeros(T, B, 7)), InputShapeError, r"received: \(5, 2, 7\)"),
    "no tensor": (lambda c, x: scan(c, [1.0]), InputTypeError, "x must be a tensor"),
    "another dtype": (lambda c, x: scan(c, x.double()), InputTypeError, "x torch.float64, weights torch.float32"),
    "state without batch": (
        lambda c, x: scan(c, x, LSTMState(torch.zeros(H), torch.zeros(H))),
        StateShapeError,
        r"state\.h must be \(B, H\) = \(2, 4\)\n  received: \(4,\)",
    ),
    "state of another width": (
        lambda c, x: scan(c, x, LSTMState(torch.zeros(B, H), torch.zeros(B, H + 1))),
        StateShapeError,
        r"state\.c must be \(B, H\) = \(2, 4\)\n  received: \(2, 5\)",
    ),
    "state of one leaf": (
        lambda c, x: scan(c, x, (torch.zeros(B, H),)),
        StateShapeError,
        r"LSTMState\(h=\.\.\., c=\.\.\.\)",
    ),
    "state is a tensor": (lambda c, x: scan(c, x, torch.zeros(B, H)), StateShapeError, "received: Tensor"),
    "lengths beyond T": (
        lambda c, x: scan(c, x, lengths=torch.tensor([5, 6])),
        LengthsError,
        r"between 0 and T = 5\n  received: lengths\[1\] = 6",
    ),
    "negative lengths": (lambda c, x: scan(c, x, lengths=torch.tensor([-1, 2])), LengthsError, r"lengths\[0\] = -1"),
    "lengths of floats": (lambda c, x: scan(c, x, lengths=torch.tensor([5.0, 2.0])), LengthsError, "torch.float32"),
    "lengths of bools": (lambda c, x: scan(c, x, lengths=torch.tensor([True, True])), LengthsError, "torch.bool"),
    "lengths for another batch": (
        lambda c, x: scan(c, x, lengths=torch.tensor([5])),
        LengthsError,
        r"must be \(B,\) = \(2,\)",
    ),
    "lengths as a list": (lambda c, x: scan(c, x, lengths=[5, 2]), LengthsError, "must be a tensor"),
    "reset of integers": (
        lambda c, x: scan(c, x, reset=torch.zeros(T, B, dtype=torch.long)),
        ResetError,
        r"\(T, B\) = \(5, 2\) and of dtype bool",
    ),
    "reset transposed": (
        lambda c, x: scan(c, x, reset=torch.zeros(B, T, dtype=torch.bool)),
        ResetError,
        r"received: \(2, 5\)",
    ),
    "constants that the cell does not take": (
        lambda c, x: scan(c, x, constants=(x,)),
        StateShapeError,
        "the constants must be",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_say_what_to_do(name, cell, x):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call(cell, x)


def test_nan_in_a_valid_frame_is_found_and_padding_is_never_read(cell, x):
    x[3, 1, 2] = math.nan
    with pytest.raises(NaNInputError, match=r"x\[3, 1, 2\] \(frame 3 of sequence 1\) is NaN; 1 numbers are"):
        scan(cell, x)
    lengths = torch.tensor([5, 3])
    y, state = scan(cell, x, lengths=lengths)
    assert y.isfinite().all()
    assert state.c.isfinite().all()
    assert (y[3:, 1] == 0).all()
    with options(check_nan=False):
        assert scan(cell, x)[0].isnan().any()


def test_infinity_is_no_error(cell, x):
    x[0, 0, 0] = math.inf
    assert scan(cell, x)[0].shape == (T, B, H)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_lengths_of_any_integer_dtype(cell, x, dtype):
    y, _ = scan(cell, x, lengths=torch.tensor([2, 5], dtype=dtype))
    assert (y[2:, 0] == 0).all()
    assert (y[:2, 0] != 0).all()


GATED = [e for e in executors() if e != "associative"]  # what can run an LSTM


@pytest.mark.parametrize("executor", GATED)
def test_sequences_without_frames_keep_their_state(executor, cell, x):
    state = LSTMState(torch.randn(B, H), torch.randn(B, H))
    with options(executor=executor):
        y, last = scan(cell, x, state, lengths=torch.tensor([0, 0]))
    assert (y == 0).all()
    assert_within_eps(last.h, state.h.double(), units=0)
    assert_within_eps(last.c, state.c.double(), units=0)


@pytest.mark.parametrize("executor", ["staged", "reference"])
def test_no_frames_and_no_sequences(executor, cell):
    with options(executor=executor):
        y, last = scan(cell, torch.zeros(0, B, D))
        assert y.shape == (0, B, H)
        assert last.h.shape == (B, H)
        y, last, states = scan(cell, torch.zeros(T, 0, D), return_states=True)
        assert y.shape == (T, 0, H)
        assert last.c.shape == (0, H)
        assert states.c.shape == (T, 0, H)


@pytest.mark.parametrize("executor", ["staged", "reference"])
@pytest.mark.parametrize("reverse", [False, True])
def test_states_of_every_frame(executor, reverse, cell, x):
    lengths = torch.tensor([5, 3])
    with options(executor=executor):
        y, last, states = scan(cell, x, lengths=lengths, reverse=reverse, return_states=True)
    assert_within_eps(states.h[:3], y[:3].double())
    frozen = cell.initial_state(B).c[1] if reverse else last.c[1]
    torch.testing.assert_close(states.c[3:, 1], frozen.expand(2, H))
    torch.testing.assert_close(states.c[0 if reverse else 4], last.c)


@pytest.mark.parametrize("executor", ["staged", "reference"])
def test_a_reset_begins_anew_from_the_initial_state_not_the_given_one(executor, cell, x):
    state = LSTMState(torch.ones(B, H), torch.ones(B, H))
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[2, 0] = True
    with options(executor=executor):
        y, _ = scan(cell, x, state, reset=reset)
        fresh, _ = scan(cell, x[2:])
        through, _ = scan(cell, x, state)
        backwards, _ = scan(cell, x, reset=reset, reverse=True)
        head, _ = scan(cell, x[:2], reverse=True)
    assert_within_eps(y[2:, 0], fresh[:, 0].double())
    assert_within_eps(y[:, 1], through[:, 1].double())
    assert_within_eps(backwards[:2, 0], head[:, 0].double())  # its border lies between 2 and 1


def test_a_reset_inside_padding_changes_nothing(cell, x):
    lengths, reset = torch.tensor([3, 2]), torch.zeros(T, B, dtype=torch.bool)
    reset[3:] = True
    for reverse in (False, True):
        y, last = scan(cell, x, lengths=lengths, reset=reset, reverse=reverse)
        z, end = scan(cell, x, lengths=lengths, reverse=reverse)
        assert_within_eps(y, z.double())
        assert_within_eps(last.c, end.c.double())


def test_a_learned_initial_state_gets_its_gradient_through_resets():
    class Learned(GRUCell):
        def __init__(self, input_size, hidden_size):
            super().__init__(input_size, hidden_size)
            self.start = self.weight("H")

        def initial_state(self, batch_size, *, like=None):
            return self.State(self.start.expand(batch_size, -1))

    cell, x = Learned(D, H).double(), torch.randn(T, 3, D).double()
    reset = torch.rand(T, 3, generator=torch.Generator().manual_seed(0)) < 0.4
    grads = []
    for executor in ("staged", "reference"):
        with options(executor=executor):
            y, _ = scan(cell, x, reset=reset, lengths=torch.tensor([5, 2, 4]))
        grads.append(torch.autograd.grad(y.square().sum(), list(cell.parameters())))
    for a, b in zip(*grads, strict=True):
        assert_within_eps(a, b)


def test_double_backward_and_functional_transforms_need_nothing_of_the_user(cell, x):
    weights = dict(cell.named_parameters())

    def loss(weights, x):
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.cell = cell

            def forward(self, x):
                return scan(self.cell, x[:, None])[0].square().sum()

        return torch.func.functional_call(Net(), {f"cell.{k}": v for k, v in weights.items()}, (x,))

    per_sequence = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 1))(weights, x)
    for b in range(B):
        alone = torch.autograd.grad(loss(weights, x[:, b]), list(weights.values()))
        for name, g in zip(weights, alone, strict=True):
            torch.testing.assert_close(per_sequence[name][b], g)


def test_inference_mode_and_no_grad(cell, x):
    expected, _ = scan(cell, x)
    for context in (torch.inference_mode, torch.no_grad):
        for executor in GATED:
            with context(), options(executor=executor):
                y, _ = scan(cell, x)
            assert not y.requires_grad
            assert_within_eps(y, expected.double())


def test_without_gradients_nothing_is_kept(monkeypatch):
    cell, x, kept = GRUCell(D, H), torch.randn(T, B, D), []
    run = program.Program.run
    monkeypatch.setattr(program.Program, "run", lambda self, **k: kept.append(tuple(k["keep"])) or run(self, **k))
    with options(executor="staged"):
        scan(cell, x)
        with torch.no_grad():
            scan(cell, x)
    assert kept[0]
    assert not kept[1]


def test_autocast_keeps_the_dtype_of_the_weights(cell, x):
    expected, _ = scan(cell, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = scan(cell, x.bfloat16())
    assert y.dtype == torch.float32
    assert (y - expected).norm() < 0.05 * expected.norm()


def test_cells_with_live_plans_copy_and_pickle(cell, x):
    y, _ = scan(cell, x)
    for twin in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert_within_eps(scan(twin, x)[0], y.double(), units=0)


def test_weights_changed_behind_the_engine_are_seen(cell, x):
    scan(cell, x)
    with torch.no_grad():
        cell.weight_hh.data.mul_(0.5)
        cell.bias = torch.nn.Parameter(cell.bias + 1)
    y, _ = scan(cell, x)
    with options(executor="reference"):
        assert_within_eps(y, scan(cell, x)[0].double())


def test_options_nest_and_end():
    x, cell = torch.zeros(T, B, D), LSTMCell(D, H)
    with options(executor="reference"):
        with options(save="sqrt"):
            plan = plan_for(cell, x)
            assert (plan.executor, plan.save) == ("reference", "sqrt")
        assert plan_for(cell, x).save == "all"
    assert plan_for(cell, x).executor == "native"
    with options(save="sqrt"):
        assert plan_for(cell, x).executor == "native"
        assert "keeps everything" in plan_for(cell, x).against["torch"]
    assert plan_for(cell, x, lengths=torch.full((B,), T)).executor == "native"
    with pytest.raises(UnknownNameError, match=r"'reference'\? \(known"), options(executor="refrence"):
        scan(cell, x)
    with options(save=1e9) as chosen:  # bytes, as one writes them
        scan(cell, x)
        assert chosen.save == 1e9
    for save in ("some", 0, -1, 1.5, True):
        with pytest.raises(OptionError, match='save must be "all", "sqrt" or a number of bytes'), options(save=save):
            pass


def test_an_executor_that_cannot_says_why():
    cell, x = LSTMCell(D, H), torch.zeros(T, B, D)
    with options(executor="torch"):
        with pytest.raises(ExecutorError, match=r"cannot run this: torch\.nn cannot reset inside of a sequence"):
            scan(cell, x, reset=torch.zeros(T, B, dtype=torch.bool))
        with pytest.raises(ExecutorError, match=r"does not return c for every frame"):
            scan(cell, x, return_states=True)
        with pytest.raises(ExecutorError, match=r"reset after the product only"):
            scan(GRUCell(D, H, reset="before"), x)
        with pytest.raises(ExecutorError, match=r"torch\.nn has no kernel for MinGRUCell"):
            scan(CELLS["min_gru"](D, H), x)


def test_saving_less_keeps_less():
    """What a training scan holds between forward and backward, by the tensors that autograd saved."""

    def held(save):
        cell, x = GRUCell(8, 16, reset="before"), torch.randn(400, 2, 8)
        total, seen = 0, set()

        def pack(t):
            nonlocal total
            if t.data_ptr() not in seen:
                seen.add(t.data_ptr())
                total += t.numel() * t.element_size()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), options(save=save):
            y, _ = scan(cell, x)
        y.sum().backward()
        return total

    whole, root = held("all"), held("sqrt")
    assert root < whole / 4
    assert held(whole // 2) <= whole // 2 + 400 * 2 * 8 * 4 * 3  # the budget, and the inputs that are kept anyway


def test_explain_reads_a_module_and_counts():
    net = recurra.Recurrent("lstm", D, H)
    found = explain(net, T=7, B=3)
    assert (found.T, found.B, found.gemm_depth) == (7, 3, 1)
    assert found.to_dict()["stages"]["loop"]["gemms"] == 1
    with pytest.raises(recurra.errors.CellDefinitionError, match=r"no recurra\.Cell in this module"):
        explain(torch.nn.Linear(2, 2))


def test_one_step_is_a_scan_of_one_frame(cell, x):
    y, state = cell(x[0])
    z, last = scan(cell, x[:1])
    assert_within_eps(y, z[0].double())
    assert_within_eps(state.c, last.c.double())
    with pytest.raises(InputShapeError, match=r"x must be \(B, D\) = \(B, 3\)"):
        cell(torch.zeros(D))
    with pytest.raises(StateShapeError, match=r"state\.h must be \(B, H\)"):
        cell(x[0], LSTMState(torch.zeros(H), torch.zeros(H)))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_cells_give_torchs_numbers_from_torchs_weights(name):
    """Gate orders and shapes are torch.nn's; its two biases are one here."""
    theirs = getattr(torch.nn, name.upper())(D, H).double()
    ours = CELLS[name](D, H).double()
    with torch.no_grad():
        ours.weight_ih.copy_(theirs.weight_ih_l0)
        ours.weight_hh.copy_(theirs.weight_hh_l0)
        ours.bias.copy_(theirs.bias_ih_l0 + theirs.bias_hh_l0)
        if name == "gru":
            ours.bias[2 * H :] = theirs.bias_ih_l0[2 * H :]
            ours.bias_hn.copy_(theirs.bias_hh_l0[2 * H :])
    x = torch.randn(T, B, D).double()
    for executor in GATED:
        with options(executor=executor):
            assert_within_eps(scan(ours, x)[0], theirs(x)[0])


def test_relu_rnn_and_unknown_settings():
    with pytest.raises(UnknownNameError, match=r"'tanh'\? \(known: relu, tanh\)"):
        RNNCell(D, H, nonlinearity="tanhh")
    with pytest.raises(UnknownNameError, match="place of the reset"):
        GRUCell(D, H, reset="middle")
