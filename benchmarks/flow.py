"""``python -m benchmarks.flow``: gradient flow against brute-force autograd, and what watching a training costs.

Brute force is one forward pass of the plain loop, and one backward pass through it for each anchor frame.
"""

import time

import torch
from torch import Tensor, nn

import recurra
from recurra.diagnose.flow import _anchors, flow_of, gradient_flow
from recurra.diagnose.runs import Run, runs_of

T, D, H = 500, 16, 64


def brute_force(run: Run, seed: int = 0) -> Tensor:
    """The mean norm at each lag, every frame an anchor, of one sequence."""
    places = _anchors(run, None)
    rng = torch.Generator().manual_seed(seed)
    directions = nn.functional.normalize(torch.randn(len(places), sum(s[0].numel() for s in run.state), generator=rng))
    state = tuple(s.clone().requires_grad_() for s in run.state)
    met = []
    for x in run.x[0]:
        _, new = run.cell.step(x, run.cell.State(*state))
        state = tuple(s.clone() for s in new)  # coordinates: none of them passes by way of another
        met.append(state)
    norms = torch.full((T - 1, len(places)), torch.nan)
    for n, (t, _) in enumerate(places.tolist()):
        earlier = [s for states in met[:t] for s in states]
        last = torch.cat(met[t], 1)
        grads = torch.autograd.grad((last @ directions[n]).sum(), earlier, retain_graph=True)
        flat = torch.cat([torch.cat(grads[k :: len(state)]) for k in range(len(state))], 1)  # (t, Z)
        norms[:t, n] = flat.norm(dim=1).flip(0)
    return norms.nanmean(1)


def flows() -> None:
    """The same numbers, and the time of both."""
    torch.manual_seed(0)
    cell = recurra.chrono(recurra.LSTMCell(D, H), T)
    (run,) = runs_of(cell, torch.randn(T, 1, D))
    flow_of(run, anchors=4)  # the first call derives the step
    began = time.perf_counter()
    ours = torch.tensor(flow_of(run, anchors=None).norms, dtype=torch.float64)
    middle = time.perf_counter()
    exact = brute_force(run).double()
    seconds = middle - began, time.perf_counter() - middle
    error = float(((ours - exact).abs() / exact).max())
    print(f"gradient flow, LSTM T = {T}, H = {H}, every frame an anchor, {torch.get_num_threads()} threads")
    print(f"  largest relative difference {error:.1e} (bar: 1e-5)")
    print(f"  {seconds[0]:.2f} s against {seconds[1]:.2f} s: {seconds[1] / seconds[0]:.0f} times as fast (bar: 20)")


def watching() -> None:
    """What one look an epoch costs, of an epoch of 100 batches of 64 x 100."""
    torch.manual_seed(0)
    net, head = recurra.Recurrent("lstm", D, H), nn.Linear(H, 1)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()])
    x, target = torch.randn(64, 100, D), torch.randn(64, 1)

    def epoch() -> None:
        for _ in range(100):
            optimizer.zero_grad()
            nn.functional.mse_loss(head(net(x)[0][:, -1]), target).backward()
            optimizer.step()

    epoch()
    gradient_flow(net, x, anchors=8, sequences=8)
    began = time.perf_counter()
    epoch()
    middle = time.perf_counter()
    gradient_flow(net, x, anchors=8, sequences=8)
    cost = (time.perf_counter() - middle) / (middle - began)
    print(f"watching: {cost:.1%} of an epoch of 100 batches (bar: 5 %)")


if __name__ == "__main__":
    flows()
    watching()
