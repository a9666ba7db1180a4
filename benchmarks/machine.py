"""What figures depend on besides the code, and what this machine can do at most."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import torch

import recurra
from benchmarks.timing import copy_bandwidth, matmul_flops
from recurra.kernels.cpu import native

ROOT = Path(__file__).parents[1]
STATED_FOR = "two cores of an AMD Zen 5 with AVX-512, 500 GFLOP/s"  # the machine that the bars were set on
# (vendor, family) -> (feature, generation with it, generation without it); family 25 is both Zen 3 and Zen 4
GENERATIONS = {
    ("AuthenticAMD", 23): ("clwb", "Zen 2", "Zen"),
    ("AuthenticAMD", 25): ("avx512f", "Zen 4", "Zen 3"),
    ("AuthenticAMD", 26): ("", "Zen 5", "Zen 5"),
}
WIDEST = (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("sse4_2", "SSE4.2"))


def processor(cpuinfo: str | None = None) -> dict[str, Any]:
    """The processor as Linux describes it; elsewhere its name alone."""
    file = Path("/proc/cpuinfo")
    text = cpuinfo if cpuinfo is not None else file.read_text("utf-8") if file.exists() else ""
    first = dict(_pair(line) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    flags = first.get("flags", "").split()
    key = first.get("vendor_id", ""), int(first.get("cpu family", "0"))
    feature, with_it, without = GENERATIONS.get(key, ("", "", ""))
    return {
        "processor": first.get("model name") or platform.processor() or platform.machine(),
        "generation": with_it if not feature or feature in flags else without,
        "vectors": next((name for flag, name in WIDEST if flag in flags), ""),
        "cores": os.cpu_count(),
    }


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def machine() -> dict[str, Any]:
    """What figures depend on besides the code."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **processor(),
        "native_target": native().target() if native() else "none: installed without the native extension",
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


def limits() -> dict[str, float]:
    """Measured: multiply-adds in registers, torch's matrix product, copies of memory; operations and bytes a second."""
    matmul = matmul_flops() / 1e9
    peak = native().peak(0, torch.get_num_threads()) / 1e9 if native() else matmul
    return {"peak_gflops": peak, "matmul_gflops": matmul, "copy_gbytes": copy_bandwidth() / 1e9}


def sentence(about: dict[str, Any]) -> str:
    """The machine in words."""
    kind = ", ".join(filter(None, (about.get("generation"), about.get("vectors"))))
    return (
        f"{about['processor']} ({kind or 'generation unknown'}; {about['cores']} cores, {about['threads']} threads), "
        f"native target {about['native_target']}"
    )


def heading() -> str:
    """This machine and what runs on it now, as the smaller benchmarks begin."""
    about = machine()
    return f"{sentence(about)}; load {about['load']:.1f}; torch {about['torch']}; commit {about['commit']}"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
