"""Cells drawn at random: steps that nobody would write, of every operation of the vocabulary.

``python tests/engine/random_cells.py 100000 [first seed]`` compares as many with the plain loop, in float64.
"""

import random
import sys
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from recurra.cells import Cell
from recurra.testing.cases import Case, make_scan
from recurra.testing.suites import poisoned

# Each keeps numbers within reach, so that no case is lost to overflow, and smooth almost everywhere.
UNARY = (
    torch.tanh,
    torch.sigmoid,
    torch.relu,
    torch.abs,
    torch.neg,
    torch.erf,
    lambda v: v.tanh().exp(),
    lambda v: v.tanh().expm1(),
    lambda v: (v * v + 0.5).log(),
    lambda v: (v * v).log1p(),
    lambda v: (v * v + 0.25).sqrt(),
    lambda v: v.abs() * v,
    lambda v: v.detach() + v,
    lambda v: functional.softplus(v),
    lambda v: functional.silu(v),
    lambda v: functional.gelu(v),
    lambda v: v.clamp(-0.7, 0.9),
    lambda v: 1.0 - v,
    lambda v: 0.5 * v,
)
BINARY = (
    torch.add,
    torch.sub,
    torch.mul,
    lambda a, b: a / (1.0 + b * b),
    torch.maximum,
    torch.minimum,
    lambda a, b: torch.where(a > b, a, 0.3 * b),
    lambda a, b: torch.where(a <= 0.1, b, a * b),
    lambda a, b: torch.lerp(a, b, (a * b).sigmoid()),
    lambda a, b: a * b + a,
    lambda a, b: a - a * b,
    lambda a, b: a * b - b,
)


