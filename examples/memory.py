"""The field's own tests of memory, one command each: what a cell can still learn from long ago.

    python examples/memory.py adding --T 1000 --cell rg_lru  # the sum of two marked numbers (Hochreiter & Schmidhuber)
    python examples/memory.py copy --T 1000 --cell lru       # ten symbols, given back after T frames (Arjovsky et al.)
    python examples/memory.py order --T 200                  # which of two symbols came first (the first two)
    python examples/memory.py mnist --data-dir data/mnist    # an image, pixel by pixel (Le et al.)
    python examples/memory.py mnist --data-dir data/mnist --permuted  # its pixels in one order without sense
    python examples/memory.py lags --task order              # success against T for six cells, as a picture

Training stops when the task is solved: a mean squared error below 1e-3 (adding), a loss below a tenth of that of
guessing without memory (copy), 99 % of answers right (order).
"""

import argparse
import gzip
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import recurra

# What mnist begins with: an epoch of it takes between 5 and 6 minutes on two cores.
MNIST = {"cell": "lru", "hidden_size": 64, "layers": 2, "lr": 8e-3, "batch_size": 32, "epochs": 4}
PERMUTED = MNIST | {"epochs": 7}
CELLS = ("rnn", "lstm", "gru", "ind_rnn", "min_gru", "rg_lru")
SYMBOLS, COPIED = 8, 10
TESTED = 1000  # answers


class Reader(nn.Module):
    """Recurrent layers, and a linear layer on the last frames."""

    def __init__(self, cell, inputs, outputs, *, T, hidden_size=128, layers=1, frames=1):
        super().__init__()
        self.recurrent = recurra.Recurrent(cell, inputs, hidden_size, layers)
        if any(made.memory for made in self.recurrent.cells()):
            recurra.chrono(self.recurrent, T)
        for made in self.recurrent.cells():
            if isinstance(made, recurra.cells.LRUCell):  # circles that take T frames and more to die out, at any pace
                with torch.no_grad():
                    made.nu.copy_(-torch.empty_like(made.nu).uniform_(T, 10 * T).log())
                    made.theta.copy_(torch.empty_like(made.theta).uniform_(0, math.pi).log())
        self.head, self.frames, self.T = nn.Linear(hidden_size, outputs), frames, T

    def forward(self, x):
        """x (B, T, D) -> (B, frames, outputs)."""
        return self.head(self.recurrent(x)[0][:, -self.frames :])

    @torch.no_grad()
    def hold(self):
        """What a unit of an IndRNN keeps over T frames grows to no more than twice (Li et al., 2018)."""
        for made in self.recurrent.cells():
            if isinstance(made, recurra.cells.IndRNNCell):
                made.weight_hh.clamp_(-(2 ** (1 / self.T)), 2 ** (1 / self.T))


# --- tasks: T -> (inputs, outputs, frames that answer), and batch(B) -> x, target ------------------------------------


class Adding:
    """Two of T numbers between 0 and 1 are marked: one in each half; the answer is their sum."""

    inputs, outputs, frames, solved, figure = 2, 1, 1, 1e-3, "mean squared error"

    def __init__(self, T):
        self.T = T

    def batch(self, B):
        """x (B, T, 2), the sum (B, 1, 1)."""
        x = torch.zeros(B, self.T, 2)
        x[..., 0] = torch.rand(B, self.T)
        half, rows = self.T // 2, torch.arange(B)
        for low, high in ((0, half), (half, self.T)):
            x[rows, torch.randint(low, max(low + 1, high), (B,)), 1] = 1
        return x, (x[..., 0] * x[..., 1]).sum(1)[:, None, None]

    def loss(self, y, target):
        """What is trained on."""
        return nn.functional.mse_loss(y, target)

    error = loss


class Copy:
    """Ten symbols, T blanks, a sign to begin: then the symbols, in their order."""

    inputs, outputs, frames, figure = SYMBOLS + 2, SYMBOLS, COPIED, "cross-entropy"
    solved = math.log(SYMBOLS) / 10  # who remembers nothing guesses

    def __init__(self, T):
        self.T = T

    def batch(self, B):
        """x (B, T + 20, 10), the symbols (B, 10)."""
        symbols = torch.randint(SYMBOLS, (B, COPIED))
        ids = torch.full((B, self.T + 2 * COPIED), SYMBOLS)
        ids[:, :COPIED], ids[:, -COPIED] = symbols, SYMBOLS + 1
        return nn.functional.one_hot(ids, SYMBOLS + 2).float(), symbols

    def loss(self, y, target):
        """What is trained on."""
        return nn.functional.cross_entropy(y.flatten(0, 1), target.flatten())

    error = loss


