"""Run folders that mean harm: each a good one with one thing done to it, and what must be said of it.

Run as ``python hostile.py GOOD UNFINISHED SCRATCH`` it tries them all, one after the other, in a process that may take
only so much memory, in which nothing that executes or unpickles works, and prints what was said as JSON.
"""

import io
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

MEMORY = 1 << 30  # bytes that one case may take beyond what the process has when it begins
SECONDS = 60
HUGE = 10 * 2**30  # of a file with a hole: takes no room on the disk


class Bomb:
    """Leaves a file, if it is ever unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def edit_json(path, change):
    document = json.loads(path.read_text("utf-8"))
    document = change(document) or document
    path.write_text(json.dumps(document), "utf-8")


def sign(run):
    """Put true sums into the config, as a stranger can."""
    from recurra.train.files import sha256_of

    def put(config):
        for name in config["files"]:
            path = run / name
            config["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}

    edit_json(run / "config.json", put)


def config(**changes):
    """Changes at the top of the config; a function gets the old value."""

    def damage(run):
        edit_json(
            run / "config.json",
            lambda old: old | {k: v(old.get(k)) if callable(v) else v for k, v in changes.items()},
        )

    return damage


def settings(**changes):
    return config(settings=lambda old: old | changes)


def raw(name, content, *, signed=True):
    """Another content of a file; a function gets the old one."""

    def damage(run):
        path = run / name
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)
        if signed and name != "config.json":
            sign(run)

    return damage


def tokenizer(change):
    def damage(run):
        edit_json(run / "tokenizer.json", change)
        sign(run)

    return damage


def put(**changes):
    """A change of a dict in place."""
    return lambda document: document.update(changes)


def weights(change):
    """A change of the named tensors."""

    def damage(run):
        from safetensors.torch import load_file, save_file

        tensors = load_file(run / "model.safetensors")
        change(tensors)
        save_file(tensors, run / "model.safetensors")
        sign(run)

    return damage


def header(change, body=lambda old: old):
    """A change of the header of the weights, and of what follows it, in ways that no library writes."""

    def damage(run):
        path = run / "model.safetensors"
        old = path.read_bytes()
        length = int.from_bytes(old[:8], "little")
        entries = change(json.loads(old[8 : 8 + length]))
        text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + body(old[8 + length :]))
        sign(run)

    return damage


def first(entries, **changes):
    """The entries of a header with changes to the first of them."""
    name = next(n for n in entries if n != "__metadata__")
    return entries | {name: entries[name] | changes}


def overlapping(entries):
    names = [n for n in entries if n != "__metadata__"]
    widest = max(names, key=lambda n: entries[n]["data_offsets"][1] - entries[n]["data_offsets"][0])
    begin = entries[widest]["data_offsets"][0]
    return {
        n: e | {"data_offsets": [begin, begin + e["data_offsets"][1] - e["data_offsets"][0]]} if n in names else e
        for n, e in entries.items()
    }


def twice(entries):
    text = json.dumps(entries)
    name = next(n for n in entries if n != "__metadata__")
    return f"{text[:-1]}, {json.dumps(name)}: {json.dumps(entries[name])}}}".encode()


def replaced(name, make):
    """Something else at a file's place."""

    def damage(run):
        path = run / name
        path.unlink()
        make(path)

    return damage


def outside(path):
    """A link to a file with the right content, elsewhere."""
    other = path.parent.parent / f"elsewhere-{path.name}"
    path.replace(other)
    path.symlink_to(other)


def hole(path):
    """Ten gigabytes that take no room."""
    with path.open("r+b") as file:
        file.truncate(HUGE)


def sized_hole(run):
    """The same, and the config knows."""
    hole(run / "model.safetensors")
    config(files=lambda old: old | {"model.safetensors": {"bytes": HUGE, "sha256": "0" * 64}})(run)


def pickled(name):
    return raw(name, pickle.dumps(Bomb()))


def torch_bytes():
    """What torch.save writes: a zip with a pickle inside."""
    out = io.BytesIO()
    torch.save({"weights": Bomb()}, out)
    return out.getvalue()


def checkpoint(change):
    """A change of the state in ``last.safetensors``."""

    def damage(run):
        from recurra.train.checkpoint import load, save

        path = run / "checkpoints" / "last.safetensors"
        state = load(path)
        change(state)
        save(state, path)

    return damage


def kept(**changes):
    return checkpoint(lambda state: state["callbacks"]["KeepEpochs"].update(changes))


