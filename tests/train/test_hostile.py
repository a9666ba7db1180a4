"""A run folder that means harm is refused with a message; nothing in it is executed, and it takes no memory."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hostile
import pytest
import together

CASES = [*hostile.LOADED, *hostile.RESUMED]
LONGEST = 2000  # characters of a message, whatever is in the file


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    run = tmp_path_factory.mktemp("good") / "run"
    together.train(run, together.STILL)
    return run


@pytest.fixture(scope="module")
def told(good, tmp_path_factory):
    """What was said of each case: they are tried in a process of their own, with little memory and no pickle."""
    folder = tmp_path_factory.mktemp("hostile")
    together.train(folder / "unfinished", together.STILL, stop_after=2 * together.STEPS + 1)
    done = subprocess.run(
        [sys.executable, hostile.__file__, good, folder / "unfinished", folder],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, *map(os.path.dirname, (together.__file__,))])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_hostile_folder_is_refused(told, case):
    import re

    found = told[case.name]
    assert re.search(case.said, found["said"]), found["said"]
    assert found["length"] <= LONGEST


def test_nothing_was_unpickled(told):
    assert told["unpickled"] is False


def test_the_cases_differ():
    assert len({case.name for case in CASES}) == len(CASES) >= 30


def test_on_the_command_line_it_is_one_message(good, tmp_path):
    run = shutil.copytree(good, tmp_path / "run")
    case = next(c for c in hostile.LOADED if c.name == "weights-pickled")
    case.damage(Path(run))
    done = subprocess.run([sys.executable, "-m", "recurra", "predict", run, "a film"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error") == 2, "the message, and the address of its page"
