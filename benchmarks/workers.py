"""This side of the pipe to contenders in processes of their own."""

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from benchmarks.peers.wire import receive, send

ROOT = Path(__file__).parents[1]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
PATIENCE = 180.0  # seconds until a peer is given up: they compile whole networks


@dataclass(frozen=True)
class Peer:
    """A contender in another process: its module below ``benchmarks.peers``, and what its environment says."""

    module: str
    environment: Mapping[str, str]
    foreign: bool = True  # it lives in .venv-peers


_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
PEERS: dict[str, Peer] = {
    "torch.nn, huge pages": Peer("torch_nn", {"THP_MEM_ALLOC_ENABLE": "1"}, foreign=False),
    "Keras on JAX": Peer("keras_layers", {**_QUIET, "KERAS_BACKEND": "jax"}),
    "Keras on TensorFlow": Peer("keras_layers", {**_QUIET, "KERAS_BACKEND": "tensorflow"}),
    "JAX lax.scan": Peer("jax_scan", _QUIET),
    "onnxruntime": Peer("onnx_rt", {}),
}


class PeerError(RuntimeError):
    """A peer failed, was silent for too long, or died."""

    worker: "Worker"


@dataclass
class Worker:
    """One peer: started when first asked for a case, holding one case at a time."""

    peer: Peer
    threads: int
    versions: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    log: IO[bytes] | None = None
    why_not: str = ""  # it cannot be had here

    def prepare(self, spec: Mapping[str, Any], arrays: Mapping[str, Any]) -> "Remote | str":
        """A call of this case, or the sentence that says why there is none."""
        if self.process is None and not self.why_not:
            self._start()
        if self.why_not:
            return self.why_not
        try:
            said, _ = self._ask({"do": "prepare", "spec": dict(spec)}, arrays)
        except PeerError as error:
            return str(error)
        return said["refused"] if "refused" in said else Remote(self)

    def _start(self) -> None:
        python = PEERS_PYTHON if self.peer.foreign else Path(sys.executable)
        if not python.exists():
            self.why_not = "not installed: make bench-peers"
            return
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self.threads))
        paths = [str(ROOT), *([] if self.peer.foreign else filter(None, [os.environ.get("PYTHONPATH", "")]))]
        environment = os.environ | threads | dict(self.peer.environment) | {"PYTHONPATH": os.pathsep.join(paths)}
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.peers.serve", self.peer.module, str(self.threads)],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, bufsize=0,
        )  # fmt: skip
        try:
            said, _ = self._answer()
        except PeerError as error:
            said = {"refused": str(error)}
        self.why_not, self.versions = said.get("refused", ""), said.get("versions", {})
        if self.why_not:
            self.close()

    def _ask(self, head: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], Any]:
        if self.process is None or self.process.stdin is None:
            raise self._error(self.why_not or "it is not running")
        try:
            send(self.process.stdin, head, arrays)  # type: ignore[arg-type]
        except BrokenPipeError:
            self._lost("died")
        return self._answer()

    def _answer(self) -> tuple[dict[str, Any], Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            self._lost(f"was silent for {PATIENCE:.0f} s")
        try:
            said, arrays = receive(self.process.stdout)  # type: ignore[arg-type]
        except EOFError:
            self._lost("died")
        if "failed" in said:
            raise self._error(f"failed: {said['failed']}")
        return said, arrays

    def _lost(self, what: str) -> None:
        last = b""
        if self.log is not None:
            self.log.seek(0)
            last = (self.log.read().strip().splitlines() or [b""])[-1]
        self.close()
        raise self._error(f"{what}: {last.decode(errors='replace')}" if last else what)

    def _error(self, what: str) -> PeerError:
        error = PeerError(what)
        error.worker = self
        return error

    def close(self) -> None:
        """End the process; the next case starts another."""
        if self.process is None:
            return
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        if self.log is not None:
            self.log.close()
            self.log = None


@dataclass(frozen=True)
class Remote:
    """The case that a worker holds, as a call."""

    worker: Worker

    def __call__(self) -> dict[str, Tensor]:
        """What it computes."""
        return {name: torch.from_numpy(a) for name, a in self.worker._ask({"do": "result"})[1].items()}

    def seconds(self) -> float:
        """The time of one call, as the worker measured it."""
        return float(self.worker._ask({"do": "seconds"})[0]["seconds"])


class Workers:
    """All peers of one run; a context manager, so that none is left behind."""

    def __init__(self, threads: int, peers: Mapping[str, Peer] | None = None):
        self.by_name = {name: Worker(peer, threads) for name, peer in (PEERS if peers is None else peers).items()}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *unused: object) -> None:
        for worker in self.by_name.values():
            worker.close()
