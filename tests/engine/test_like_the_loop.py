"""Where a derivation could differ from the plain loop over ``cell.step``: it equals it, or gives way to it."""

import gc
import threading
import weakref

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.functional import linear
from torch.nn.utils import parametrize, prune
from torch.overrides import handle_torch_function, has_torch_function_unary
from torch.utils.checkpoint import checkpoint

import recurra
from recurra.cells import Cell, HiddenState
from recurra.engine import options, plan_for, scan
from recurra.engine.derive import derive
from recurra.engine.stream import CellStream
from recurra.errors import OptionError, UnderivableStepError
from recurra.layers import tbptt


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Own(Cell[HiddenState]):
    """A cell whose next state is `body(cell, a, h)`, a its projected input."""

    def __init__(self, body, H=4):
        super().__init__(3, H)
        self.w, self.u, self.b = self.weight("H D"), self.weight("H H"), self.weight("H", init="ones")
        self.body = body

    def step(self, x, state):
        h = self.body(self, linear(x, self.w), state.h)
        return h, HiddenState(h)


def run(cell, x, executor="auto", **arguments):
    """What a scan gives, and the gradients of the cell's weights."""
    with options(executor=executor):
        y, _ = scan(cell, x, **arguments)
    weights = [p for p in cell.parameters() if p.requires_grad]
    grads = torch.autograd.grad(y.square().sum(), weights, allow_unused=True) if y.requires_grad else [None] * 3
    return [y, *(torch.zeros_like(w) if g is None else g for w, g in zip(weights, grads, strict=False))]


def same(cell, x=None, executor="auto", **arguments):
    x = torch.randn(6, 2, 3, dtype=next(cell.parameters()).dtype) if x is None else x
    for a, b in zip(run(cell, x, executor, **arguments), run(cell, x, "reference", **arguments), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def executor_of(cell):
    return plan_for(cell, torch.zeros(6, 2, 3, dtype=next(cell.parameters()).dtype)).executor


@pytest.mark.parametrize("executor", ["native", "staged"])
def test_a_layer_may_be_checkpointed(executor):
    layer, grads = recurra.Recurrent("lstm", 3, 4), []
    x = torch.randn(2, 5, 3, requires_grad=True)
    with options(executor=executor):
        for through in (lambda f, v: f(v), lambda f, v: checkpoint(f, v, use_reentrant=False)):
            loss = through(lambda v: layer(v)[0], x).square().sum()
            grads.append(torch.autograd.grad(loss, [x, *layer.parameters()]))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_lengths_of_any_integers(dtype):
    layer = recurra.Recurrent("gru", 3, 4)
    for T in (10, 259, 300):
        x, lengths = torch.randn(2, T, 3), torch.tensor([3, 10])
        expected, _ = layer(x, lengths=lengths)
        y, _ = layer(x, lengths=lengths.to(dtype))
        torch.testing.assert_close(y, expected, rtol=0, atol=0)
    x = x[:, :10]
    chunks = [y for y, _ in tbptt(layer, x, chunk=4, lengths=lengths.to(dtype))]
    torch.testing.assert_close(torch.cat(chunks, 1), layer(x, lengths=lengths)[0])


def test_a_root_of_a_difference_of_equal_squares_is_a_number():
    cell = Own(lambda c, a, h: (a * a - (a + 0 * h) * (a + 0 * h)).sqrt() + 0 * h)
    with torch.no_grad():
        y, _ = scan(cell, torch.randn(60, 2, 3))
    assert executor_of(cell) == "native"
    assert not y.isnan().any()


def test_a_range_counted_from_the_end():
    cell = Own(lambda c, a, h: torch.cat([a.narrow(-1, -2, 2), h.narrow(-1, 0, 2) * c.b[:2]], -1))
    assert executor_of(cell) == "native"
    same(cell)


@pytest.mark.parametrize(
    "body",
    [
        nn.functional.relu,
        nn.ReLU(),
        nn.LeakyReLU(),
        nn.ELU(),
        nn.Hardtanh(),
        nn.ReLU6(),
        nn.Softplus(),
        nn.GELU("tanh"),
        nn.SiLU(),
        nn.Softmax(-1),
        nn.LogSigmoid(),
    ],
    ids=lambda body: getattr(body, "__name__", str(body)),
)
def test_activations_of_torch_nn_are_derived(body):
    cell = Own(lambda c, a, h: body(a + linear(h, c.u)))
    assert executor_of(cell) == "native"
    same(cell)


def test_an_activation_in_place_runs_in_the_plain_loop():
    assert executor_of(Own(lambda c, a, h: nn.functional.relu(a + h, inplace=True))) == "reference"


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, g):
        return g / (1 + ctx.saved_tensors[0].abs()) ** 2


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):  # noqa: ARG004
        return v * 1

    @staticmethod
    def backward(ctx, g):  # noqa: ARG004
        return g * 0.1


