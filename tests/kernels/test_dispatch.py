"""Which CPU target runs: the best one, the one that is forced, or an error; and life without the extension."""

import os
import subprocess
import sys

import pytest

from recurra.kernels.cpu import missing, targets

needs_native = pytest.mark.skipif(bool(missing()), reason="built without the native machine")
RUNNABLE = [name for name, runs in targets().items() if runs]
OTHERS = [name for name, runs in targets().items() if not runs]

TARGET = "from recurra.kernels.cpu import native; print(native().target())"
TRAIN = """
import torch
from recurra import LSTMCell, options, scan
from recurra.kernels.cpu import native
from recurra.testing import assert_within_eps
from recurra.testing.cases import contracting

def run(executor, dtype):
    rng = torch.Generator().manual_seed(0)
    random = lambda *s: torch.randn(*s, generator=rng, dtype=torch.float64).to(dtype)
    cell = LSTMCell(5, 37).double()
    contracting(cell, rng)
    cell, x, dy = cell.to(dtype), random(11, 3, 5).requires_grad_(), random(11, 3, 37)
    with options(executor=executor):
        y, _ = scan(cell, x, lengths=torch.tensor([11, 4, 0]))
    return y, *torch.autograd.grad((y * dy).sum(), [x, *cell.parameters()])

for got, ref in zip(run("native", torch.float32), run("reference", torch.float64), strict=True):
    assert_within_eps(got, ref)
print(native().target())
"""


def python(code, **variables):
    """Runs `code` in an interpreter of its own: a target is chosen once in the life of a process."""
    environment = {k: v for k, v in os.environ.items() if k != "RECURRA_CPU_TARGET"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment | variables, capture_output=True, text=True, encoding="utf-8"
    )


def test_where_a_compiler_is_there_so_is_the_native_machine():
    """Otherwise every test of it would be passed over, and nobody would know."""
    if os.environ.get("RECURRA_NATIVE") == "1":
        assert missing() == ""


@needs_native
def test_the_best_target_is_chosen_by_itself():
    done = python(TARGET)
    assert (done.stdout.strip(), done.returncode) == (RUNNABLE[-1], 0), done.stderr


@needs_native
@pytest.mark.parametrize("name", RUNNABLE)
def test_each_target_that_runs_here_is_right(name):
    done = python(TRAIN, RECURRA_CPU_TARGET=name)
    assert (done.stdout.strip(), done.returncode) == (name, 0), done.stderr


@needs_native
@pytest.mark.parametrize("name", ["x86-64-v9", *OTHERS])
def test_a_target_that_cannot_run_is_an_error_that_names_those_that_can(name):
    done = python("import recurra.engine\nprint('imported')\n" + TARGET, RECURRA_CPU_TARGET=name)
    assert done.stdout == "imported\n"
    assert done.returncode == 1
    assert f"NativeTargetError: RECURRA_CPU_TARGET is {name}; this machine can run {', '.join(RUNNABLE)}" in done.stderr
    assert "instead:  unset RECURRA_CPU_TARGET, or name one of these" in done.stderr


@needs_native
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_threads_are_those_of_torch():
    """Two copies of the OpenMP library would be two pools, fighting for the same cores."""
    code = (
        "from recurra.kernels.cpu import native\n"
        "native()\n"
        "with open('/proc/self/maps', encoding='utf-8') as lines:\n"
        "    print(len({line.split()[-1] for line in lines if 'libgomp' in line}))\n"
    )
    assert python(code).stdout == "1\n"


def test_without_the_extension_all_else_works():
    code = (
        "import sys\n"
        "sys.modules['recurra.kernels.cpu._native'] = None\n"
        "import torch, recurra\n"
        "from recurra.kernels.cpu import missing, native, targets\n"
        "assert native() is None and targets() == {}\n"
        "plan = recurra.plan_for(recurra.MGUCell(3, 4), torch.zeros(5, 2, 3))\n"
        "print(plan.executor, plan, missing(), sep='\\n')\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("staged\n")
    assert "not native: Recurra was installed without its native extension" in done.stdout
    assert "RECURRA_NATIVE=1 pip install ." in done.stdout
