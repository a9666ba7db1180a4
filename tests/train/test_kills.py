"""SIGKILL while a run is written: what --resume goes on with gives the weights of an unbroken run, byte for byte."""

import os
import subprocess
import sys

import kills


def test_a_run_killed_while_it_writes_loses_nothing():
    # The tokenizer is there and the config is not; the best epoch is there and the last is not; the weights are there and
    # the config is not; all is there but the report.
    chosen = ["--epochs", "2", "--syncs", "5", "9", "-6", "-2"]
    done = subprocess.run(
        [sys.executable, kills.__file__, *chosen],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "dumb", "COLUMNS": "100"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = " ".join(done.stdout.split())
    assert "4 kills of 4 runs" in table
    assert "after its end 1 before an epoch's end 2 while its end was written 1" in table
    assert table.endswith("lost: nothing")
