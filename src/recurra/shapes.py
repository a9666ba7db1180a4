"""Shapes written in letters: ``"4H D"`` is a matrix of four blocks of H rows, each D wide.

One letter means one thing everywhere: T frames, B sequences, D inputs, H units, G gate blocks, L layers, V vocabulary.
A cell may add letters of its own, such as P for the width of a projection.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from recurra.errors import ShapeSpecError

RESERVED = frozenset("TBGLV")  # axes and counts that no weight or state of a single step has
_TERM = re.compile(r"(\d+)|(\d*)([A-Z])")


@dataclass(frozen=True)
class Dim:
    """One width: its size, and its name as a sum of letters.

    Example:
        >>> four_h = dims("4H", {"H": 6})[0]
        >>> four_h.size, str(four_h), str(four_h.part(6)), str(four_h.part(5))
        (24, '4H', 'H', '5')
    """

    size: int
    terms: tuple[tuple[str, Fraction], ...] = ()  # (letter, coefficient); no terms: a bare number

    def __str__(self) -> str:
        if not self.terms:
            return str(self.size)
        return "+".join(f"{'' if k == 1 else k}{letter}" for letter, k in self.terms)

    def __add__(self, other: "Dim") -> "Dim":
        if not (self.terms and other.terms):
            return Dim(self.size + other.size)
        total: dict[str, Fraction] = {}
        for letter, k in (*self.terms, *other.terms):
            total[letter] = total.get(letter, Fraction(0)) + k
        return Dim(self.size + other.size, tuple(total.items()))

    def part(self, size: int) -> "Dim":
        """A slice of this width: named when it is a whole number of blocks, or one of the letters summed."""
        scaled = tuple((letter, k * Fraction(size, self.size)) for letter, k in self.terms) if self.size else ()
        if scaled and all(k.denominator == 1 and k > 0 for _, k in scaled):
            return Dim(size, scaled)
        return Dim(size)


Shape = tuple[Dim, ...]
ONE = Dim(1)


def dims(spec: str, sizes: Mapping[str, int]) -> Shape:
    """Read a shape such as ``"4H D"``, ``"H D+H"`` or ``"H K"`` with the sizes of its letters.

    Raises:
        ShapeSpecError: the text is no shape, or uses a letter without a size.

    Example:
        >>> [d.size for d in dims("4H D+H", {"D": 3, "H": 5})]
        [20, 8]
    """
    return tuple(_dim(text, spec, sizes) for text in spec.split())


def _dim(text: str, spec: str, sizes: Mapping[str, int]) -> Dim:
    total: Dim | None = None
    for term in text.split("+"):
        match = _TERM.fullmatch(term)
        if match is None:
            raise ShapeSpecError(
                f"cannot read {term!r} in the shape {spec!r}",
                received=repr(spec),
                instead='letters with an optional factor, widths apart by a space: "4H D", "H D+H"',
            )
        number, factor, letter = match.groups()
        if number is not None:
            dim = Dim(int(number))
        elif letter not in sizes:
            raise ShapeSpecError(
                f"the shape {spec!r} uses the letter {letter}, whose size is not known",
                received=", ".join(f"{k} = {v}" for k, v in sizes.items()) or "no sizes",
                instead=f"give it to the cell: super().__init__(input_size, hidden_size, {letter}=...)",
            )
        else:
            k = int(factor or 1)
            dim = Dim(k * sizes[letter], ((letter, Fraction(k)),))
        total = dim if total is None else total + dim
    assert total is not None  # str.split never yields an empty word
    return total


def extent(shape: Shape) -> tuple[int, ...]:
    """The sizes of a shape."""
    return tuple([d.size for d in shape])  # asked for in every call, and a generator is twice as dear


def numel(shape: Shape) -> int:
    """How many numbers a tensor of this shape holds."""
    return math.prod(d.size for d in shape)


def show(shape: Shape) -> str:
    """A shape in letters, for printing.

    Example:
        >>> show(dims("4H D", {"D": 3, "H": 5}))
        '(4H, D)'
    """
    return f"({', '.join(map(str, shape))})"


def broadcast(*shapes: Shape) -> Shape | None:
    """The shape that `shapes` broadcast to, or None where they do not fit.

    Where two widths have one size but different names, the first name stays; a name is better than a bare number.
    """
    rank = max(map(len, shapes), default=0)
    padded = [(ONE,) * (rank - len(s)) + s for s in shapes]
    result = []
    for widths in zip(*padded, strict=True):
        wide = [d for d in widths if d.size != 1]
        if any(d.size != wide[0].size for d in wide):
            return None
        result.append(next((d for d in wide if d.terms), wide[0]) if wide else widths[0])
    return tuple(result)
