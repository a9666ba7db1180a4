"""What is measured: each row is one case. Adding a measurement is adding a row."""

from dataclasses import dataclass

from recurra.cells import CELLS


@dataclass(frozen=True)
class Case:
    """A scan of T frames, B sequences, D inputs and H units by the cell of that name."""

    cell: str
    T: int
    B: int
    D: int
    H: int
    train: bool = True  # forward and backward, gradients to inputs and weights; forward alone, without autograd
    ragged: bool = False  # lengths drawn from 6 % to 100 % of T, so that about half of the frames are padding

    @property
    def name(self) -> str:
        """What it is called in tables and in JSON."""
        what = "training step" if self.train else "forward"
        return f"{self.cell} {self.T}x{self.B}x{self.D}x{self.H} {what}{', ragged' * self.ragged}"


# (T, B, D, H): the article's network; a mid-sized one; a long and narrow one; one stream.
ARTICLE, MIDDLE, LONG, ONE = (500, 64, 50, 100), (128, 32, 256, 256), (1000, 8, 64, 128), (1000, 1, 64, 64)

CASES: tuple[Case, ...] = (
    *(Case("lstm", *shape, train=train) for shape in (ARTICLE, MIDDLE, LONG, ONE) for train in (False, True)),
    Case("lstm", *ARTICLE, ragged=True),
    *(Case("gru", *shape) for shape in (ARTICLE, MIDDLE)),
    Case("gru", *ARTICLE, ragged=True),
    *(Case("rnn", *shape) for shape in (ARTICLE, MIDDLE)),
    Case("lstmp", *MIDDLE),
    *(Case("layer_norm_lstm", *shape) for shape in (ARTICLE, MIDDLE)),
    Case("layer_norm_lstm", *ARTICLE, ragged=True),
    *(Case(cell, *shape) for cell in ("min_gru", "lru") for shape in (ARTICLE, MIDDLE, LONG, ONE)),
)
CASES += tuple(Case(cell, *ARTICLE) for cell in CELLS if cell not in {case.cell for case in CASES})
