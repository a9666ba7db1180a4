"""The operator ``recurra::scan``: what follows tensors sees one node a scan, and finds the same bits."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cells_of_others import Heads, Unseen
from test_golden_plans import MAKES as GOLDEN
from test_native import _cell, _draw
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

import recurra
from recurra.engine import native as engine
from recurra.engine import operator, options, scan
from recurra.engine.derive import derive
from recurra.engine.lowered import contractions
from recurra.engine.scan import make_request
from recurra.errors import ExecutorError, InputShapeError, LengthsError, NaNInputError
from recurra.kernels.cpu import native
from recurra.kernels.lower import lower

pytestmark = pytest.mark.skipif(native() is None, reason="built without the native machine")
B, T, D, H = 4, 6, 3, 8
LENGTHS, RESET = torch.tensor([6, 2, 0, 5]), torch.rand(B, T, generator=torch.Generator().manual_seed(5)) < 0.3


@pytest.fixture(autouse=True)
def _compiler():
    """Dynamo as it is after a start; torch has it refuse any heir of torch.nn.LSTM without `allow_rnn`."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        yield
    torch._dynamo.reset()


def _nodes(graphs, name):
    """How many calls of an operator each graph has."""
    return [sum(str(n.target) == f"recurra.{name}.default" for n in g.graph.nodes) for g in graphs]


def _compiled(net, **arguments):
    """A compiled module, and the graphs that AOTAutograd makes of it: forward, backward."""
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    graphs = [], []
    kept = [lambda g, _, to=to: to.append(g) or make_boxed_func(g.forward) for to in graphs]
    backend = aot_autograd(fw_compiler=kept[0], bw_compiler=kept[1])
    return torch.compile(net, backend=backend, fullgraph=True, **arguments), *graphs


def _results(run, net, x, state, **arguments):
    """Outputs, and the gradients of all that may have one."""
    x, state = tree_map(lambda v: None if v is None else v.clone().requires_grad_(), (x, state))
    given = {} if state is None else {"hx" if isinstance(net, nn.RNNBase) else "state": state}
    found = [v for v in tree_leaves(run(x, **given, **arguments)) if v is not None]
    loss = sum((v * torch.cos(torch.arange(v.shape[-1], dtype=v.dtype))).sum() for v in found)
    wanted = [x, *(v for v in tree_leaves(state) if v is not None), *net.parameters()]
    return [*(v.detach() for v in found), *torch.autograd.grad(loss, wanted, allow_unused=True)]


def _assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        assert (a is None and b is None) or (a.dtype is b.dtype and torch.equal(a, b))


def _state(net, b=B):
    rng = torch.Generator().manual_seed(3)
    return [
        recurra.LayerState(
            *(c.State(*(torch.randn(v.shape, generator=rng) for v in c.initial_state(b))) for c in layer)
        )
        for layer in net._stack()
    ]


STACKS = {
    "lstm": lambda: recurra.Recurrent("lstm", D, H),
    "stacked_bidirectional": lambda: recurra.Recurrent("gru", D, [H, 5], bidirectional=True),
    "projected": lambda: recurra.Recurrent(lambda d, h: recurra.LSTMPCell(d, h, 5), D, H),
    "layer_norm": lambda: recurra.Recurrent("layer_norm_lstm", D, H),
    "reset_before": lambda: recurra.Recurrent(lambda d, h: recurra.GRUCell(d, h, reset="before"), D, H),
    "of_others": lambda: recurra.Recurrent(Unseen, D, H),
    "learned_state": lambda: recurra.Recurrent("rnn", D, H, learned_state=True),
}


@pytest.mark.parametrize("name", STACKS)
def test_compiled_stacks_are_the_eager_ones(name):
    net, x = STACKS[name](), torch.randn(B, T, D)
    run, forward, backward = _compiled(net)
    arguments = {"lengths": LENGTHS, "reset": RESET, "return_states": True}
    start = None if name == "learned_state" else _state(net)
    _assert_same(_results(net, net, x, start, **arguments), _results(run, net, x, start, **arguments))
    assert _nodes(forward, "scan") == _nodes(backward, "scan_backward") == [len(net.cells())]
    assert _nodes(backward, "scan") == [0]


DROP_INS = {
    "lstm": lambda: recurra.LSTM(D, H, num_layers=2, bidirectional=True),
    "projected": lambda: recurra.LSTM(D, H, proj_size=5),
    "gru": lambda: recurra.GRU(D, H),
    "rnn": lambda: recurra.RNN(D, H, nonlinearity="relu"),
}