def _no_grad(c, a, h):
    with torch.no_grad():
        gate = a.sigmoid()
    return gate * a + linear(h, c.u)


def _clipped(c, a, h):
    z = a + linear(h, c.u)
    if z.requires_grad:
        z.register_hook(lambda g: g.clamp(-0.01, 0.01))
    return z.tanh()


def _set(c, a, h):
    u = c.u.clone()
    u[0] = 0
    return a + linear(h, u)


def _out(c, a, h):
    u = torch.empty_like(c.u)
    torch.mul(c.u.detach(), 0.5, out=u)
    return a + linear(h, u)


GIVEN_WAY = {
    "a backward of one's own": (lambda c, a, h: Spike.apply(a + 0.5 * h), "gradients are turned off"),
    "one of a weight": (lambda c, a, h: a + linear(h, Scaled.apply(c.u)), "gradients are turned off"),
    "no_grad": (_no_grad, "gradients are turned off"),
    "is_grad_enabled": (lambda c, a, h: a + h * (0.5 if torch.is_grad_enabled() else 0.1), "whether gradients are on"),
    "requires_grad": (_clipped, "needs a gradient|no gradient|the step asks"),
    "item": (lambda c, a, h: a + h * c.b[0].item(), "value of a tensor"),
    "float": (lambda c, a, h: a + h * float(c.b[0]), "value of a tensor"),
    "a branch": (lambda c, a, h: a if c.b[0] > 0 else h, "value of a tensor"),
    "tolist": (lambda c, a, h: a + h * c.b.tolist()[0], "value of a tensor"),
    "numpy": (lambda c, a, h: a + h * float(c.b.detach().numpy()[0]), "value of a tensor"),
    "a hook of a weight": (lambda c, a, h: (c.u * 1).register_hook(lambda g: g) and a + h, "value of a tensor"),
    "setitem": (_set, "changes a weight in place"),
    "out": (_out, "changes a weight in place"),
    "a mask of a weight": (lambda c, a, h: a + h * nn.functional.dropout(c.b, 0.5, c.training), "a random draw"),
    "indices": (lambda c, a, h: a - a.max(-1).values.unsqueeze(-1) + h, "over an axis, with its indices"),
    "compiled": (lambda c, a, h: torch.jit.script(_act)(a + h), "an error stopped it"),
    "a number from the batch size": (lambda c, a, h: a + h * (c.b / a.shape[0]), "from the batch size"),
    "a branch for one sequence": (lambda c, a, h: a + h if a.shape[0] > 1 else a, "from the batch size"),
    "a branch for many": (lambda c, a, h: a + h if a.shape[0] > 16 else a, "from the batch size"),
    "an empty slice": (lambda c, a, h: torch.cat([a[:, 1:1], a + h], -1), "an empty range"),
    "an error": (lambda c, a, h: {}["key"], "KeyError at .*test_like_the_loop"),
}


def _act(v: torch.Tensor) -> torch.Tensor:
    return torch.tanh(v)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("name", GIVEN_WAY)
def test_what_only_the_plain_loop_does(name):
    body, why = GIVEN_WAY[name]
    with pytest.raises(UnderivableStepError, match=why):
        derive(Own(body))
    assert executor_of(Own(body)) == "reference"


