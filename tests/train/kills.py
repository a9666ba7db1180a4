"""Kill one small training again and again, resume it after each kill, and say what it lost: ``kills.py [N]``.

N times (50) a run of ``recurra train classify`` gets SIGKILL at a random moment, and its ``--resume`` goes on with what
is there; a run that comes to its end is held against the unbroken one, byte by byte, and another is begun. With
``--syncs 2 7 -1`` the kills come in these syncs of files and folders instead: the second, the seventh, the last. Exit
code 1 where anything is lost.

Each training is a fork of this process, which has imported everything, so that kills hit trainings, not imports.
"""

import argparse
import csv
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import recurra.data
import recurra.tasks.classify
import recurra.tasks.classify_report
import recurra.train.fit  # noqa: F401
from recurra.cli.main import main as recurra_main
from recurra.train.run_folder import RunFolder
from recurra.train.untrusted import read_json

SETTINGS = "--hidden-size 4 --embedding-size 4 --max-tokens 12 --batch-size 8 --patience 99 --seed 7".split()
WORDS = {"good": "fine lovely warm".split(), "bad": "dull flat cold".split()}


def write_table(path: Path) -> None:
    """Sixty-four reviews of two classes."""
    rng = random.Random(0)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "label"])
        for _ in range(64):
            label = rng.choice(["good", "bad"])
            out.writerow([" ".join(rng.choice([*WORDS[label], "a", "film", "plot"]) for _ in range(8)), label])


def attempt(folder: Path, run: str, *options: str, after: float | None = None, sync: int = 0) -> bool:
    """Train in a fork; whether it came to its end before the kill, `after` seconds or in the sync of that number."""
    pid = os.fork()
    if not pid:
        os.chdir(folder)
        log = os.open(f"{run}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        seen = die_in_sync(sync)
        sys.argv = ["recurra", "train", "classify", "reviews.csv", *SETTINGS, "--out", run, *options]
        code: object = 1
        try:
            recurra_main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            (folder / f"{run}.syncs").write_text(str(len(seen)))
            os._exit(code if isinstance(code, int) else 1)
    began = time.monotonic()
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if after is not None and time.monotonic() - began > after:
            os.kill(pid, signal.SIGKILL)
            after = None
        time.sleep(0.001)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if status:
        raise SystemExit(f"a training failed:\n{(folder / f'{run}.log').read_text()}")
    return True


def die_in_sync(number: int) -> list[int]:
    """Count syncs from now on, one of each file before it gets its name, and one of its folder after; one kills."""
    seen: list[int] = []
    sync = os.fsync

    def counted(handle: int) -> None:
        seen.append(handle)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    os.fsync = counted
    return seen


def standing(folder: RunFolder) -> str:
    """Where a kill has left a run."""
    if not folder.config.exists():
        return "before the run was there"
    state = read_json(folder.config)["state"]
    if state == "training" and folder.weights.exists():
        return "while its end was written"
    if state == "training" and folder.last.exists():
        return "after an epoch's end"
    return {"finished": "after its end"}.get(state, "before an epoch's end")


def lost(run: RunFolder, unbroken: RunFolder) -> list[str]:
    """What of the unbroken run is not in the other one."""
    found = []
    if run.weights.read_bytes() != unbroken.weights.read_bytes():
        found.append("the weights")
    told = [[{**e, "seconds": 0} for e in read_json(r.metrics)["history"]] for r in (run, unbroken)]
    if told[0] != told[1]:
        found.append("figures")
    if strays := [p.name for p in run.path.rglob(".*")]:
        found.append(f"room on the disk, to {strays}")
    return found


def main() -> int:
    """Kill, resume, compare; 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kills", nargs="?", type=int, default=50, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--epochs", default="16", help="of a run")
    parser.add_argument("--syncs", type=int, nargs="+", default=[], metavar="K", help="kill in these instead")
    given = parser.parse_args()
    SETTINGS.extend(["--epochs", given.epochs])
    rng = random.Random(given.seed)
    console = Console(stderr=True)
    where: Counter[str] = Counter()
    losses: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_table(folder / "reviews.csv")
        began = time.monotonic()
        attempt(folder, "unbroken")
        seconds = time.monotonic() - began
        unbroken = RunFolder(folder / "unbroken")
        syncs = int((folder / "unbroken.syncs").read_text())
        # Early ones above all: a run that goes on has less to do, and its beginning is short.
        moments = [{"sync": k if k > 0 else syncs + 1 + k} for k in given.syncs] or [
            {"after": seconds * rng.random() ** 3} for _ in range(given.kills)
        ]
        columns = TextColumn("killed"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        runs, name = 0, ""
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=len(moments))
            for moment in moments:
                run = RunFolder(folder / (name or f"run-{runs}"))
                while attempt(folder, run.path.name, "--resume", **moment):
                    losses += lost(run, unbroken)
                    if given.syncs:
                        raise SystemExit(f"a training has {syncs} syncs: none of number {moment['sync']}")
                    runs += 1
                    run = RunFolder(folder / f"run-{runs}")
                where[standing(run)] += 1
                bar.advance(task)
                name = run.path.name
                if given.syncs or rng.random() < 0.25:  # else it is killed again as it goes on
                    attempt(folder, name, "--resume")
                    losses += lost(run, unbroken)
                    runs, name = runs + 1, ""
        if name:
            attempt(folder, name, "--resume")
            losses += lost(RunFolder(folder / name), unbroken)
            runs += 1
    table = Table("killed", "times", title=f"{len(moments)} kills of {runs} runs of {seconds:.1f} s", box=None)
    for state, times in sorted(where.items()):
        table.add_row(state, str(times))
    Console().print(table)
    print(f"lost: {', '.join(losses) or 'nothing'}")
    return bool(losses)


if __name__ == "__main__":
    sys.exit(main())
