"""What is measured: each row is one case. Adding a measurement is adding a row."""

from dataclasses import dataclass

from recurra.cells import CELLS

# --- kinds of rows ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A scan of T frames, B sequences, D inputs and H units by the cell of that name."""

    cell: str
    T: int
    B: int
    D: int
    H: int
    train: bool = True  # forward and backward, gradients to inputs and weights; forward alone, without autograd
    ragged: bool = False  # lengths drawn evenly from 6 % to 100 % of T, 53 % in the mean
    extra: tuple[str, ...] = ()  # contenders that run only where a case names them
    quick: bool = False  # part of the quick run

    @property
    def name(self) -> str:
        """What it is called in tables, in JSON and in the bars."""
        what = "training step" if self.train else "forward"
        return f"{self.cell} {self.T}x{self.B}x{self.D}x{self.H} {what}{', ragged' * self.ragged}"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """T, B, D, H."""
        return self.T, self.B, self.D, self.H


@dataclass(frozen=True)
class Sweep:
    """As many frames in ever longer scans, their lengths interleaved: what a frame costs should not depend on T."""

    cell: str
    Ts: tuple[int, ...]
    B: int
    D: int
    H: int
    train: bool
    quick: bool = True

    @property
    def name(self) -> str:
        """What it is called in tables, in JSON and in the bars."""
        what = 'training step, save="sqrt"' if self.train else "forward"
        return f"{self.cell} {self.Ts[0]}…{self.Ts[-1]}x{self.B}x{self.D}x{self.H} {what}"


@dataclass(frozen=True)
class Article:
    """A whole training step of the article's network: embedding, two LSTMs, a linear layer, Adam."""

    lengths: bool  # the lengths of IMDB's reviews; else every sequence has T words
    T: int = 500
    B: int = 64
    words: int = 10_000
    D: int = 50
    H: int = 100
    classes: int = 2
    cell: str = "lstm"  # whose conformance is its gate
    quick: bool = True

    @property
    def name(self) -> str:
        """What it is called in tables, in JSON and in the bars."""
        size = "" if (self.T, self.B) == (500, 64) else f" {self.T}x{self.B}"
        return f"the article's network{size}{', lengths of IMDB' * self.lengths}"


@dataclass(frozen=True)
class Frames:
    """T frames of B sequences, pushed through a stream one by one."""

    cell: str
    B: int
    D: int
    H: int
    T: int = 100
    quick: bool = True

    @property
    def name(self) -> str:
        """What it is called in tables, in JSON and in the bars."""
        return f"{self.cell} {self.T} frames of {self.B}x{self.D}x{self.H}, one by one"


@dataclass(frozen=True)
class Crowd:
    """A frame of each of B sequences, while some leave and others join."""

    cell: str
    B: int
    D: int
    H: int
    moving: int = 100  # leave, and join, before each frame
    quick: bool = True

    @property
    def name(self) -> str:
        """What it is called in tables, in JSON and in the bars."""
        return f"{self.cell} a frame of {self.B} streams of {self.D}x{self.H}"


Row = Case | Sweep | Article | Frames | Crowd

# --- the rows ---------------------------------------------------------------------------------------------------------

ONE_THREAD, PADDED = "recurra native, one thread", "recurra native, padded"
ROUNDED, OUR_LSTM = "recurra native, bfloat16", "recurra native, LSTM"

# (T, B, D, H): the article's network; mid-sized ones; one stream; long and narrow; short and wide; a large one.
ARTICLE, MIDDLE, ONE, LONG = (500, 64, 50, 100), (128, 32, 256, 256), (1000, 1, 64, 64), (1000, 8, 64, 128)
GRID = (ARTICLE, MIDDLE, (100, 16, 512, 512), ONE, LONG, (32, 256, 128, 128), (64, 64, 1024, 1024))
LARGE = tuple(shape for shape in GRID if shape[3] >= MIDDLE[3])
STREAM = (256, 1, 512, 512)  # one sequence whose units are many enough for two threads
MEMORY = (512, 64, 256)  # T, B, H of arrays far larger than any cache
UNSEEN = "bounded_integrator"
GRID_CELLS = ("lstm", "gru", "rnn", "layer_norm_lstm", UNSEEN)
LINEAR = ("min_gru", "rg_lru")

CASES: tuple[Row, ...] = (
    Article(lengths=False),
    Article(lengths=True),
    *(Case("lstm", *s, extra=(ONE_THREAD, ROUNDED)[: 1 + (s in LARGE)], quick=True) for s in (*GRID, STREAM)),
    *(
        Case(cell, *shape, extra=(OUR_LSTM,) * (cell == "layer_norm_lstm"), quick=True)
        for cell in GRID_CELLS[1:]
        for shape in GRID
    ),
    *(Case(cell, *shape, train=False, quick=shape == ARTICLE) for cell in GRID_CELLS for shape in GRID),
    Case("lstm", *ARTICLE, ragged=True, extra=(PADDED,), quick=True),
    *(Case(cell, *ARTICLE, ragged=True) for cell in GRID_CELLS[1:]),
    *(Frames("lstm", 1, H, H) for H in (128, 512)),
    Crowd("lstm", 10_000, 64, 64),
    *(Sweep("lstm", (1000, 4000, 16000, 64000), *shape[1:], train) for shape in (ONE, LONG) for train in (False, True)),
    *(
        Case(f"{cell}_loop", T, B, parts * H, H, train=False, quick=True)
        for (T, B, H) in (MEMORY,)
        for cell, parts in (("min_gru", 2), ("rg_lru", 3))
    ),
    *(Case(cell, *shape) for cell in (*LINEAR, "lru") for shape in (ARTICLE, MIDDLE, LONG, ONE)),
    Case("lstmp", *MIDDLE),
)
CASES += tuple(Case(cell, *ARTICLE) for cell in CELLS if cell not in {case.cell for case in CASES})
