"""The drop-ins against torch.nn: outputs, states and every gradient, over all of its arguments."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, parametrize
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import recurra
from recurra import GRU, LSTM, RNN, Recurrent, options
from recurra.errors import InputTypeError, LengthsError, ResetError
from recurra.testing import assert_within_eps, relative_error
from recurra.testing.cases import moved

T, B, D, H = 5, 4, 3, 4
LENGTHS = torch.tensor([3, 5, 1, 4])
KINDS = {
    "rnn_tanh": (nn.RNN, RNN, {}),
    "rnn_relu": (nn.RNN, RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, LSTM, {}),
    "lstm_projected": (nn.LSTM, LSTM, {"proj_size": 2}),
    "gru": (nn.GRU, GRU, {}),
}
FORMS = ("staged", "lengths", "packed", "packed_sorted", "unbatched", "no_state")


def leaves(state):
    return state if isinstance(state, tuple) else (state,)


def results(layer, form, dtype, held=None, seed=1):
    """Outputs, states and all gradients under a random cotangent; torch.nn is given lengths by packing.

    Numbers are drawn so that the dtype `held` can hold them.
    """
    rng = torch.Generator().manual_seed(seed)
    draw = lambda *s: torch.randn(*s, generator=rng, dtype=torch.float64).to(held or dtype).to(dtype)
    lengths = LENGTHS.sort(descending=True)[0] if form == "packed_sorted" else LENGTHS
    L, single = layer.num_layers * (1 + layer.bidirectional), form == "unbatched"
    x = draw(T, D) if single else draw(B, T, D) if layer.batch_first else draw(T, B, D)
    widths = [layer.proj_size or H, H] if layer.mode == "LSTM" else [H]
    hx = tuple(draw(L, w) if single else draw(L, B, w) for w in widths)
    inputs = [v.requires_grad_() for v in (x, *hx)]
    given = None if form == "no_state" else hx if layer.mode == "LSTM" else hx[0]
    ours = isinstance(layer, (RNN, LSTM, GRU))
    if form.startswith("packed") or (form == "lengths" and not ours):
        packed = pack_padded_sequence(x, lengths, layer.batch_first, enforce_sorted=form == "packed_sorted")
        y, last = layer(packed, given)
        assert isinstance(y, PackedSequence)
        if ours and form.startswith("packed"):
            for a, b in zip(y[1:], packed[1:], strict=True):
                assert (a is None and b is None) or torch.equal(a, b)
        y, _ = pad_packed_sequence(y, layer.batch_first)
    else:
        with options(executor="staged" if ours and form == "staged" else "auto"):
            y, last = layer(x, given, **({"lengths": lengths} if form == "lengths" else {}))
    outputs = {"y": y, **{f"last {k}": v for k, v in enumerate(leaves(last))}}
    loss = torch.stack([(v * draw(*v.shape)).double().sum() for v in outputs.values()]).sum()
    wanted = {f"d input {k}": v for k, v in enumerate(inputs)} | {f"d {k}": v for k, v in layer.named_parameters()}
    grads = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return outputs | {k: g for k, g in zip(wanted, grads, strict=True) if g is not None}


def own_errors(theirs, form, dtype, expected):
    """How far torch.nn in that dtype is from `expected`, at worst, where each weight may be off by a rounding step.

    One run is one draw of that error, and small where a bias's gradient cancels by luck.
    """
    rng, errors = torch.Generator().manual_seed(0), []
    for draw in range(9):
        layer = copy.deepcopy(theirs)
        with torch.no_grad():
            for p in layer.parameters():
                if draw:
                    p.copy_(moved(p, dtype, rng))
        errors.append({k: relative_error(v, expected[k]) for k, v in results(layer, form, dtype).items()})
    return {name: max(e[name] for e in errors) for name in expected}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # torch says it once
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_first", "time_first"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one_way", "both_ways"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_torch_nn(kind, layers, bidirectional, batch_first, bias, dtype):
    theirs_kind, ours_kind, more = KINDS[kind]
    torch.manual_seed(0)
    arguments = {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional, **more}
    theirs, ours = (k(D, H, layers, dtype=dtype, **arguments) for k in (theirs_kind, ours_kind))
    assert ours.load_state_dict(theirs.state_dict()) == theirs.load_state_dict(ours.state_dict())
    exact = copy.deepcopy(theirs).double()
    # Between layers a state is rounded to three digits, which may move a unit over relu's kink: then its gradients are
    # others, and no less right.
    kinks = kind == "rnn_relu" and dtype is torch.bfloat16 and layers > 1
    for form in FORMS:
        expected, found = results(exact, form, torch.float64, dtype), results(ours, form, dtype)
        assert found.keys() == expected.keys()
        hard = any(relative_error(found[name], ref) > 8 for name, ref in expected.items())
        own = own_errors(theirs, form, dtype, expected) if hard else dict.fromkeys(expected, 0.0)
        for name, ref in expected.items():
            if not (kinks and name.startswith("d ")):
                assert_within_eps(found[name], ref, own=own[name], what=f"{form}: {name}")


def test_attributes_and_what_torch_says_are_torchs():
    theirs, ours = nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2), LSTM(3, 4, 2, bidirectional=True, proj_size=2)
    assert isinstance(ours, nn.LSTM)
    assert repr(ours) == repr(theirs)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [[p.shape for p in row] for row in ours.all_weights] == [
        [p.shape for p in row] for row in theirs.all_weights
    ]
    assert ours.flatten_parameters() is None
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
        GRU(3, 4, dropout=0.5)
    with pytest.raises(ValueError, match="proj_size has to be smaller"):
        LSTM(3, 4, proj_size=4)


@pytest.mark.parametrize("kind", [RNN, LSTM, GRU])
def test_every_state_is_given_back(kind):
    layer = kind(D, H, 2, bidirectional=True, batch_first=True)
    x = torch.randn(B, T, D)
    y, last, every = layer(x, lengths=LENGTHS, return_states=True)
    for leaf, states in zip(leaves(last), leaves(every), strict=True):
        assert states.shape == (4, B, T, H)
        assert torch.equal(states[0][torch.arange(B), LENGTHS - 1], leaf[0])
        assert torch.equal(states[3][:, 0], leaf[3])
    assert torch.equal(leaves(every)[0][2][torch.arange(B), LENGTHS - 1], y[torch.arange(B), LENGTHS - 1, :H])


def test_states_of_packed_frames_are_given_padded():
    layer, x = LSTM(D, H, 2, bidirectional=True), torch.randn(T, B, D)
    packed = pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
    y, _, every = layer(packed, return_states=True)
    z, _, expected = layer(x, lengths=LENGTHS, return_states=True)
    assert torch.equal(pad_packed_sequence(y)[0], z)
    assert all(torch.equal(a, b) for a, b in zip(every, expected, strict=True))


def test_a_reset_begins_anew():
    layer, x = LSTM(D, H, batch_first=True), torch.randn(B, T, D)
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 2] = True
    y, _ = layer(x, reset=reset)
    assert_within_eps(y[:, 2:], layer(x[:, 2:])[0].double())
    single, _ = layer(x[0], reset=reset[0])
    assert_within_eps(single, y[0].double())


def test_dropout_between_layers_is_drawn_in_training_alone():
    layer, x = GRU(D, H, 2, dropout=0.5), torch.randn(T, B, D)
    lengths = torch.full((B,), T - 1)
    draw = lambda: layer(x, lengths=lengths)[0]
    assert not torch.equal(draw(), draw())
    layer.eval()
    assert torch.equal(draw(), draw())


def test_wrong_input():
    layer = LSTM(D, H, batch_first=True)
    packed = pack_padded_sequence(torch.randn(B, T, D), LENGTHS, True, enforce_sorted=False)
    with pytest.raises(InputTypeError, match=r"takes a tensor or a PackedSequence(.|\n)*list"):
        layer([1.0], lengths=LENGTHS)
    with pytest.raises(LengthsError, match="a PackedSequence has its length already"):
        layer(packed, lengths=LENGTHS)
    with pytest.raises(LengthsError, match="a single sequence has its length already"):
        layer(torch.randn(T, D), lengths=LENGTHS)
    with pytest.raises(ResetError, match="resets need a padded input"):
        layer(packed, reset=torch.zeros(B, T, dtype=torch.bool))
    with pytest.raises(RuntimeError, match="For batched 3-D input, hx should also be 3-D, got 2-D"):
        layer(torch.randn(B, T, D), (torch.zeros(1, H), torch.zeros(1, H)), lengths=LENGTHS)
    with pytest.raises(RuntimeError, match=r"Expected hidden\[0\] size \(1, 4, 4\)"):
        layer(torch.randn(B, T, D), (torch.zeros(1, 1, H), torch.zeros(1, B, H)), lengths=LENGTHS)
    with pytest.raises(RuntimeError, match="must be equal to input_size. Expected 3, got 2"):
        layer(torch.randn(B, T, 2), lengths=LENGTHS)
    with pytest.raises(ValueError, match="Expected input to be 2D or 3D, got 4D"):
        layer(torch.randn(1, B, T, D), lengths=LENGTHS)
    with pytest.raises(ValueError, match="does not match weight dtype"):
        layer(torch.randn(B, T, D).double(), lengths=LENGTHS)


LAYERS = {
    "recurrent": lambda: Recurrent("lstm", D, H, 2, bidirectional=True),
    "linear": lambda: Recurrent("lru", D, H),
    "lstm": lambda: LSTM(D, H, 2, bidirectional=True, batch_first=True),
    "gru": lambda: GRU(D, H, batch_first=True),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    torch.manual_seed(0)
    made = LAYERS[request.param]()
    made(torch.randn(B, 60, D), lengths=torch.tensor([60, 3, 0, 59]))[0].sum().backward()  # with live plans
    return made


def output(layer, x, lengths=None):
    return layer(x, lengths=lengths)[0]


def test_layers_copy_pickle_and_save(layer, tmp_path):
    x = torch.randn(B, T, D)
    expected = output(layer, x, LENGTHS)
    torch.save(layer, tmp_path / "layer.pt")
    for again in (
        copy.deepcopy(layer),
        copy.copy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(tmp_path / "layer.pt", weights_only=False),
    ):
        assert torch.equal(output(again, x, LENGTHS), expected)


def test_gradients_are_clipped_averaged_and_parametrised_as_in_any_module(layer):
    x = torch.randn(B, T, D)
    average = torch.optim.swa_utils.AveragedModel(layer)
    name = next(n for n, p in layer.named_parameters() if "weight_ih" in n)
    owner = layer.get_submodule(name.rpartition(".")[0])
    before = output(layer, x, LENGTHS)
    assert torch.equal(average(x, lengths=LENGTHS)[0], before)

    class Half(nn.Module):
        def forward(self, weight):
            return weight / 2

    parametrize.register_parametrization(owner, name.rpartition(".")[2], Half())
    after = output(layer, x, LENGTHS)
    assert not torch.equal(after, before)
    layer.zero_grad()
    (1e3 * after).sum().backward()
    assert clip_grad_norm_(layer.parameters(), 1.0) > 1
    assert sum(p.grad.square().sum() for p in layer.parameters() if p.grad is not None).sqrt() <= 1.001
    parametrize.remove_parametrizations(owner, name.rpartition(".")[2])
    assert_within_eps(output(layer, x, LENGTHS), after.double(), 64)


def test_gradients_of_each_sample_by_torch_func(layer):
    """``vmap(grad(…))`` gives what a loop over samples gives; so do ensembles."""
    weights = {k: v.detach() for k, v in layer.named_parameters()}
    x, dy = torch.randn(3, 1, T, D), torch.randn(3, 1, T, output(layer, torch.randn(1, T, D)).shape[-1])

    def loss(weights, x, dy):
        y, _ = torch.func.functional_call(layer, weights, (x,))
        return (y * dy).sum()

    every = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, x, dy)
    for k in range(3):
        one = torch.func.grad(loss)(weights, x[k], dy[k])
        layer.zero_grad()
        (output(layer, x[k]) * dy[k]).sum().backward()
        for name, p in layer.named_parameters():
            assert_within_eps(every[name][k], p.grad.double(), 40, what=name)
            assert_within_eps(one[name], p.grad.double(), 40, what=name)


def test_a_layer_first_run_inside_of_vmap_draws_nothing():
    layer = LSTM(9, 11, 2)  # sizes of no other test: nothing has been derived for them
    x, before = torch.randn(3, T, 1, 9), torch.random.get_rng_state()
    y = torch.func.vmap(lambda x: layer(x, lengths=None, return_states=True)[0])(x)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_within_eps(y[1], layer(x[1])[0].double(), 40)


def test_ensembles(layer):
    others = [copy.deepcopy(layer) for _ in range(3)]
    for k, other in enumerate(others):
        for p in other.parameters():
            p.data.mul_(1 - 0.1 * k)
    weights, buffers = torch.func.stack_module_state(others)
    x = torch.randn(2, T, D)
    together = torch.func.vmap(lambda w, b: torch.func.functional_call(layer, (w, b), (x,))[0])(weights, buffers)
    for k, other in enumerate(others):
        assert_within_eps(together[k], output(other, x).double(), 40)


@pytest.mark.parametrize("kind", [RNN, LSTM, GRU])
def test_second_derivatives(kind):
    layer = kind(2, 3, batch_first=True).double()
    names = [n for n, _ in layer.named_parameters()]

    def function(x, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,), {"lengths": LENGTHS})[0]

    x = torch.randn(4, T, 2, dtype=torch.float64, requires_grad=True)
    weights = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradgradcheck(function, (x, *weights), atol=1e-6)


class Squares(torch.utils.data.Dataset):
    """Runs a layer in the process that loads data."""

    def __init__(self, layer):
        self.layer = layer

    def __len__(self):
        return 2

    def __getitem__(self, k):
        with torch.no_grad():
            return output(self.layer, torch.full((2, T, D), float(k)), torch.tensor([T, 2]))


def test_layers_travel_to_spawned_loaders():
    layer = Recurrent("gru", D, H)
    output(layer, torch.randn(2, T, D)).sum().backward()
    data = Squares(layer)
    loader = torch.utils.data.DataLoader(data, num_workers=1, multiprocessing_context="spawn")
    for k, batch in enumerate(loader):
        assert torch.equal(batch[0], data[k])


def test_they_can_be_explained():
    found = recurra.explain(nn.Sequential(nn.Linear(2, 3), GRU(3, 4, 2)), T=50, B=8)
    assert (found.cell, found.sizes, found.gemm_depth) == ("GRUCell", {"D": 3, "H": 4}, 1)
    assert [c.input_size for c in LSTM(3, 4, 2, bidirectional=True).cells()] == [3, 3, 8, 8]
    with pytest.raises(recurra.errors.CellDefinitionError, match=r"no recurra\.Cell in this module"):
        recurra.explain(nn.LSTM(3, 4))


def test_they_are_public():
    assert {"RNN", "LSTM", "GRU", "accelerate"} <= set(recurra.__all__)


@pytest.mark.parametrize("form", ["padded", "packed"])
@pytest.mark.parametrize("hx", [torch.zeros(3, B, H), torch.zeros(9, B, H), torch.zeros(4, B, H).double()])
def test_a_state_that_does_not_fit_is_refused_as_torch_does(form, hx):
    x = torch.randn(T, B, D)
    given = x if form == "padded" else pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
    for kind in (nn.GRU, GRU):
        with pytest.raises(RuntimeError, match="hidden|hx|dtype"):
            kind(D, H, num_layers=2, bidirectional=True)(given, hx)