@pytest.mark.parametrize("name", DROP_INS)
def test_compiled_drop_ins_are_the_eager_ones(name):
    net, x = DROP_INS[name](), torch.randn(T, B, D)
    start = tree_map(torch.randn_like, net(x)[1])
    run, forward, backward = _compiled(net)
    arguments = {"lengths": LENGTHS, "reset": RESET.t(), "return_states": True}
    _assert_same(_results(net, net, x, start), _results(run, net, x, start))
    _assert_same(_results(net, net, x, start, **arguments), _results(run, net, x, start, **arguments))
    assert _nodes(forward, "scan") == _nodes(backward, "scan_backward") == [len(net.cells())] * 2


def test_sizes_change_without_compiling_again():
    net = recurra.LSTM(D, H, bidirectional=True)
    run, forward, _ = _compiled(net, dynamic=True)
    for t, b in ((6, 4), (9, 3), (2, 7), (40, 2)):
        x = torch.randn(t, b, D)
        _assert_same(_results(net, net, x, None), _results(run, net, x, None))
    assert len(forward) == 1


def test_scan_can_be_compiled_by_itself():
    cell, x = Heads(D, H), [torch.randn(T, B, *(d.size for d in s)) for s in Heads(D, H).input_shapes.values()]
    constants = [torch.rand(B, *(d.size for d in s)) for s in cell.constant_shapes.values()]
    arguments = {"constants": cell.Constants(*constants), "return_states": True, "reverse": True, "lengths": LENGTHS}
    run, forward, _ = _compiled(lambda x: scan(cell, x, **arguments))
    eager = scan(cell, cell.Input(*x), **arguments)
    found = run(cell.Input(*x))
    assert type(found[1]) is cell.State
    _assert_same(tree_leaves(eager), tree_leaves(found))
    assert _nodes(forward, "scan") == [1]


# Of torch 2.13's own torch.utils.mkldnn, which inductor imports.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning:torch.jit._script")
@torch._inductor.config.patch(compile_threads=1)  # starting a pool of compilers takes longer than compiling
def test_inductor_finds_the_same():
    net = nn.Sequential(nn.Linear(D, 5), recurra.LSTM(5, H))
    x = torch.randn(T, B, D)
    run = torch.compile(net, backend="inductor", fullgraph=True)
    for a, b in zip(_results(net, net, x, None), _results(run, net, x, None), strict=True):
        torch.testing.assert_close(a, b)  # the linear layer is inductor's


def test_where_the_graph_breaks_a_layer_runs_as_in_eager_code():
    net, x = nn.Sequential(nn.Linear(D, 5), recurra.LSTM(5, H)), torch.randn(T, B, D)
    torch._dynamo.utils.counters.clear()
    with torch._dynamo.config.patch(allow_rnn=False):
        _assert_same(_results(net, net, x, None), _results(torch.compile(net, backend="aot_eager"), net, x, None))
    assert len(torch._dynamo.utils.counters["graph_break"]) == 1  # at the layer, and nowhere inside of it


def test_a_change_of_mode_is_seen():
    net = recurra.Recurrent(lambda d, h: recurra.zoneout(recurra.LSTMCell(d, h), 0.5), D, H)
    run, forward, _ = _compiled(net)
    x = torch.randn(B, T, D)
    assert not torch.equal(run(x)[0], run(x)[0])  # zoneout draws
    net.eval()
    _assert_same(tree_leaves(net(x)[0]), tree_leaves(run(x)[0]))
    assert len(forward) == 2


def test_shared_weights_have_one_gradient():
    net = recurra.Recurrent("lstm", H, H, 2)
    net.layers[1][0].weight_hh = net.layers[0][0].weight_hh
    x = torch.randn(B, T, H)
    _assert_same(_results(net, net, x, None), _results(_compiled(net)[0], net, x, None))


def test_less_can_be_saved():
    net, x = recurra.Recurrent("lstm", D, H), torch.randn(64, 300, D)
    with options(save="sqrt"):
        run, _, backward = _compiled(net)
        _assert_same(_results(net, net, x, None), _results(run, net, x, None))
    (node,) = [n for n in backward[0].graph.nodes if str(n.target) == "recurra.scan_backward.default"]
    assert node.args[-2] is None  # no tape


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_dtypes(dtype):
    net, x = recurra.Recurrent("gru", D, H, dtype=dtype), torch.randn(B, T, D, dtype=dtype)
    _assert_same(_results(net, net, x, None), _results(_compiled(net)[0], net, x, None))


