"""From a row to calls: what each kind of row measures, and how its equal work is shown."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

import recurra
from benchmarks import article, gate, streams
from benchmarks.cases import ARTICLE, Article, Case, Crowd, Frames, Row, Sweep
from benchmarks.contenders import BASELINES, CONTENDERS, EXECUTORS_MEASURED, EXTRA, draw
from benchmarks.torch_modules import Run, measured
from benchmarks.workers import Workers
from recurra.engine import EXECUTORS
from recurra.engine.scan import make_request

NOT_IN_QUICK = ("recurra torch", "recurra associative", "recurra staged")
FRAMES_IN_QUICK = 16  # equal work is shown on so many frames of a shape, in full runs on all of them


@dataclass
class Prepared:
    """The calls of one row."""

    calls: dict[str, Run]
    refused: dict[str, str]
    baseline: str  # what the others are compared with
    flops: Callable[[str], int]  # of one call of a contender
    bytes: int  # that a forward pass must move at least
    # Raises AssertionError where one of ours does other work; gives those of other processes that do, and what.
    check: Callable[[], dict[str, str]]


@dataclass(frozen=True)
class Setting:
    """What a run is given."""

    workers: Workers
    quick: bool = False
    data_dir: Path | None = None


def _split(prepared: Mapping[str, Any]) -> tuple[dict[str, Run], dict[str, str]]:
    calls = {name: call for name, call in prepared.items() if not isinstance(call, str)}
    return calls, {name: why for name, why in prepared.items() if isinstance(why, str)}


def _case(row: Case, setting: Setting) -> Prepared:
    material = draw(row)
    wanted = {n: c for n, c in CONTENDERS.items() if not (setting.quick and n in NOT_IN_QUICK)}
    wanted |= {name: EXTRA[name] for name in row.extra}
    prepared: dict[str, Any] = {name: prepare(material) for name, prepare in wanted.items()}
    spec, arrays = {"what": "scan", **asdict(row)}, material.arrays()
    away = setting.workers.by_name if not setting.quick or row.shape == ARTICLE else {}
    prepared |= {name: worker.prepare(spec, arrays) for name, worker in away.items()}
    calls, refused = _split(prepared)

    def check() -> dict[str, str]:
        if not setting.quick or row.T <= FRAMES_IN_QUICK:
            gate.assert_equal_work(material, calls)
        else:
            short = draw(replace(row, T=FRAMES_IN_QUICK, ragged=False))
            gate.assert_equal_work(short, _split({name: wanted[name](short) for name in wanted if name in calls})[0])
        elsewhere = {name: call for name, call in calls.items() if name in away}  # always at the very size
        return gate.unequal(calls[baseline](), elsewhere) if elsewhere else {}

    baseline = next(name for name in BASELINES if name in calls)
    return Prepared(calls, refused, baseline, lambda name: material.flops, material.bytes, check)


def _sweep(row: Sweep, setting: Setting) -> Prepared:
    prepared: dict[str, Any] = {}
    flops = 0
    for T in row.Ts:
        material, times = draw(Case(row.cell, T, row.B, row.D, row.H, row.train)), max(row.Ts) // T
        refusal = EXECUTORS["native"].refusal(make_request(material.cell, material.x))
        prepared[f"T = {T}"] = refusal or _repeated(_saving(material), times)
        flops = material.flops * times
    calls, refused = _split(prepared)
    # The same executor as in the cases of this cell, which are compared with the loop; so is its save by conformance.
    return Prepared(calls, refused, f"T = {row.Ts[0]}", lambda name: flops, 0, dict)


def _repeated(run: Run, times: int) -> Run:
    """Short scans follow short ones as long as one long scan takes: after it they would find every cache cold."""

    def repeated() -> dict[str, Tensor]:
        for _ in range(times - 1):
            run()
        return run()

    return repeated


def _saving(material: Any) -> Run:
    def forward() -> Tensor:
        with recurra.options(executor="native", save="sqrt"):
            return recurra.scan(material.cell, material.x)[0]

    return measured(material.cell, material.x, material.dy, forward, train=material.case.train)


def _article(row: Article, setting: Setting) -> Prepared:
    batch = article.draw(row, setting.data_dir)
    if isinstance(batch, str):
        return Prepared({}, dict.fromkeys(article.CONTENDERS, batch), "torch.nn", lambda name: 0, 0, dict)
    prepared: dict[str, Any] = {name: prepare(batch) for name, prepare in article.CONTENDERS.items()}
    prepared |= {name: w.prepare(batch.spec, batch.arrays()) for name, w in setting.workers.by_name.items()}
    calls, refused = _split(prepared)
    baseline = next(name for name in article.BASELINES if name in calls)
    return Prepared(calls, refused, baseline, lambda name: batch.flops, 0, lambda: article.unequal(calls))


def _frames(row: Frames, setting: Setting) -> Prepared:
    layer, x = streams.draw(row)
    prepared = streams.frames(row, layer, x)
    weights = {f"w.{name}": w.detach().numpy() for name, w in layer.cells()[0].named_parameters()}
    if worker := setting.workers.by_name.get("onnxruntime"):
        prepared["onnxruntime"] = worker.prepare({"what": "frames", **asdict(row)}, {"x": x.numpy(), **weights})
    calls, refused = _split(prepared)
    flops = 8 * row.T * row.B * row.H * (row.D + row.H)
    return Prepared(calls, refused, "torch.nn", lambda name: flops, 0, lambda: streams.unequal(calls))


def _crowd(row: Crowd, setting: Setting) -> Prepared:
    calls, refused = _split(streams.crowd(row))
    flops = 8 * row.B * row.H * (row.D + row.H)
    return Prepared(calls, refused, streams.APART, lambda name: flops, 0, dict)  # equal by the tests of streams


PREPARE: dict[type[Any], Callable[[Any, Setting], Prepared]] = {
    Case: _case, Sweep: _sweep, Article: _article, Frames: _frames, Crowd: _crowd
}  # fmt: skip


def prepare(row: Row, setting: Setting) -> Prepared:
    """The calls of a row, whatever kind it is."""
    return PREPARE[type(row)](row, setting)


def executors_of(rows: list[Row], *, quick: bool = False) -> list[str]:
    """The executors whose figures these rows of one cell would show: theirs are the tests that must be green."""
    # Refusals do not depend on sizes; a loop between products has frames of several parts.
    shapes = [Case(r.cell, 2, 2, max(1, 4 * r.D // r.H), 4, r.train, r.ragged) for r in rows if isinstance(r, Case)]
    materials = [draw(case) for case in shapes or [Case(rows[0].cell, 2, 2, 4, 4)]]
    shown = {e: n for n, e in EXECUTORS_MEASURED.items() if not (quick and n in NOT_IN_QUICK)}
    return [e for e, name in shown.items() if any(not isinstance(CONTENDERS[name](m), str) for m in materials)]
