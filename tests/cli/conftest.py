"""The command line run within the test's process, so that torch is loaded once."""

import io
import signal
import sys
from dataclasses import dataclass

import pytest

from recurra.cli.main import main

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for a job in the background: commands would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capfd):
    """``run("train", "classify", …, cwd=folder, given=bytes of stdin) -> Done``."""
    # Restored after the test, whatever the command sets.
    for name, value in {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1", "RECURRA_DEBUG": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    monkeypatch.delenv("RECURRA_DATA", raising=False)

    def call(*arguments, cwd, given=b""):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["recurra", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf-8"))
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        return Done(end.value.code or 0, out, err)

    return call