def test_autocast_keeps_the_dtype_of_the_weights():
    net, x = recurra.LSTM(D, H), torch.randn(T, B, D)
    plain, run = net(x)[0], _compiled(net)[0]
    with torch.autocast("cpu", torch.bfloat16):
        for found in (net(x)[0], run(x)[0], net(x.bfloat16())[0]):
            assert found.dtype is torch.float32
            torch.testing.assert_close(found, plain, atol=1e-2, rtol=0)
        assert torch.equal(run(x)[0], net(x)[0])


def test_numbers_are_looked_at_when_it_runs():
    net, x = recurra.Recurrent("lstm", D, H), torch.randn(B, T, D)
    run = _compiled(net)[0]
    with pytest.raises(LengthsError, match=r"(?s)between 0 and T = 6.*lengths\[1\] = 7"):
        run(x, lengths=torch.tensor([1, 7, 2, 3]))
    x[2, 3] = torch.nan
    run(x, lengths=torch.tensor([1, 2, 3, 4]))  # in the padding
    with pytest.raises(NaNInputError, match="frame 3 of sequence 2"):
        run(x)


def test_no_frame_at_all():
    net, x, none = recurra.Recurrent("lstm", D, H), torch.randn(B, T, D), torch.zeros(B, dtype=torch.long)
    run, start = _compiled(net)[0], _state(net)
    expected = _results(net, net, x, start, lengths=none, return_states=True)
    found = _results(run, net, x, start, lengths=none, return_states=True)
    for a, b in zip(expected, found, strict=True):  # eager says that what has no part has no gradient
        assert torch.equal(torch.zeros_like(b) if a is None else a, b)


# --- exported ---------------------------------------------------------------------------------------------------------


class Tagger(nn.Module):
    """A user's model."""

    def __init__(self):
        super().__init__()
        self.below = recurra.Recurrent(Unseen, D, H)
        self.above = recurra.LSTM(H, 5, batch_first=True, bidirectional=True)
        self.out = nn.Linear(10, 2)

    def forward(self, x, lengths):
        """``x (B, T, D)``, ``lengths (B,)``."""
        y, state = self.below(x, lengths=lengths)
        z, (h, _) = self.above(y, lengths=lengths)
        return self.out(z), state[0].forward.fast, h


LOADED = """
import sys, torch, recurra.engine
program = torch.export.load(sys.argv[1]).module()
x, lengths, *expected = torch.load(sys.argv[2])
assert all(torch.equal(a, b) for a, b in zip(expected, program(x, lengths), strict=True))
assert not {"recurra.layers", "cells_of_others"} & sys.modules.keys()
"""


def _exported(net):
    sizes = {0: torch.export.Dim("B"), 1: torch.export.Dim("T")}
    return torch.export.export(net, (torch.randn(B, T, D), LENGTHS), dynamic_shapes=(sizes, {0: sizes[0]}))


def test_an_exported_model_runs_in_another_process(tmp_path):
    net = Tagger()
    program = _exported(net)
    assert _nodes([program], "scan") == [3]
    assert not any(isinstance(n.target, torch._ops.HigherOrderOperator) for n in program.graph.nodes)
    for b, t in ((B, T), (2, 1), (1, 9), (7, 40)):
        x, lengths = torch.randn(b, t, D), torch.randint(0, t + 1, (b,))
        _assert_same(net(x, lengths), program.module()(x, lengths))
    with pytest.raises(LengthsError, match="between 0 and T = 40"):
        program.module()(x, lengths + 41)
    torch.export.save(program, tmp_path / "net.pt2")
    torch.save((x, lengths, *(v.detach() for v in net(x, lengths))), tmp_path / "found.pt")
    arguments = [sys.executable, "-c", LOADED, str(tmp_path / "net.pt2"), str(tmp_path / "found.pt")]
    subprocess.run(arguments, check=True, timeout=120)


def test_an_exported_model_can_be_trained():
    net, x = Tagger(), torch.randn(B, T, D)
    program = _exported(net).module()
    grads = [
        torch.autograd.grad(run(x, LENGTHS)[0].square().sum(), list(run.parameters()), allow_unused=True)
        for run in (net, program)
    ]
    named = [dict(zip(dict(m.named_parameters()), g, strict=True)) for m, g in zip((net, program), grads, strict=True)]
    assert named[0].keys() == named[1].keys()
    _assert_same(named[0].values(), [named[1][k] for k in named[0]])