class Drawn(Cell):
    """A cell whose step is a list of moves, drawn from a seed: each makes one more value from those that are there."""

    def __init__(self, input_size, hidden_size, seed):
        rng = random.Random(seed)
        heads = rng.choice((1, 2, 3))
        super().__init__(input_size, hidden_size, N=heads, K=rng.choice((1, 2, 5)), P=rng.choice((1, 3, 9)))
        self.sizes_drawn = (heads, self.sizes["K"], self.sizes["P"])
        self.moves, self.states = [], len(type(self).State._fields)
        self._draw(rng)

    def _draw(self, rng):
        """Draws the moves by running them on the shapes alone."""
        heads, K, P = self.sizes_drawn
        H, D = self.hidden_size, self.input_size
        shapes = [(D,)] + [tuple(d.size for d in s) for s in self.state_shapes.values()]
        shapes += [tuple(d.size for d in s) for s in self.constant_shapes.values()]
        letters = {D: "D", H: "H", K: "K", P: "P", heads: "N"}

        def weight(*sizes):
            name = f"w{len(self._weight_specs)}"
            setattr(self, name, self.weight(" ".join(letters.get(s, str(s)) for s in sizes)))
            return name

        def add(kind, shape, *what):
            self.moves.append((kind, *what))
            shapes.append(tuple(shape))
            return len(shapes) - 1

        def fitting(i):  # another value that broadcasts with this one
            own = shapes[i]
            fits = lambda s: len(s) == len(own) and all(a in (b, 1) for a, b in zip(s, own, strict=True))
            ok = [k for k, s in enumerate(shapes) if fits(s)]
            return rng.choice(ok)

        def linear(i, out):
            return add("linear", (*shapes[i][:-1], out), i, weight(out, shapes[i][-1]))

        for _ in range(rng.randint(3, 14)):
            i = rng.randrange(len(shapes))
            s = shapes[i]
            match rng.choice(
                "unary unary binary binary binary linear linear vector slice cat reduce norm heads flat".split()
            ):
                case "unary":
                    add("unary", s, i, rng.randrange(len(UNARY)))
                case "binary":
                    k = fitting(i)
                    pair = (i, k) if rng.random() < 0.5 else (k, i)
                    add("binary", s, *pair, rng.randrange(len(BINARY)))
                case "linear":
                    linear(i, rng.choice((H, H, P, 2 * H)))
                case "vector":
                    add("vector", s, i, weight(*s), rng.randrange(3))
                case "slice" if s[-1] > 1:
                    start = rng.randrange(s[-1])
                    stop = rng.randint(start + 1, s[-1])
                    add("slice", (*s[:-1], stop - start), i, start, stop)
                case "cat":
                    k = rng.choice([k for k, o in enumerate(shapes) if o[:-1] == s[:-1]])
                    if s[-1] + shapes[k][-1] < 40:
                        add("cat", (*s[:-1], s[-1] + shapes[k][-1]), i, k)
                case "reduce":
                    axis = -rng.randint(1, len(s))
                    add(
                        "reduce",
                        tuple(1 if k - len(s) == axis else d for k, d in enumerate(s)),
                        i,
                        axis,
                        rng.randrange(3),
                    )
                case "norm":
                    kind = rng.choice(("layer_norm", "softmax", "rms_norm"))
                    add(kind, s, i)
                case "heads" if len(s) == 1 and s[0] % heads == 0:
                    j = add("unflatten", (heads, s[0] // heads), i, heads)
                    if rng.random() < 0.7:
                        add("blocks", (heads, K), j, weight(heads, K, s[0] // heads))
                case "flat" if len(s) == 2:
                    add("flatten", (s[0] * s[1],), i)
        self.ends = []
        for shape in [tuple(d.size for d in s) for s in self.state_shapes.values()]:
            k = rng.choice([k for k, s in enumerate(shapes) if len(s) == 1])
            if rng.random() < 0.1:  # a state that is passed on as it is, or another's value
                k = rng.choice([k for k, s in enumerate(shapes) if s == shape])
            elif len(shape) == 1:
                k = add("unary", shape, linear(k, shape[0]) if shapes[k] != shape else k, rng.choice((0, 1)))
            else:
                k = add("unflatten", shape, linear(k, shape[0] * shape[1]), shape[0])
                k = add("unary", shape, k, 0)
            self.ends.append(k)
        self.output = rng.choice([k for k, s in enumerate(shapes) if len(s) == 1 or rng.random() < 0.2])

    def step(self, x, state, *constants):
        values = [x, *state, *(c for cs in constants for c in cs)]
        for kind, *what in self.moves:
            v = values[what[0]]
            match kind:
                case "unary":
                    made = UNARY[what[1]](v)
                case "binary":
                    made = BINARY[what[2]](v, values[what[1]])
                case "linear":
                    made = functional.linear(v, getattr(self, what[1]))
                case "vector":
                    w = getattr(self, what[1])
                    made = (v + w, v * w, w.sigmoid() - v)[what[2]]
                case "slice":
                    made = v[..., what[1] : what[2]]
                case "cat":
                    made = torch.cat([v, values[what[1]]], -1)
                case "reduce":
                    made = getattr(v, ("sum", "mean", "amax")[what[2]])(what[1], keepdim=True)
                case "layer_norm":
                    made = functional.layer_norm(v, v.shape[-1:], eps=0.1)
                case "softmax":
                    made = v.softmax(-1)
                case "rms_norm":
                    made = functional.rms_norm(v, v.shape[-1:], eps=0.1)
                case "unflatten":
                    made = v.unflatten(-1, (what[1], -1))
                case "flatten":
                    made = v.flatten(1)
                case "blocks":
                    made = torch.einsum("bgk,gjk->bgj", v, getattr(self, what[1]))
            values.append(made)
        return values[self.output], type(self).State(*(values[k] for k in self.ends))


class OneState(NamedTuple):
    h: Tensor


class ThreeStates(NamedTuple):
    h: Tensor
    p: Annotated[Tensor, "P"]
    m: Annotated[Tensor, "N K"]


class Fixed(NamedTuple):
    mask: Tensor
    scale: Annotated[Tensor, "1"]


class DrawnOne(Drawn):
    State = OneState


class DrawnThree(Drawn):
    State = ThreeStates


class DrawnFixed(Drawn):
    State, Constants = OneState, Fixed


def compare(seed):
    """One drawn cell, of drawn sizes, masks and threads, against the plain loop in float64.

    A wrong program is wrong in the first digits, so the bound may be loose: drawn cells cancel and divide as nobody's
    would, and where a gradient is zero by symmetry the loop's rounding may be exactly zero and another's not.
    """
    rng = random.Random(~seed)
    kind = rng.choice((DrawnOne, DrawnThree, DrawnFixed))
    shape = (rng.choice((1, 2, 3, 5)), rng.choice((1, 2, 5, 9, 17)), rng.randint(1, 9), rng.choice((1, 2, 3, 6, 8, 12)))
    case = Case(f"seed {seed}", *(rng.random() < 0.3 for _ in range(5)))
    save = rng.choice(("all", "all", "sqrt", 500))
    torch.set_num_threads(rng.choice((1, 2)))
    made = make_scan(lambda D, H: kind(D, H, seed), shape, case, seed=seed)
    with poisoned():
        got = made.results("native", torch.float64, save)
    reference = made.results("reference", torch.float64)
    assert got.keys() == reference.keys()
    for name, ref in reference.items():
        off = (got[name] - ref).norm().item()
        assert off <= 1e-9 * (1 + ref.norm().item()), (
            f"{name} is off by {off:.3g} of {ref.norm():.3g}; seed {seed}: {kind.__name__}{shape}, {case}, save={save!r}, "
            f"moves {made.cell.moves}, ends {made.cell.ends}, output {made.cell.output}"
        )
        if "lengths" in made.arguments and name in ("y", "d x0"):
            padding = torch.arange(shape[0])[:, None] >= made.arguments["lengths"]
            assert (got[name][padding] == 0).all(), f"{name} is not zero in padding; seed {seed}"


if __name__ == "__main__":
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**31)
    print(f"{count} cells from seed {first}", flush=True)
    for seed in range(first, first + count):
        compare(seed)
        if seed % 1000 == 999:
            print(f"{seed - first + 1} agree", flush=True)
    print("all agree")
