"""``recurra doctor``: what is installed, what the machine can do, and where data lies."""

import os
import platform
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from recurra import __version__
from recurra.train.strict_json import strict_json

# extra -> the modules it brings that commands of today need
EXTRAS = {
    "tasks": (
        *("lightning", "tokenizers", "torchmetrics", "sklearn", "pandas", "pyarrow", "matplotlib", "pooch"),
        *("rouge_score", "sacrebleu"),
    ),
}
CORE = ("torch", "numpy", "safetensors", "typer", "rich")


def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="A folder to look for corpora in.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Versions, threads, the native machine, optional parts with the command that installs them, data found.

    [bold]Examples[/bold]

    recurra doctor

    recurra doctor --data-dir data --json
    """
    found = _findings(data_dir)
    if json:
        print(strict_json(found))
        return
    print("versions")
    for name, version in found["versions"].items():
        print(f"  {name:12} {version}")
    print("machine")
    for name, value in found["machine"].items():
        print(f"  {name:12} {value}")
    print("native machine")
    native = found["native"]
    print(f"  {'target':12} {_target_line(native)}")
    print(f"  {'bfloat16':12} {native['bfloat16']}")
    for name, runs in native["targets"].items():
        print(f"  {name:12} compiled in, {'runs here' if runs else 'cannot run on this processor'}")
    print("extras")
    for name, extra in found["extras"].items():
        missing = extra["missing"]
        print(f"  {name:12} {'complete' if not missing else 'missing ' + ', '.join(missing) + ': ' + extra['install']}")
    print("data folders")
    for name, folder in found["data"].items():
        print(f"  {name:12} {folder}")


def _findings(data_dir: Path | None) -> dict[str, Any]:
    import torch

    from recurra.train.run_folder import machine

    modules = [m for names in EXTRAS.values() for m in names]
    return {
        "versions": {
            "recurra": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in (*CORE, *modules)},
        },
        "machine": {
            **machine(),
            "cores": os.cpu_count(),
            "huge pages": "asked for" if os.environ.get("THP_MEM_ALLOC_ENABLE") == "1" else "not asked for",
            "mkldnn": torch.backends.mkldnn.is_available(),
        },
        "native": _native(),
        "extras": {
            name: {"missing": [m for m in names if find_spec(m) is None], "install": f'pip install "recurra[{name}]"'}
            for name, names in EXTRAS.items()
        },
        "data": _data_folders(data_dir),
    }


def _native() -> dict[str, Any]:
    from recurra.errors import NativeTargetError
    from recurra.kernels import cpu

    forced = os.environ.get("RECURRA_CPU_TARGET") or None
    target, why_not = None, cpu.missing()
    if not why_not:
        try:
            target = cpu.native().target()
        except NativeTargetError as error:  # what a scan would raise; here it is what was asked for
            why_not = str(error)
    return {
        "target": target,
        "forced": forced,
        "why not": why_not,
        "bfloat16": f"matrices are held in it and multiplied in float32; {_bfloat16_unit()}",
        "targets": cpu.targets(),
    }


def _bfloat16_unit() -> str:
    """Whether the processor multiplies bfloat16 by itself, which no kernel makes use of yet."""
    try:
        here = "avx512_bf16" in Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return "whether this processor has avx512_bf16 is not known"
    return "avx512_bf16 is here and not used" if here else "this processor has no avx512_bf16"


def _target_line(native: dict[str, Any]) -> str:
    if native["why not"]:
        return "none: " + str(native["why not"]).replace("\n", "\n" + 13 * " ")
    return f"{native['target']}, {'forced by RECURRA_CPU_TARGET' if native['forced'] else 'the best that runs here'}"


def _version(module: str) -> str:
    package = {"sklearn": "scikit-learn", "rouge_score": "rouge-score"}.get(module, module)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _data_folders(data_dir: Path | None) -> dict[str, str]:
    named = {"--data-dir": data_dir, "RECURRA_DATA": os.environ.get("RECURRA_DATA")}
    found = {}
    for name, folder in named.items():
        if not folder:
            found[name] = "not given"
        elif not Path(folder).is_dir():
            found[name] = f"{folder}: there is no such folder"
        else:
            inside = sorted(p.name for p in Path(folder).iterdir() if p.is_dir())
            found[name] = f"{folder}: {', '.join(inside) or 'empty'}"
    return found