# --- the text and the operator ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN)
def test_a_text_makes_the_same_programs(name):
    def programs(derived):
        weights, graph = derived.forward.weights, derived.forward.graph
        step = derived.backward(frozenset([0]), frozenset(), frozenset(weights)).step
        keep = [i for i in step.saved if i not in graph.inputs]
        taped, ends = [len(graph.outputs) + step.saved.index(i) for i in keep], step.staged.graph.outputs
        yield lower(derived.forward.staged, outputs=graph.outputs, keep=keep)
        outputs = [ends[o] for o in step.inputs.values()]
        yield lower(step.staged, outputs=outputs, taped=taped, contractions=contractions(step))

    derived = derive(GOLDEN[name](50, 100))
    asked = {"wide": False, "every": False, "reverse": False, "save": "all", "check_nan": True, "needs": [[True]]}
    text = operator.written(derived, **asked)
    read = operator.read(text)
    assert list(map(str, programs(derived))) == list(map(str, programs(read.derived)))
    again = operator.written(read.derived, **asked)
    assert json.loads(again).keys() == json.loads(text).keys()
    assert again == text


def _call(name, train=True, save="all", T=T, B=B, H=16, **arguments):
    """The arguments of the operator, as a scan would give them."""
    cell = _cell(name, D, H)
    x, state, _ = _draw(cell, T, B)
    x, state = ([v.requires_grad_(train) for v in part] for part in (x, state))
    request = make_request(cell, x[0], cell.State(*state), **arguments)
    parts = [[v.detach().requires_grad_(v.requires_grad and train) for v in p] for p in engine.parts_of(request)]
    return (*parts, request.lengths, request.reset, operator.text_of(request, parts, save))


def test_the_text_is_free_of_sizes_and_of_the_machine():
    before = torch.get_num_threads()
    text = _call("lstm", T=3, B=2)[-1]
    torch.set_num_threads(2)
    try:
        assert _call("lstm", T=30, B=70)[-1] == text
    finally:
        torch.set_num_threads(before)
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


CALLS = {
    "inference": {"name": "lstm", "train": False, "lengths": LENGTHS},
    # H = 16 fills the tape: what lies between rows is not written, and would differ from run to run.
    "tape": {"name": "lstm", "reset": RESET.t()},
    "again": {"name": "layer_norm_gru", "save": "sqrt", "lengths": LENGTHS, "return_states": True},
}


@pytest.mark.parametrize("name", CALLS)
def test_torch_finds_no_fault(name):
    torch.library.opcheck(torch.ops.recurra.scan.default, _call(**CALLS[name]))


def test_torch_finds_no_fault_backward():
    *parts, lengths, reset, text = _call("gru", lengths=LENGTHS)
    parts = [[v.detach() for v in part] for part in parts]
    outputs = torch.ops.recurra.scan(*parts, lengths, reset, text)
    grads, tape = [torch.randn_like(v) for v in outputs[:-1]], outputs[-1]
    for kept in (tape, None):
        torch.library.opcheck(
            torch.ops.recurra.scan_backward.default, (grads, *parts, lengths, reset, kept, text),
            test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
        )  # fmt: skip


def test_tensors_must_fit_the_text():
    x, *rest = _call("lstm")
    with pytest.raises(InputShapeError, match="do not fit the program"):
        torch.ops.recurra.scan([x[0][..., :-1]], *rest)


def test_a_text_of_another_form_is_refused():
    *rest, text = _call("lstm")
    with pytest.raises(ExecutorError, match="another form"):
        torch.ops.recurra.scan(*rest, json.dumps({**json.loads(text), "form": 0}))


def test_several_threads():
    calls = [_call(name, B=3 + k) for k, name in enumerate(("lstm", "gru", "sru", "lstm"))]

    def work(k):
        with torch.enable_grad():
            *parts, lengths, reset, text = calls[k % len(calls)]
            parts = [[v.detach().requires_grad_() for v in part] for part in parts]
            y, *_ = torch.ops.recurra.scan(*parts, lengths, reset, text)
            return [y, *torch.autograd.grad(y.square().sum(), [*parts[0], *parts[4]])]

    alone = [work(k) for k in range(len(calls))]
    operator.read.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        for k, found in enumerate(pool.map(work, range(16))):
            _assert_same(found, alone[k % len(calls)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python warns of threads: that is what is tested
def test_a_forked_child_computes_the_same():
    net, x = recurra.Recurrent("lstm", D, H), torch.randn(B, T, D)
    run = _compiled(net)[0]
    with torch.no_grad():
        y = run(x)[0]
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(run(x)[0], y) else 1)
        assert os.waitpid(child, 0)[1] == 0
