"""SIGKILL while a run is written: what --resume goes on with gives the weights of an unbroken run, byte for byte."""

import os
import subprocess
import sys

import kills


def test_a_run_killed_while_it_writes_loses_nothing():
    # The tokenizer is there and the config is not; the best epoch is there and the last is not; all but the last word.
    chosen = ["--epochs", "2", "--syncs", "5", "9", "-2"]
    done = subprocess.run(
        [sys.executable, kills.__file__, *chosen],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "dumb", "COLUMNS": "100"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = " ".join(done.stdout.split())
    assert "3 kills of 3 runs" in table
    assert "before an epoch's end 2 while its end was written 1" in table
    assert table.endswith("lost: nothing")