class Order:
    """Two of T frames hold an X or a Y each, all others noise: which pair was it?"""

    inputs, outputs, frames, solved, figure = 6, 4, 1, 0.01, "part of answers wrong"

    def __init__(self, T):
        self.T = T

    def batch(self, B):
        """x (B, T, 6), which of the four pairs (B,)."""
        ids = torch.randint(2, 6, (B, self.T))
        rows, told = torch.arange(B), torch.randint(2, (2, B))
        for symbol, part in zip(told, (0.1, 0.5), strict=True):  # which lasts a tenth
            low, high = int(part * self.T), int((part + 0.1) * self.T)
            ids[rows, torch.randint(low, max(low + 1, high), (B,))] = symbol
        return nn.functional.one_hot(ids, 6).float(), 2 * told[0] + told[1]

    def loss(self, y, target):
        """What is trained on."""
        return nn.functional.cross_entropy(y[:, 0], target)

    def error(self, y, target):
        """What decides."""
        return (y[:, 0].argmax(1) != target).float().mean()


TASKS = {"adding": Adding, "copy": Copy, "order": Order}


def learn(task, cell, *, steps=20_000, B=50, hidden_size=128, layers=1, lr=2e-3, seed=0, minutes=math.inf, say=print):
    """Train until the task is solved, or the steps or minutes are over: the error at the end, and the steps taken."""
    torch.manual_seed(seed)
    net = Reader(cell, task.inputs, task.outputs, T=task.T, hidden_size=hidden_size, layers=layers, frames=task.frames)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    began, errors, step = time.perf_counter(), [], 0
    for step in range(1, steps + 1):
        x, target = task.batch(B)
        optimizer.zero_grad()
        y = net(x)
        task.loss(y, target).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        net.hold()
        with torch.no_grad():
            errors.append(float(task.error(y, target)))
        recent = sum(errors[-50:]) / len(errors[-50:])
        spent = (time.perf_counter() - began) / 60
        if step % 200 == 0:
            say(f"step {step:6}  {task.figure} {recent:.5f}  {spent:.1f} min")
        if (len(errors) >= 50 and recent < task.solved) or spent > minutes:
            break
    net.eval()
    with torch.no_grad():
        drawn = [task.batch(100) for _ in range(TESTED // 100)]
        final = sum(float(task.error(net(x), target)) for x, target in drawn) / len(drawn)
    return final, step


def lags(named, cells, Ts, picture, **settings):
    """Success against T, cell by cell."""
    errors = {cell: [] for cell in cells}
    for cell in cells:
        for T in Ts:
            final, steps = learn(TASKS[named](T), cell, say=lambda line: None, **settings)
            errors[cell].append(final)
            print(f"{cell:8} T = {T:5}: {final:.4f} after {steps} steps", flush=True)
    minutes = settings.get("minutes", math.inf)
    drawn(named, errors, Ts, picture, f"{minutes:g} minutes" if minutes < math.inf else f"{settings['steps']:,} steps")


def drawn(named, errors, Ts, picture, spent):
    """The errors of each cell against T; where none of the 1,000 answers tested is wrong, as half of one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for cell, finals in errors.items():
        axes.plot(Ts, [final or 0.5 / TESTED for final in finals], marker="o", label=cell)  # the axis knows no 0
    axes.axhline(TASKS[named].solved, color="black", linewidth=0.8, linestyle=":", label="solved")
    axes.set(xscale="log", yscale="log", xlabel="T", ylabel=TASKS[named].figure, title=f"{named}, after {spent} each")
    axes.set_xticks(Ts, labels=[str(T) for T in Ts])
    axes.minorticks_off()
    figure.legend(loc="outside right upper")
    figure.savefig(picture, metadata={"Date": None})


# --- images, pixel by pixel -------------------------------------------------------------------------------------------


class Blocks(nn.Module):
    """Recurrent layers as Orvieto et al. (2023) stack them, and a linear layer on the mean of all frames.

    A block adds to its input what a cell makes of it, normalised before, and gated after.
    """

    def __init__(self, cell, inputs, outputs, *, hidden_size, layers):
        super().__init__()
        many = lambda make: nn.ModuleList(make() for _ in range(layers))
        self.inputs, self.head = nn.Linear(inputs, hidden_size), nn.Linear(hidden_size, outputs)
        self.norms = many(lambda: nn.LayerNorm(hidden_size))
        self.recurrent = many(lambda: recurra.Recurrent(cell, hidden_size, hidden_size))
        self.gates = many(lambda: nn.Linear(hidden_size, 2 * hidden_size))

    def forward(self, x):
        """x (B, T, D) -> (B, outputs)."""
        x = self.inputs(x)
        for norm, recurrent, gate in zip(self.norms, self.recurrent, self.gates, strict=True):
            x = x + nn.functional.glu(gate(nn.functional.gelu(recurrent(norm(x))[0])))
        return self.head(x.mean(1))


def images(folder, part):
    """``(N, 784)`` in 0 to 1, and their digits."""
    read = lambda name, skip: np.frombuffer(gzip.decompress((folder / name).read_bytes())[skip:], np.uint8)
    pixels = torch.from_numpy(read(f"{part}-images-idx3-ubyte.gz", 16).copy()).view(-1, 784).float() / 255
    return pixels, torch.from_numpy(read(f"{part}-labels-idx1-ubyte.gz", 8).copy()).long()


def mnist(folder, cell, *, permuted, epochs, B, hidden_size, layers, lr, seed, limit=None):
    """The accuracy on the test images after so many epochs."""
    torch.manual_seed(seed)
    order = torch.randperm(784, generator=torch.Generator().manual_seed(92)) if permuted else torch.arange(784)
    (x, labels), (tx, tlabels) = images(folder, "train"), images(folder, "t10k")
    x, labels, tx, tlabels = x[:limit, order, None], labels[:limit], tx[:limit, order, None], tlabels[:limit]
    net = Blocks(cell, 1, 10, hidden_size=hidden_size, layers=layers)
    steps = epochs * math.ceil(len(x) / B)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    began, right = time.perf_counter(), 0.0
    for epoch in range(epochs):
        net.train()
        for rows in torch.randperm(len(x)).split(B):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), labels[rows]).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        net.eval()
        tested = tx.split(500), tlabels.split(500)
        with torch.no_grad():
            right = sum(int((net(a).argmax(1) == b).sum()) for a, b in zip(*tested, strict=True))
        print(
            f"epoch {epoch + 1}: {right / len(tx):.2%} of unseen images, {(time.perf_counter() - began) / 60:.1f} min",
            flush=True,
        )
    return right / len(tx)


def at_least(least):
    """What the parser reads a whole number by."""

    def whole(given):
        if int(given) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, received {given}")
        return int(given)

    return whole


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*TASKS, "mnist", "lags"])
    parser.add_argument("--T", type=at_least(3), default=200)
    parser.add_argument("--cell", default="lstm", choices=sorted(recurra.cells.CELLS))
    parser.add_argument("--hidden-size", type=at_least(1), default=128)
    parser.add_argument("--layers", type=at_least(1), default=1)
    parser.add_argument("--batch-size", type=at_least(1), default=50)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--steps", type=at_least(0), default=20_000)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", choices=list(TASKS), default="order", help="with lags")
    parser.add_argument("--lags", type=at_least(3), nargs="+", default=[20, 50, 100, 200, 400], help="with lags")
    parser.add_argument("--picture", default="lags.svg", help="with lags")
    parser.add_argument("--data-dir", type=Path, help="with mnist: the folder of its four files")
    parser.add_argument("--permuted", action="store_true", help="with mnist")
    parser.add_argument("--epochs", type=at_least(1), help="with mnist: 4, with --permuted 7")
    parser.add_argument("--limit", type=at_least(1), help="with mnist: so many images only")
    chosen = parser.parse_args(arguments)
    if chosen.what == "mnist":
        parser.set_defaults(**(PERMUTED if chosen.permuted else MNIST))
        chosen = parser.parse_args(arguments)
    common = {"hidden_size": chosen.hidden_size, "layers": chosen.layers, "lr": chosen.lr, "seed": chosen.seed}
    if chosen.what == "mnist":
        if chosen.data_dir is None or not (chosen.data_dir / "train-images-idx3-ubyte.gz").is_file():
            parser.error(f"mnist reads its four .gz files from --data-dir; received {chosen.data_dir}")
        more = {"permuted": chosen.permuted, "epochs": chosen.epochs, "B": chosen.batch_size, "limit": chosen.limit}
        return mnist(chosen.data_dir, chosen.cell, **more, **common)
    settings = {"steps": chosen.steps, "B": chosen.batch_size, "minutes": chosen.minutes, **common}
    if chosen.what == "lags":
        return lags(chosen.task, CELLS, chosen.lags, chosen.picture, **settings)
    task = TASKS[chosen.what](chosen.T)
    final, steps = learn(task, chosen.cell, **settings)
    said = "solved" if final < task.solved else "not solved"
    print(f"{chosen.what}, T = {chosen.T}, {chosen.cell}: {task.figure} {final:.5f} after {steps} steps: {said}")
    return final


if __name__ == "__main__":
    main()
