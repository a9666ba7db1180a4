"""``python -m benchmarks.run``: measure, or say why not; then hold the figures against the bars.

Each cell's conformance tests run first; where one is red, nothing of that cell is measured and the exit code is 1.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from benchmarks import memory
from benchmarks.bars import OURS, verdicts
from benchmarks.cases import CASES, Row
from benchmarks.gate import ROOT, conformance
from benchmarks.machine import limits, machine
from benchmarks.prepare import Setting, executors_of, prepare
from benchmarks.report import bars_text, table, write_readme
from benchmarks.timing import Times, interleaved, ratio
from benchmarks.workers import PeerError, Workers


def measure(
    row: Row, setting: Setting, limit: dict[str, float], *, rounds: int, budget: float, least: int
) -> dict[str, Any]:
    """The figures of one row: every contender that can run it, or why it cannot; none where our work is not equal."""
    prepared = prepare(row, setting)
    calls, refused = prepared.calls, prepared.refused
    red, times = "", dict[str, Times]()
    try:
        refused |= prepared.check()
    except AssertionError as error:
        red, calls = f"unequal work: {error}", {}
        refused |= dict.fromkeys(prepared.calls, red)
    while calls := {name: call for name, call in calls.items() if name not in refused}:
        try:
            times = interleaved(calls, rounds=rounds, budget=budget, least=least)
            break
        except PeerError as error:  # the others begin again without it
            refused |= {n: str(error) for n, call in calls.items() if getattr(call, "worker", None) is error.worker}
    figures = {
        name: _figures(t, times[prepared.baseline], prepared.flops(name), prepared.bytes, limit)
        for name, t in times.items()
    }
    return {"case": row.name, "baseline": prepared.baseline, "figures": figures, "refused": refused, "red": red}


def _figures(times: Times, baseline: Times, flops: int, moved: int, limit: dict[str, float]) -> dict[str, Any]:
    low, median, high = times.quartiles
    return {
        "ms": 1e3 * median,
        "quartiles_ms": [1e3 * low, 1e3 * high],
        "rounds_ms": [1e3 * seconds for seconds in times.seconds],
        "gflops": flops / median / 1e9,
        "of_peak": flops / median / 1e9 / limit["peak_gflops"],
        "gbytes_per_s": moved / median / 1e9,
        "speed_against_baseline": ratio(baseline.seconds, times.seconds),
    }


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    cells = sorted({row.cell for row in CASES})
    parser.add_argument("cells", nargs="*", metavar="CELL", help=f"of {', '.join(cells)}; default: all")
    parser.add_argument("--quick", action="store_true", help="what the bars need, in few rounds: some 6 minutes")
    parser.add_argument("--rounds", type=int, help="at most so many calls of each (default 30; quick: 7)")
    parser.add_argument("--minutes", type=float, help="to spend in all, as nearly as can be (default 40; quick: 6)")
    parser.add_argument("--threads", type=int, help="of torch and of all peers; default: as torch chooses")
    parser.add_argument("--data-dir", type=Path, help="where IMDB is; default: $RECURRA_DATA, or ../shared/data")
    parser.add_argument("--out", type=Path, help="where the JSON goes; default: benchmarks/results/<date>.json")
    parser.add_argument("--write-readme", action="store_true", help="put the figures into README.md and docs/bench.svg")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.cells) - set(cells):
        parser.error(f"no case has the cell {', '.join(sorted(unknown))}; known: {', '.join(cells)}")
    chosen.rounds = chosen.rounds or (7 if chosen.quick else 30)
    chosen.minutes = (6.0 if chosen.quick else 40.0) if chosen.minutes is None else chosen.minutes
    beside = ROOT.parent / "shared" / "data"
    chosen.data_dir = chosen.data_dir or (beside if beside.is_dir() and not os.environ.get("RECURRA_DATA") else None)
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Gate, then time. The exit code is 0 only if every cell was measured."""
    chosen = parsed(arguments)
    began = time.monotonic()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    about = machine()
    limit = limits()
    document: dict[str, Any] = {"format": 3, "quick": chosen.quick, "machine": about | limit}
    for key, value in document["machine"].items():
        print(f"{key:21} {value:.1f}" if isinstance(value, float) else f"{key:21} {value}")
    rows = [r for r in CASES if (not chosen.cells or r.cell in chosen.cells) and (r.quick or not chosen.quick)]
    order = list(dict.fromkeys(r.cell for r in rows))
    groups = {cell: list(g) for cell, g in groupby(sorted(rows, key=lambda r: order.index(r.cell)), lambda r: r.cell)}
    wanted = {cell: executors_of(group, quick=chosen.quick) for cell, group in groups.items()}
    told = conformance(wanted, cells=not chosen.quick, jobs=torch.get_num_threads())
    for cell, (green, said) in told.items():
        print(f"{cell}: conformance {'green' if green else 'RED, nothing is measured'}: {said}", flush=True)
    document["red"] = {cell: said for cell, (green, said) in told.items() if not green}
    document["memory"] = _memory(document["red"], chosen.cells, rows)
    document["results"] = []
    left = [row for cell, group in groups.items() if cell not in document["red"] for row in group]
    with Workers(torch.get_num_threads()) as workers:
        setting = Setting(workers, chosen.quick, chosen.data_dir)
        while left:
            row = left.pop(0)
            # What is left of the time is shared by the rows that are left, so that one that overran is made up for.
            budget = max(0.0, (60 * chosen.minutes - (time.monotonic() - began)) / (len(left) + 1))
            result = measure(
                row, setting, limit, rounds=chosen.rounds, budget=max(0.5, budget / 2), least=1 if chosen.quick else 3
            )  # the other half: preparation, equal work and the round that does not count
            print("\n" + table([result]), flush=True)
            _refusals(result)
            document["results"].append(result)
        _raise_limits(document)
        document["versions"] = {k: v for w in workers.by_name.values() for k, v in w.versions.items() if k != "torch"}
    document["bars"] = verdicts(document)
    print("\n" + bars_text(document))
    out = chosen.out or ROOT / "benchmarks" / "results" / f"{about['date'].replace(':', '')}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"\nwritten to {out}, after {(time.monotonic() - began) / 60:.1f} minutes")
    if chosen.write_readme:
        write_readme(document)
    return 1 if document["red"] or any(result["red"] for result in document["results"]) else 0


def _raise_limits(document: dict[str, Any]) -> None:
    """Measure the machine's limits once more: whoever was at work beside us at first made all shares look better."""
    about = document["machine"]
    about |= {name: max(value, about[name]) for name, value in limits().items()}
    for result in document["results"]:
        for figure in result["figures"].values():
            figure["of_peak"] = figure["gflops"] / about["peak_gflops"]


def _memory(red: dict[str, str], cells: Sequence[str], rows: Sequence[Row]) -> dict[str, dict[str, float | str]]:
    """Peak memory of training, while nothing else is there."""
    wanted = [case for case in memory.CASES if case.cell not in red and (not cells or case.cell in cells)]
    threads = torch.get_num_threads()
    found = {case.name: {who: memory.measure(case, who, threads) for who in memory.WHO} for case in wanted}
    if memory.ENDLESS in rows and memory.ENDLESS.cell not in red:
        found[memory.ENDLESS.name] = {OURS: memory.measure(memory.ENDLESS, OURS, threads)}
    return found


def _refusals(result: dict[str, Any]) -> None:
    """Who is not among the figures, and why."""
    by_reason = {why: [name for name, w in result["refused"].items() if w == why] for why in result["refused"].values()}
    for why, names in by_reason.items():
        print(f"  {', '.join(names)}: {why}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
