"""``python -m benchmarks.peers.serve MODULE THREADS``: prepare cases and run one timed call each time one is asked for.

A module of peers has ``prepare(spec, arrays)``, which gives ``(call, export)`` or a sentence that says why not: `call`
returns when all work is done, `export` makes NumPy arrays of what it returned; and ``versions()``.
"""

import gc
import importlib
import os
import sys
import time
import traceback
from typing import Any

from benchmarks.peers.wire import receive, send


def main(name: str, threads: int) -> None:
    """Answer until the other side closes the pipe."""
    out = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)  # whatever a library prints must not stand among the messages
    if hasattr(os, "sched_setaffinity") and threads < len(cpus := sorted(os.sched_getaffinity(0))):
        os.sched_setaffinity(0, cpus[:threads])  # the one setting that every library's pool of threads obeys
    into = os.fdopen(os.dup(0), "rb", 0)
    try:
        peer: Any = importlib.import_module(f"benchmarks.peers.{name}")
        send(out, {"versions": peer.versions()})
    except ImportError as error:
        send(out, {"refused": f"not installed: {error}"})
        return
    call: Any = None
    export: Any = None

    def prepare(head: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        nonlocal call, export
        call = export = None  # the case before must not keep its memory
        gc.collect()
        made = peer.prepare(head["spec"], arrays)
        if isinstance(made, str):
            return {"refused": made}, {}
        call, export = made
        return {"ready": True}, {}

    def seconds(head: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        gc.collect()
        gc.disable()
        start = time.perf_counter()
        call()
        taken = time.perf_counter() - start
        gc.enable()
        return {"seconds": taken}, {}

    commands = {"prepare": prepare, "seconds": seconds, "result": lambda head, arrays: ({}, export(call()))}
    while True:
        try:
            head, arrays = receive(into)
        except EOFError:
            return
        try:
            reply = commands[head["do"]](head, arrays)
        except Exception as error:  # it is told to the other side, which decides
            traceback.print_exc()
            first = next(iter(str(error).strip().splitlines()), "")
            reply = {"failed": f"{type(error).__name__}: {first}"}, {}
        send(out, *reply)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