def adam(change):
    return checkpoint(lambda state: change(state["optimizer_states"][0]))


def document(content):
    """Another JSON in the header of a checkpoint."""

    def damage(run):
        import safetensors.torch

        safetensors.torch.save_file({}, run / "checkpoints/last.safetensors", {"recurra": content})

    return damage


DEEP = "[" * 100_000 + "]" * 100_000
LAST = "checkpoints/last.safetensors"


class Case(NamedTuple):
    """A row: its name, what is done to a good run, and the message that must come of it."""

    name: str
    damage: Callable[[Path], None]
    said: str


# fmt: off
# Met by TextClassifier.load.
LOADED = [
    Case("header-oversized", raw("model.safetensors", lambda old: struct.pack("<Q", 1 << 62) + old[8:]), r"damaged or truncated\n.*a header of 4611686018427387904 bytes"),
    Case("header-beyond-the-file", raw("model.safetensors", lambda old: struct.pack("<Q", len(old)) + old[8:]), "damaged or truncated\n.*a header of"),
    Case("header-of-68-MB", header(lambda old: b"{" + b" " * 68_000_000 + b"}"), "damaged or truncated\n.*a header of 68000002 bytes"),
    Case("header-of-millions-of-tensors", header(lambda old: b"{" + b",".join(b'"%d":{}' % i for i in range(1_500_000)) + b"}"), "more than 2,000,000 values"),
    Case("header-nested-deeply", header(lambda old: ('{"a": ' + DEEP + "}").encode()), "damaged or truncated"),
    Case("header-with-a-name-twice", header(twice), "damaged or truncated\n.*is there twice"),
    Case("tensor-named-as-a-path", header(lambda old: {("../../etc/passwd" if k == "head.bias" else k): v for k, v in old.items()}), r"missing or unknown\n.*'\.\./\.\./etc/passwd'"),
    Case("shape-huge", header(lambda old: first(old, shape=[1 << 40])), "damaged or truncated"),
    Case("shape-overflowing", header(lambda old: first(old, shape=[1 << 33, 1 << 33])), "damaged or truncated"),
    Case("shape-negative", header(lambda old: first(old, shape=[-1, 2])), "damaged or truncated"),
    Case("dtype-wrong", weights(lambda w: w.update({"head.bias": w["head.bias"].double()})), "head.bias must be .* of torch.float32\n.*torch.float64"),
    Case("dtype-unknown", header(lambda old: first(old, dtype="PICKLE")), "damaged or truncated"),
    Case("offsets-overlapping", header(overlapping), "damaged or truncated"),
    Case("offsets-backwards", header(lambda old: first(old, data_offsets=[8, 0])), "damaged or truncated"),
    Case("weights-more-than-said", header(lambda old: old, lambda body: body + bytes(64)), "damaged or truncated"),
    Case("weights-nan", weights(lambda w: w["head.weight"].fill_(float("nan"))), "NaN or infinite: head.weight"),
    Case("weights-infinite", weights(lambda w: w["embedding.weight"].fill_(float("-inf"))), "NaN or infinite: embedding.weight"),
    Case("weights-missing-one", weights(lambda w: w.pop("head.bias")), r"missing or unknown\n.*\['head.bias'\]"),
    Case("weights-pickled", pickled("model.safetensors"), "damaged or truncated"),
    Case("weights-of-torch-save", raw("model.safetensors", torch_bytes()), "damaged or truncated"),
    Case("weights-a-pipe", replaced("model.safetensors", os.mkfifo), "is no plain file"),
    Case("weights-a-folder", replaced("model.safetensors", Path.mkdir), "is no plain file"),
    Case("weights-a-link-out", lambda run: outside(run / "model.safetensors"), r"leads out of its folder\n.*elsewhere"),
    Case("weights-of-10-GB", sized_hole, "larger than any run's\n.*10737418240 bytes"),
    Case("config-pickled", pickled("config.json"), "config.json is damaged or truncated: no JSON"),
    Case("config-of-10-GB", lambda run: hole(run / "config.json"), "config.json is larger than any run's"),
    Case("config-a-pipe", replaced("config.json", os.mkfifo), "config.json is no plain file"),
    Case("config-a-folder", replaced("config.json", Path.mkdir), "config.json is no plain file"),
    Case("config-a-link-out", lambda run: outside(run / "config.json"), r"leads out of its folder\n.*elsewhere"),
    Case("config-nested-deeply", raw("config.json", DEEP.encode()), "no JSON\n.*recursion"),
    Case("config-of-many-values", raw("config.json", b"[" + b"[]," * 10_000_000 + b"0]"), "no JSON\n.*more than 2,000,000 values"),
    Case("config-of-as-many-values-as-may-be", raw("config.json", b"{" + b",".join(b'"a key of some length %d": 1' % i for i in range(1_900_000)) + b"}"), "of format None"),
    Case("config-with-a-key-twice", raw("config.json", lambda old: old.rstrip()[:-1] + b', "task": "classify"}'), "no JSON\n.*'task' is there twice"),
    Case("config-with-an-integer-of-a-million-digits", raw("config.json", lambda old: old.replace(b'"seed": 0', b'"seed": ' + b"9" * 1_000_000)), "no JSON\n.*4300 digits"),
    Case("config-with-infinity", settings(dropout=float("inf")), "no JSON\n.*Infinity is no number"),
    Case("config-with-a-huge-float", raw("config.json", lambda old: old.replace(b'"clip": 1.0', b'"clip": 1e999')), "a setting\n.*clip must be a number"),
    Case("config-with-a-huge-integer", settings(learning_rate=10**4000), "a setting\n"),
    Case("config-of-another-task", config(task="forecast"), "another task than 'classify'\n.*forecast"),
    Case("config-of-a-later-format", config(format=99), "of format 99; this version"),
    Case("config-of-format-true", config(format=True), "of format True"),
    Case("config-with-a-path", config(files={"../../../etc/passwd": {"bytes": 1, "sha256": ""}}), "names a file that no run has\n.*etc/passwd"),
    Case("config-without-sums", config(files={}), "has no sum of model.safetensors"),
    Case("classes-of-objects", config(classes=[{"a": 1}, {"b": 2}]), "'classes' must be several\n.*{'a': 1}"),
    Case("classes-of-huge-integers", config(classes=[2**70, 1]), "'classes' must be several"),
    Case("classes-of-which-one-is-long", config(classes=["x" * 2**20, *map(str, range(10**5))]), "'classes' must be several"),
    Case("cell-unknown", settings(cell="os.system"), "no cell .*\n.*'os.system'"),
    Case("cell-of-megabytes", settings(cell="x" * 2**22), "no setting is like its 'cell'"),
    Case("pooling-no-text", settings(pooling=3), "a setting\n"),
    Case("monitor-a-list", settings(monitor=[]), "a setting\n"),
    Case("setting-an-object", settings(hidden_size={"__class__": "int"}), "no setting is like its 'hidden_size'"),
    Case("layers-by-thousands", settings(num_layers=100_000), "number of layers\n.*100000"),
    Case("widths-by-thousands", settings(hidden_size=[4] * 100_000, num_layers=None), "no setting is like its 'hidden_size'"),
    Case("hidden-size-negative", settings(hidden_size=-8), "a setting\n"),
    Case("embedding-size-negative", settings(embedding_size=-1), "embedding_size must be an integer of at least 1"),
    Case("hidden-size-overflowing", settings(hidden_size=2**62), "a setting\n"),
    Case("hidden-size-beyond-64-bits", settings(hidden_size=10**30), "a setting\n"),
    Case("hidden-size-of-another-network", settings(hidden_size=5_000), "does not fit config.json"),
    Case("hidden-size-of-no-network", settings(hidden_size=100_000), "more weights than a run may have"),
    Case("notes-no-object", config(notes=["imdb"]), "'notes' must be dict"),
    Case("tokenizer-pickled", pickled("tokenizer.json"), "tokenizer.json is damaged or truncated: no JSON"),
    Case("tokenizer-a-link-out", lambda run: outside(run / "tokenizer.json"), r"leads out of its folder\n.*elsewhere"),
    Case("tokenizer-of-another-model", tokenizer(lambda t: t["model"].update(type="BPE", merges=[])), "is not how this version of recurra reads words"),
    Case("tokenizer-with-an-evil-pattern", tokenizer(lambda t: t.update(normalizer={"type": "Replace", "pattern": {"Regex": "(a|a|aa)*b$"}, "content": ""})), "is not how this version of recurra reads words\n.*a\\|a\\|aa"),
    Case("tokenizer-that-pads-to-a-billion", tokenizer(put(padding={"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"})), "is not how this version of recurra reads words"),
    Case("tokenizer-with-words-beyond-the-embedding", tokenizer(put(added_tokens=[{"id": 10**6, "content": "film", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}])), "is not how this version of recurra reads words"),
    Case("vocabulary-a-list", tokenizer(lambda t: t["model"].update(vocab=["a", "b"])), "'vocab' must be dict"),
    Case("vocabulary-of-objects", tokenizer(lambda t: t["model"].update(vocab={"[PAD]": 0, "[UNK]": {}})), "no vocabulary of words numbered from 0"),
    Case("vocabulary-with-a-hole", tokenizer(lambda t: t["model"]["vocab"].update(film=10**9)), "no vocabulary of words numbered from 0"),
    Case("vocabulary-of-half-characters", tokenizer(lambda t: t["model"]["vocab"].update({"\ud800": len(t["model"]["vocab"])})), "tokenizer.json is damaged: a word"),
    Case("vocabulary-larger-than-the-embedding", tokenizer(lambda t: t["model"]["vocab"].update({"zzz": len(t["model"]["vocab"])})), "embedding.weight must be"),
    Case("metrics-no-history", raw("metrics.json", b'{"history": [1, "x"], "best_epoch": 1}'), "must be the figures of each epoch"),
    Case("metrics-best-of-no-epoch", raw("metrics.json", b'{"history": [{"loss": 1.0}], "best_epoch": 1000000}'), "must be the figures of each epoch"),
    Case("metrics-a-pipe", replaced("metrics.json", os.mkfifo), "metrics.json is no plain file"),
]