def test_a_derivation_leaves_the_generator_alone():
    drawn = []

    def meanwhile(w):  # a function of torch, while which another thread draws
        if has_torch_function_unary(w):
            return handle_torch_function(meanwhile, (w,), w)
        thread = threading.Thread(target=lambda: drawn.append(float(torch.rand(1))))
        thread.start()
        thread.join()
        return w * 1

    assert executor_of(Own(lambda c, a, h: a + linear(h, meanwhile(c.u)))) == "native"
    assert len(set(drawn)) == len(drawn) > 1
    cell, before = Own(lambda c, a, h: a + h * nn.functional.dropout(c.b)), torch.get_rng_state()
    assert executor_of(cell) == "reference"
    torch.testing.assert_close(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:.*runs in the plain loop")
def test_the_loop_s_own_error_is_raised():
    with pytest.raises(KeyError, match="key"):
        scan(Own(lambda c, a, h: {}["key"]), torch.randn(6, 2, 3))


def test_a_trace_leaves_the_cache_of_parametrizations_alone():
    class Skew(nn.Module):
        def forward(self, w):
            return w - w.t()

    cell = Own(lambda c, a, h: (a + linear(h, c.u)).tanh())
    parametrize.register_parametrization(cell, "u", Skew())
    with parametrize.cached():
        same(cell)
        assert run(cell, torch.randn(6, 2, 3))[3].abs().sum() > 0


def _conjugate(u):
    return torch.complex(u, u + 1).mH.imag  # its numbers lie there with the other sign


def _above(a, of=0.0, to=None):
    return (a > of).to(a.dtype if to is None else to)


EQUAL = {  # body, whether it is derived
    "a mask of weights": (lambda c, a, h: (a + linear(h, c.u)).tanh() * (c.b > 0), True),
    "where": (lambda c, a, h: torch.where(c.b > 0.5, a, h * c.b) * c.b.long(), True),
    "masked_fill": (lambda c, a, h: (a + h * c.b).masked_fill(c.b > 0.5, 0.25), True),
    "masks added": (lambda c, a, h: (a + h * c.b).tanh() + (c.b > 0) + (c.b > 0.5), True),
    "other bits": (lambda c, a, h: (a + linear(h, c.u)).tanh() * c.b.detach().bfloat16(), True),
    "buffers": (lambda c, a, h: torch.where(~c.mask, a + linear(h, c.u[c.perm]), h * c.small * c.small), True),
    "negated where it lies": (lambda c, a, h: (a + linear(h, _conjugate(c.u))).tanh() * c.b, True),
    "an index that is a list": (lambda c, a, h: a + h * c.u[[1, 0]].mean(0), True),
    "complex": (lambda c, a, h: a + h * (c.z * c.z).real * c.z.imag, True),
    "complex values": (lambda c, a, h: (a + h * c.z).real, False),
    "comparisons converted": (lambda c, a, h: (a + h * c.b).tanh() * (_above(a) + _above(a, -0.5)), True),
    "one minus": (lambda c, a, h: (a + linear(h, c.u)).tanh() * (1 - _above(a)) + _above(h).type_as(a), True),
    "moved": (lambda c, a, h: a * _above(a[:, :2]).unsqueeze(1).expand(-1, 2, -1).flatten(1) + h * c.b, True),
    "comparisons added": (lambda c, a, h: (a + h * c.b).tanh() * ((a > 0) + (a > -0.5)), False),
    "beside numbers": (lambda c, a, h: (a + h * c.b).tanh() * (a > 0) + (h > 0.1) + (h > 0.2), True),
    "a mean of comparisons": (lambda c, a, h: a + h * (a > 0).to(a.dtype).mean(-1, keepdim=True) * c.b, True),
    "a softmax in another dtype": (lambda c, a, h: (a + h).softmax(-1, dtype=torch.bfloat16).to(a.dtype), False),
}


@pytest.mark.filterwarnings("ignore:.*runs in the plain loop")
@pytest.mark.parametrize("executor", ["auto", "staged"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", EQUAL)
def test_booleans_and_other_dtypes(name, dtype, executor):
    body, derived = EQUAL[name]
    cell = Own(body)
    with torch.no_grad():
        cell.b.copy_(torch.tensor([1.0, -1.0, 0.25, 2.0]))
    cell.register_buffer("perm", torch.tensor([1, 0, 3, 2]))
    cell.register_buffer("mask", torch.tensor([True, False, True, True]))
    cell.register_buffer("small", torch.tensor([1, 2, 3, 100], dtype=torch.int8))
    cell.to(dtype)
    cell.register_buffer("z", torch.complex(torch.rand(4, dtype=dtype), torch.rand(4, dtype=dtype)))
    assert (executor_of(cell) == "native") is derived
    if not derived:
        return
    same(cell, executor=executor)
    grads, x = [], torch.randn(6, 2, 3, dtype=dtype)
    for by in (executor, "reference"):
        with options(executor=by):
            y, _ = scan(cell, x)
        grads.append(torch.autograd.grad(y.square().sum(), cell.w, create_graph=True)[0])
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        stream = CellStream(cell, 2)
        pushed, _ = stream.push(x)
    torch.testing.assert_close(pushed, y, rtol=1e-4, atol=1e-4)


def test_numbers_that_lie_with_the_other_sign():
    cell = recurra.LSTMCell(3, 4)
    x, g = (torch.complex(torch.randn(6, 2, n), torch.randn(6, 2, n)).conj().imag for n in (3, 4))
    assert x.is_neg()
    grads = []
    for executor in ("native", "reference"):
        with options(executor=executor):
            y, _ = scan(cell, x)
        grads.append([y, *torch.autograd.grad(y, list(cell.parameters()), g)])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("key", ["a list", "nested", "_private", "a submodule", "a hook", "a type", "a dtype"])
def test_what_a_step_depends_on_may_change(key):
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.product, self._factor = nn.Linear(4, 4), 0.5

        def forward(self, h):
            return self.product(h) * self._factor

    cell = Own(
        lambda c, a, h: (a + c.few[0] * c.many["k"][1] * c.inner(h) + c._own + torch.finfo(a.dtype).eps * 1e6).tanh()
    )
    cell.few, cell.many, cell._own, cell.inner = [0.1], {"k": (1, 0.5)}, 0.1, Inner()
    x = torch.randn(6, 2, 3)
    same(cell, x)
    changes = {
        "a list": lambda: cell.few.__setitem__(0, 0.9),
        "nested": lambda: cell.many.__setitem__("k", (1, 2.5)),
        "_private": lambda: setattr(cell, "_own", 0.9),
        "a submodule": lambda: setattr(cell.inner, "_factor", 1.5),
        "a hook": lambda: cell.inner.product.register_forward_hook(lambda m, given, made: 2 * made),
        "a type": lambda: setattr(cell, "few", (0.9,)),
        "a dtype": lambda: cell.double(),
    }
    before = run(cell, x)[0]
    changes[key]()
    x = x.to(next(cell.parameters()).dtype)
    same(cell, x)
    assert not torch.allclose(run(cell, x)[0], before.to(x.dtype), atol=1e-5)
    assert executor_of(cell) == "native"


def test_an_object_that_takes_the_place_of_another_is_another():
    class Factor:
        def __init__(self, value):
            self.value = value

    cell = Own(lambda c, a, h: a + c.factor.value * linear(h, c.u))
    for k in range(20):
        cell.factor = None
        cell.factor = Factor(0.05 * k)  # where the last one lay, like as not
        same(cell)


def test_a_cell_that_an_attribute_knows_is_freed():
    cell = Own(lambda c, a, h: c.act(a + h * c.b))
    cell.act = cell.own_act = Bound(cell).tanh
    same(cell)
    gone = weakref.ref(cell)
    del cell
    gc.collect()
    assert gone() is None


class Bound:
    def __init__(self, cell):
        self.cell = cell

    def tanh(self, v):
        return v.tanh()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_tangents_go_through_the_plain_loop():
    cell, x = recurra.RNNCell(3, 4), torch.randn(6, 2, 3)
    found = []
    with forward_ad.dual_level(), torch.no_grad():
        for executor in ("auto", "reference"):
            with options(executor=executor):
                y, _ = scan(cell, forward_ad.make_dual(x, torch.ones_like(x)))
            found.append(forward_ad.unpack_dual(y).tangent)
        assert "forward_ad" in plan_for(cell, x).against["native"]
    torch.testing.assert_close(*found)


@pytest.mark.filterwarnings("ignore:.*runs in the plain loop")
def test_weights_that_are_set_before_each_call():
    cell, x = recurra.RNNCell(3, 4), torch.randn(6, 2, 3)
    prune.l1_unstructured(cell, "weight_hh", 0.5)
    before, _ = scan(cell, x)
    with torch.no_grad():
        cell.weight_hh_orig.mul_(3)
    y, _ = scan(cell, x)
    assert not torch.equal(y, before)
    y.sum().backward()
    assert cell.weight_hh_orig.grad[cell.weight_hh_mask == 0].eq(0).all()
    assert cell.weight_hh_orig.grad.abs().sum() > 0
    cell.register_forward_pre_hook(lambda m, given: given)
    with pytest.raises(OptionError, match="changes its arguments"):
        scan(cell, x)


@pytest.mark.parametrize("save", [float("nan"), float("inf"), 0, True, "some"])
def test_a_budget_that_is_none(save):
    with pytest.raises(OptionError, match="save must be"), options(save=save):
        pass


@pytest.mark.parametrize("longest", [2, float("inf"), float("nan")])
def test_a_time_that_is_none(longest):
    with pytest.raises(OptionError, match="longest must be"):
        recurra.chrono(recurra.LSTMCell(3, 4), longest)
