"""``python -m benchmarks.run``: measure, or say why not.

Each cell's conformance tests run first; where one is red, nothing of that cell is measured and the exit code is 1.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy
import torch

import recurra
from benchmarks.cases import CASES, Case
from benchmarks.contenders import BASELINES, CONTENDERS, Run, draw
from benchmarks.gate import ROOT, assert_equal_work, conformance
from benchmarks.timing import interleaved, matmul_flops

COLUMNS = ("case (T×B×D×H)", "who", "ms", "quartiles", "GFLOP/s", "of matmul", "against")
EXECUTORS_MEASURED = {f"recurra {name}": name for name in ("torch", "associative", "staged")}


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "system": platform.system(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],  # before: others at work here make every figure worse
        "THP_MEM_ALLOC_ENABLE": os.environ.get("THP_MEM_ALLOC_ENABLE", ""),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "recurra": recurra.__version__,
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "uncommitted": bool(_git("status", "--porcelain", "--", "src", "benchmarks")),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def measure(case: Case, *, rounds: int, budget: float, limit: float) -> dict[str, Any]:
    """The figures of one case: every contender that can run it, or why it cannot."""
    material = draw(case)
    prepared = {name: prepare(material) for name, prepare in CONTENDERS.items()}
    calls: dict[str, Run] = {name: call for name, call in prepared.items() if not isinstance(call, str)}
    assert_equal_work(material, calls)
    times = interleaved(calls, rounds=rounds, budget=budget)
    baseline = next(name for name in BASELINES if name in times)
    figures = {}
    for name, t in times.items():
        low, median, high = t.quartiles
        figures[name] = {
            "ms": 1e3 * median,
            "quartiles_ms": [1e3 * low, 1e3 * high],
            "calls": len(t.seconds),
            "gflops": material.flops / median / 1e9,
            "of_matmul": material.flops / median / limit,
            "speed_against_baseline": times[baseline].median / median,
        }
    refused = {name: why for name, why in prepared.items() if isinstance(why, str)}
    return {"case": case.name, "baseline": baseline, "figures": figures, "refused": refused}


def table(results: Iterable[dict[str, Any]]) -> str:
    """The figures as a Markdown table, to read or to paste."""
    rows: list[Sequence[str]] = [COLUMNS]
    for result in results:
        for k, (name, f) in enumerate(result["figures"].items()):
            low, high = f["quartiles_ms"]
            against = "" if name == result["baseline"] else f"{f['speed_against_baseline']:.2f}× {result['baseline']}"
            times = (f"{f['ms']:.1f}", f"{low:.1f}–{high:.1f}")
            rows.append(
                ("" if k else result["case"], name, *times, f"{f['gflops']:.0f}", f"{f['of_matmul']:.0%}", against)
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def executors_of(cases: Iterable[Case]) -> list[str]:
    """The executors whose figures these cases would show: theirs are the tests that must be green."""
    shapes = [Case(c.cell, 2, 2, 4, 4, c.train, c.ragged) for c in cases]  # refusals do not depend on sizes
    can = lambda name: any(not isinstance(CONTENDERS[name](draw(c)), str) for c in shapes)
    return [executor for name, executor in EXECUTORS_MEASURED.items() if can(name)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Gate, then time. The exit code is 0 only if every cell was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    cells = sorted({case.cell for case in CASES})
    parser.add_argument("cells", nargs="*", metavar="CELL", help=f"of {', '.join(cells)}; default: all")
    parser.add_argument("--rounds", type=int, default=30, help="at most so many calls of each (default 30)")
    parser.add_argument("--seconds", type=float, default=20, help="for one case (default 20); three rounds at least")
    parser.add_argument("--threads", type=int, help="of torch; default: as torch chooses")
    parser.add_argument("--out", type=Path, help="where the JSON goes; default: benchmarks/results/<date>.json")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.cells) - set(cells):
        parser.error(f"no case has the cell {', '.join(sorted(unknown))}; known: {', '.join(cells)}")
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    about = machine()
    limit = matmul_flops()
    for key, value in (about | {"matmul_gflops": round(limit / 1e9)}).items():
        print(f"{key:21} {value}")
    results: list[dict[str, Any]] = []
    red: dict[str, str] = {}
    wanted = sorted((c for c in CASES if not chosen.cells or c.cell in chosen.cells), key=lambda c: cells.index(c.cell))
    for cell, group in groupby(wanted, key=lambda c: c.cell):
        cases = list(group)
        green, said = conformance(cell, executors_of(cases))
        print(f"\n{cell}: conformance {'green' if green else 'RED, nothing is measured'}: {said}", flush=True)
        if not green:
            red[cell] = said
            continue
        measured = [measure(case, rounds=chosen.rounds, budget=chosen.seconds, limit=limit) for case in cases]
        print(table(measured), flush=True)
        results += measured
    out = chosen.out or ROOT / "benchmarks" / "results" / f"{about['date'].replace(':', '')}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    document = {"format": 1, "machine": about | {"matmul_gflops": limit / 1e9}, "red": red, "results": results}
    out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"\nwritten to {out}")
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