# Met by fit(…, resume=True) of a run with an epoch done and another to do.
RESUMED = [
    Case("checkpoint-pickled", raw(LAST, pickle.dumps(Bomb()), signed=False), "damaged or truncated"),
    Case("checkpoint-of-torch-save", raw(LAST, torch_bytes(), signed=False), "damaged or truncated"),
    Case("checkpoint-a-pipe", replaced(LAST, os.mkfifo), "is no plain file"),
    Case("checkpoint-a-link-out", lambda run: outside(run / LAST), "leads out of its folder"),
    Case("checkpoints-elsewhere", lambda run: outside(run / "checkpoints"), "checkpoints leads out of the run folder"),
    Case("checkpoint-of-10-GB", lambda run: hole(run / LAST), "larger than any run's"),
    Case("checkpoint-of-another-format", document('{"format": 2, "state": {}}'), "format 2: this version reads format 1"),
    Case("checkpoint-of-objects", document('{"format": 1, "state": {"object": "os.system"}}'), "no known form"),
    Case("checkpoint-nested-deeply", document('{"format": 1, "state": ' + DEEP + "}"), "damaged or truncated"),
    Case("checkpoint-empty", document('{"format": 1, "state": {"dict": []}}'), "of another network"),
    Case("checkpoint-of-another-network", checkpoint(lambda s: s["state_dict"].update({"network.head.bias": torch.zeros(9)})), r"of another network\n.*\(9,\)"),
    Case("checkpoint-of-another-dtype", checkpoint(lambda s: s["state_dict"].update({"network.head.bias": torch.zeros(2).long()})), "of another network\n.*int64"),
    Case("checkpoint-with-a-number-for-a-name", checkpoint(lambda s: s["state_dict"].update({3: torch.zeros(2)})), "of another network\n.*3: "),
    Case("checkpoint-weights-nan", checkpoint(lambda s: s["state_dict"]["network.head.bias"].fill_(float("nan"))), "does not fit this training: state_dict.network.head.bias"),
    Case("checkpoint-weights-a-number", checkpoint(lambda s: s["state_dict"].update({"network.head.bias": 3})), "of another network\n.*int"),
    Case("checkpoint-moments-of-another-shape", adam(lambda o: o["state"][0].update(exp_avg=torch.zeros(1 << 10))), "does not fit this training: optimizer_states.0.state.0.exp_avg"),
    Case("checkpoint-moments-missing", adam(lambda o: o["state"][0].pop("exp_avg")), "does not fit this training: optimizer_states.0.state.0.exp_avg"),
    Case("checkpoint-moments-of-a-weight-too-many", adam(lambda o: o["state"].update({99: {}})), "does not fit this training: optimizer_states.0.state.99"),
    Case("checkpoint-optimizer-of-another-kind", adam(lambda o: o["param_groups"][0].update(amsgrad=True)), "param_groups.amsgrad"),
    Case("checkpoint-rate-a-text", adam(lambda o: o["param_groups"][0].update(lr="fast")), "does not fit this training: optimizer_states.0.param_groups.0.lr"),
    Case("checkpoint-rate-infinite", adam(lambda o: o["param_groups"][0].update(lr=float("inf"))), "does not fit this training: optimizer_states.0.param_groups.0.lr"),
    Case("checkpoint-no-optimizer", checkpoint(put(optimizer_states=[])), "does not fit this training: optimizer_states"),
    Case("checkpoint-counter-negative", checkpoint(lambda s: s["loops"]["fit_loop"]["epoch_progress"]["current"].update(completed=-5)), "does not fit this training: loops.fit_loop.epoch_progress.current.completed"),
    Case("checkpoint-counter-a-list", checkpoint(lambda s: s["loops"]["fit_loop"]["epoch_progress"].update(current=[])), "does not fit this training: loops.fit_loop.epoch_progress.current"),
    Case("checkpoint-schedule-unlike", checkpoint(lambda s: s["lr_schedulers"][0].update(lr_lambdas=[{"fn": "os.system"}])), "does not fit this training: lr_schedulers.0.lr_lambdas.0"),
    Case("checkpoint-with-more-than-ours", checkpoint(put(hyper_parameters={"_target_": "os.system"})), "does not fit this training: hyper_parameters"),
    Case("checkpoint-of-an-old-lightning", checkpoint(put(**{"pytorch-lightning_version": "0.9.0"})), "does not fit this training: pytorch-lightning_version"),
    Case("checkpoint-of-no-lightning", checkpoint(put(**{"pytorch-lightning_version": [1]})), "does not fit this training: pytorch-lightning_version"),
    Case("checkpoint-history-of-texts", kept(history=["1"]), "does not fit this training: history"),
    Case("checkpoint-best-of-no-epoch", kept(best_epoch=10**9), "does not fit this training: best_epoch"),
    Case("checkpoint-random-state-short", checkpoint(lambda s: s["callbacks"]["KeepEpochs"]["random"].update(torch=torch.zeros(3, dtype=torch.uint8))), "does not fit this training: random"),
    Case("checkpoint-random-state-of-texts", checkpoint(lambda s: s["callbacks"]["KeepEpochs"]["random"].update(python="state")), "does not fit this training: random"),
    Case("checkpoint-of-another-callback", checkpoint(lambda s: s["callbacks"].update(ModelCheckpoint={"dirpath": "/"})), "does not fit this training: callbacks"),
]
# fmt: on


