"""What holds for the package as a whole: import directions, what importing costs, and what a file may not be."""

import re
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from imports import MAY, ROWS, violations

import recurra
from recurra.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "recurra"
HEAVY = {
    "torch",
    "lightning",
    "pandas",
    "matplotlib",
    "sklearn",
    "scipy",
    "tokenizers",
    "torchmetrics",
    "rouge_score",
    "sacrebleu",
    "nltk",
    "pyarrow",
    "pooch",
}
FOLDERS = ("src", "tests", "docs", "examples", "benchmarks", ".ci")

# Files over 500 lines, and why they are one file.
LONG: dict[str, str] = {}  # path -> why it may be longer than 500 lines


def committed() -> list[Path]:
    top = [p for p in ROOT.iterdir() if p.is_file()]
    below = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.is_file()]
    skipped = {"__pycache__", "recurra.egg-info", "results", ".hypothesis"}
    return sorted(p for p in (*top, *below) if not skipped & set(p.parts))


# --- imports run one way ----------------------------------------------------------------------------------------------


def test_imports_run_one_way():
    assert violations(SOURCE) == []


def test_every_part_has_its_row():
    parts = {p.name.removesuffix(".py") for p in SOURCE.iterdir() if p.is_dir() or p.suffix == ".py"} - {"__pycache__"}
    assert parts <= MAY.keys()


@pytest.mark.parametrize(
    ("path", "code", "line"),
    [
        ("cells/lstm.py", "from recurra.engine import scan", 1),
        ("cells/lstm.py", "import recurra.engine.scan", 1),
        ("cells/lstm.py", "from recurra import scan", 1),  # a public name belongs to the part that defines it
        ("cells/lstm.py", "from ..engine.scan import scan", 1),
        ("cells/lstm.py", "def run():\n    from recurra.engine.scan import scan", 2),  # hidden in a function
        ("cells/lstm.py", "import importlib\nimportlib.import_module('recurra.engine')", 2),
        ("cells/lstm.py", "import recurra\nrecurra.scan", 2),
        ("kernels/cpu/loop.py", "from recurra.cells import LSTMCell", 1),
        ("steps/trace.py", "from ..cells import LSTMCell", 1),
        ("train/fit.py", "from recurra.tasks import TextClassifier", 1),
        ("train/fit.py", "from recurra.data import Batch", 1),  # neighbours
        ("engine/plan.py", "from recurra.layers import Recurrent", 1),
        ("tasks/classify.py", "from recurra.cli.main import app", 1),
        ("testing/suites.py", "from recurra.cli.main import app", 1),
        ("errors.py", "from recurra.shapes import dims", 1),
    ],
)
def test_a_wrong_import_is_found(tmp_path, path, code, line):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(code)
    assert [v.split(": ")[0] for v in violations(tmp_path)] == [f"{path}:{line}"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("cli/doctor.py", "from recurra import __version__\nfrom recurra.engine import explain"),
        ("engine/plan.py", "from recurra.cells import Cell\nfrom . import scan\nfrom .scan import scan\nimport torch"),
        ("testing/suites.py", "from recurra.engine import scan\nfrom recurra.layers import Recurrent"),
        ("tasks/classify.py", "'''from recurra.cli import main'''\nfrom recurra.train.fit import fit"),
        ("__main__.py", "from recurra.cli.main import main"),
    ],
)
def test_a_right_import_is_left_alone(tmp_path, path, code):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(code)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    ("part", "never"),
    [
        ("cells", "engine"),
        ("kernels", "cells"),
        ("steps", "cells"),
        ("train", "tasks"),
        ("data", "train"),
        ("data", "layers"),
    ],
)
def test_the_table_of_directions_holds_the_nevers(part, never):
    assert never not in MAY[part]


def test_nothing_imports_the_command_line():
    assert {part for part, others in MAY.items() if "cli" in others} == {"__main__"}
    assert ROWS[0] == ("cli",)


# --- what importing costs ---------------------------------------------------------------------------------------------


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


HELP = """
import sys
from typer.main import get_command
from recurra.cli.main import app

def show(command, path):
    try:
        command.main([*path, "--help"], prog_name="recurra", standalone_mode=False)
    except SystemExit as leave:
        assert not leave.code

def walk(command, context, path):
    names = command.list_commands(context) if hasattr(command, "list_commands") else []
    return [path, *(p for n in names for p in walk(command.get_command(context, n), context, [*path, n]))]

root = get_command(app)
start = {start!r}
command = root.get_command(None, start[0]) if start else None
for path in walk(command, None, start) if start else [[]]:
    print("HELP", *path)
    show(root, path)
print("LOADED", *sorted({heavy!r} & sys.modules.keys()))
"""


@pytest.mark.parametrize("start", [[], *([name] for name in COMMANDS)], ids=lambda s: " ".join(["recurra", *s]))
def test_help_imports_nothing_heavy(start):
    out = fresh(HELP.format(start=start, heavy=HEAVY))
    assert "Usage" in out
    assert out.splitlines()[-1] == "LOADED"


def test_importing_recurra_imports_nothing_heavy():
    assert fresh(f"import sys, recurra; print(sorted({HEAVY!r} & sys.modules.keys()))").strip() == "[]"


def test_seconds_to_import(record_property):
    clock = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
    for what in ("import recurra", "import torch", "import recurra; recurra.Recurrent, recurra.scan"):
        seconds = float(fresh(clock.format(what)))
        assert seconds > 0
        record_property(what, seconds)
        print(f"{what}: {seconds:.3f} s")


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recurra.__all__)
def test_every_public_name_resolves(name):
    assert getattr(recurra, name) is not None
    assert name in dir(recurra)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'recurra' has no attribute 'LSTMcell'"):
        recurra.LSTMcell  # noqa: B018


def test_the_names_for_type_checkers_are_those_of_the_table():
    text = (SOURCE / "__init__.py").read_text("utf-8")
    typed = re.search(r"if TYPE_CHECKING:\n((?:    .*\n|\n)+)", text)[1]
    imported = set(re.findall(r"\b\w+\b", re.sub(r"from [\w.]+ import", "", typed)))
    assert imported == {*recurra._NAMES, *recurra._MODULES}
    assert {*recurra.__all__} == {*imported, "__version__"}


def test_the_installed_version_is_that_of_the_source():
    assert version("recurra") == recurra.__version__


def test_the_core_install_stays_small():
    core = {re.match(r"[\w-]+", r)[0] for r in requires("recurra") if "extra ==" not in r}
    assert core == {"numpy", "rich", "safetensors", "torch", "typer"}


# --- files ------------------------------------------------------------------------------------------------------------


def test_no_file_names_a_place_of_one_machine():
    places = re.compile(r"(?<![\w.~-])/(?:" + "|".join(("work", "tmp", "root", "home", "Users")) + r")/\w")
    found = []
    for path in committed():
        if path.suffix not in (".png", ".gz", ".ico"):
            lines = path.read_text("utf-8").splitlines()
            found += [f"{path.relative_to(ROOT)}:{n}: {line}" for n, line in enumerate(lines, 1) if places.search(line)]
    assert found == []


def test_long_files_have_a_reason():
    lines = {
        p.relative_to(ROOT).as_posix(): len(p.read_text("utf-8").splitlines()) for p in committed() if p.suffix == ".py"
    }
    assert {path for path, n in lines.items() if n > 500} == LONG.keys()


def test_pins_are_exact_and_of_no_local_build():
    pins = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