def forbid():
    """From now on nothing that a pickle or a script needs works."""
    import builtins

    def refused(*_, **__):
        raise AssertionError("something was executed or unpickled")

    for module, names in {
        pickle: ("load", "loads", "Unpickler"),
        os: ("system", "popen", "execv", "execve", "fork", "posix_spawn"),
        subprocess: ("Popen",),
        builtins: ("eval", "exec"),
        torch: ("load",),
    }.items():
        for name in names:
            setattr(module, name, refused)


def main(good, unfinished, scratch):
    """Try all cases; a table of what was said, what it took, and how long it was."""
    import resource

    import together

    from recurra.errors import RecurraError
    from recurra.tasks import TextClassifier

    TextClassifier.load(good).predict(["a film"])  # what is loaded later is loaded by now
    together.train(shutil.copytree(unfinished, scratch / "warm"), together.STILL, resume=True)
    told = {}
    for cases, base in ((LOADED, good), (RESUMED, unfinished)):
        for case in cases:
            run = Path(shutil.copytree(base, scratch / case.name / "run"))
            case.damage(run)
    forbid()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("it took too long")))
    os.chdir(scratch)
    for cases, use in (
        (LOADED, TextClassifier.load),
        (RESUMED, lambda run: together.train(run, together.STILL, resume=True)),
    ):
        for case in cases:
            began = time.perf_counter()
            signal.alarm(SECONDS)
            try:
                use(scratch / case.name / "run")
                said = "it was let through"
            except RecurraError as error:
                said = str(error)
            except BaseException as error:
                said = f"not an error of ours: {type(error).__name__}: {error}"
            signal.alarm(0)
            shutil.rmtree(scratch / case.name)
            told[case.name] = {"said": said[:2000], "length": len(said), "seconds": time.perf_counter() - began}
    told["unpickled"] = (scratch / "unpickled").exists()
    print(json.dumps(told))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
