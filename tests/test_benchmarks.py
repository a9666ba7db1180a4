"""A benchmark that lies is worse than none: no number of a red test, equal work, interleaved calls, honest bars."""

import json
import sys
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1]))
from benchmarks import memory, run
from benchmarks.bars import BARS, NotMeasuredError, Results
from benchmarks.cases import CASES, GRID, ONE_THREAD, PADDED, UNSEEN, Article, Case, Crowd, Frames, Sweep
from benchmarks.cells import ALL, OWN, PARTS
from benchmarks.contenders import CONTENDERS, EXTRA, draw
from benchmarks.gate import CONFORMANCE, CONFORMANCE_OF_OWN, assert_equal_work, conformance, unequal
from benchmarks.peers.wire import receive, send
from benchmarks.prepare import Setting, executors_of, prepare
from benchmarks.timing import Times, interleaved
from benchmarks.torch_modules import TORCH_NN
from benchmarks.workers import Peer, PeerError, Worker, Workers

from recurra.cells import CELLS
from recurra.kernels.cpu import native

SIZES = {name: (PARTS.get(name, 0) * 5 or 3, 5) for name in ALL}  # D, H
SMALL = [
    Case(name, 6, 4, *SIZES[name], train, ragged) for name in ALL for train in (False, True) for ragged in (False, True)
]
NATIVE = ["native"] if native() else []


def calls_of(material):
    prepared = {name: prepare(material) for name, prepare in CONTENDERS.items()}
    return {name: call for name, call in prepared.items() if not isinstance(call, str)}


# --- the gate ---------------------------------------------------------------------------------------------------------


OUTCOMES = {"pass": "pass", "fail": "assert 0", "skip": "__import__('pytest').skip()", "error": "unknown"}
SUITES = {  # cell -> what the tests of its two suites do; None: there is no such suite
    "green": (["pass", "skip"], ["pass"]),
    "red": (["pass"], ["pass", "fail"]),
    "skipped": (["pass"], ["skip"]),
    "empty": (["pass"], []),
    "missing": (["pass"], None),
    "greenish": (["error"], ["pass"]),  # its name begins like another's
}


def write_suites(root):
    lines = []
    for cell, kinds in SUITES.items():
        for kind, outcomes in zip(("Cell", "Staged"), kinds, strict=True):
            if outcomes is not None:
                lines += [f"class Test{kind}_{cell}:", "    nothing = 0"]
                lines += [f"    def test_{k}(self): {OUTCOMES[what]}" for k, what in enumerate(outcomes)]
    file = root / CONFORMANCE
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(lines))


def test_the_gate(tmp_path):
    write_suites(tmp_path)
    told = conformance({cell: ["staged"] for cell in SUITES}, root=tmp_path)
    assert {cell: green for cell, (green, _) in told.items()} == {cell: cell == "green" for cell in SUITES}
    assert told["green"][1] == "2 passed"
    assert told["red"][1] == "1 failed, 2 passed"
    assert told["skipped"][1].startswith("no tests ran in TestStaged_skipped: ")
    assert told["empty"][1].startswith("no tests ran in TestStaged_empty: ")
    assert told["missing"][1] == "not found: TestStaged_missing"
    assert told["greenish"][1] == "1 failed, 1 passed"


def test_the_gate_is_red_where_nothing_can_be_imported(tmp_path):
    file = tmp_path / CONFORMANCE
    file.parent.mkdir(parents=True)
    file.write_text("import nothing_of_that_name")
    green, said = conformance({"x": ["staged"]}, root=tmp_path)["x"]
    assert not green
    assert "found no collectors" in said


def test_cells_of_the_benchmark_have_their_suites_and_native_is_gated():
    from benchmarks import conformance as suites

    executors = {"lstm": executors_of([Case("lstm", 9, 9, 9, 9)], quick=True)}
    assert executors["lstm"] == NATIVE
    for name in OWN:
        found = executors_of([row for row in CASES if row.cell == name])
        assert {"staged", *NATIVE} <= {*found}
        assert all(hasattr(suites, f"Test{e.capitalize()}_{name}") for e in (*found, "cell"))
    assert executors_of([Article(lengths=False)], quick=True) == NATIVE
    root = Path(__file__).parents[1]
    assert all((root / file).exists() for file in (CONFORMANCE, CONFORMANCE_OF_OWN))


@pytest.fixture
def red_gru(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "CASES", (Case("gru", 6, 4, 3, 5), Case("rnn", 6, 4, 3, 5, extra=(ONE_THREAD,))))
    told = lambda wanted, **_: {cell: (cell != "gru", f"{len(e)} executors") for cell, e in wanted.items()}
    monkeypatch.setattr(run, "conformance", told)
    monkeypatch.setattr(run, "limits", lambda: {"peak_gflops": 100.0, "matmul_gflops": 90.0, "copy_gbytes": 20.0})
    monkeypatch.setattr(run, "Workers", lambda threads: Workers(threads, {}))
    monkeypatch.setattr(memory, "CASES", ())
    return tmp_path / "figures.json"


def test_of_a_red_cell_no_number_is_printed_or_written(red_gru, capsys):
    assert run.main(["--rounds", "1", "--minutes", "0", "--out", str(red_gru)]) == 1
    out = capsys.readouterr().out
    executors = 2 + len(NATIVE)
    assert f"gru: conformance RED, nothing is measured: {executors} executors" in out
    assert f"rnn: conformance green: {executors} executors" in out
    assert "rnn 6x4x3x5 training step" in out
    assert "gru 6x4x3x5 training step" not in out
    written = json.loads(red_gru.read_text("utf-8"))
    assert written["red"] == {"gru": f"{executors} executors"}
    assert [result["case"] for result in written["results"]] == ["rnn 6x4x3x5 training step"]
    assert written["machine"].keys() >= {
        "processor",
        "threads",
        "torch",
        "commit",
        "load",
        "peak_gflops",
        "copy_gbytes",
    }
    figures = written["results"][0]["figures"]
    absent = {"recurra associative"} | (set() if NATIVE else {"recurra native", ONE_THREAD})
    assert figures.keys() == {*CONTENDERS, ONE_THREAD} - absent
    assert figures["torch.nn"]["speed_against_baseline"] == 1
    assert all(len(f["rounds_ms"]) == 1 and f["ms"] > 0 for f in figures.values())
    assert [bar["name"] for bar in written["bars"]] == [bar.name for bar in BARS]
    assert all(bar["verdict"].startswith("not measured: ") for bar in written["bars"])


def test_an_unknown_cell_is_refused(capsys):
    with pytest.raises(SystemExit):
        run.main(["transformer"])
    assert "no case has the cell transformer; known: bounded_integrator, coupled_lstm, " in capsys.readouterr().err


# --- equal work -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SMALL, ids=lambda c: c.name)
def test_all_contenders_compute_the_same(case):
    material = draw(case)
    calls = calls_of(material)
    assert calls.keys() >= {"recurra staged", "eager loop", *(f"recurra {name}" for name in NATIVE)}
    assert ("torch.nn" in calls) == (case.cell in TORCH_NN)
    assert {*calls["eager loop"]()} == ({"y", "dx"} if case.train else {"y"})
    assert_equal_work(material, calls)
    assert {p.dtype for p in material.cell.parameters()} <= {torch.float32}  # what is timed afterwards


@pytest.mark.parametrize("name", ["y", "dx"])
def test_unequal_work_is_found(name):
    material = draw(Case("lstm", 6, 4, 3, 5))
    calls = calls_of(material)
    calls["recurra staged"] = lambda: calls["eager loop"]() | {name: calls["eager loop"]()[name] * (1 + 1e-5)}
    with pytest.raises(AssertionError, match=f"recurra staged: {name} .* is off by"):
        assert_equal_work(material, calls)


@pytest.mark.parametrize("name", ["y", "dx"])
def test_unequal_work_elsewhere_is_found_and_named(name):
    calls = calls_of(draw(Case("lstm", 6, 4, 3, 5)))
    loop = calls["eager loop"]()
    off = {"far": 1.001, "near": 1.00001, "broken": float("nan")}
    elsewhere = {who: lambda by=by: loop | {name: loop[name] * by} for who, by in off.items()}
    found = unequal(loop, elsewhere)
    assert found.keys() == {"far", "broken"}
    assert found["far"] == f"unequal work: {name} is off by 0.001, relative by norm"


def test_a_case_of_unequal_work_has_no_figures(monkeypatch):
    wrong = lambda material: lambda: {"y": material.dy, "dx": material.x.detach()}
    monkeypatch.setitem(CONTENDERS, "recurra staged", wrong)
    case = Case("lstm", 6, 4, 3, 5)
    result = run.measure(case, Setting(Workers(1, {})), {"peak_gflops": 1.0}, rounds=1, budget=0, least=1)
    assert result["figures"] == {}
    assert result["red"].startswith("unequal work: recurra staged: ")
    with pytest.raises(NotMeasuredError, match="torch.nn: unequal work"):
        Results({"results": [result]}).ms(case.name, "torch.nn")


def test_extra_contenders_run_where_a_case_names_them():
    case = Case("lstm", 6, 4, 3, 5, ragged=True, extra=(ONE_THREAD, PADDED))
    prepared = prepare(case, Setting(Workers(1, {})))
    if NATIVE:
        assert {ONE_THREAD, PADDED} <= prepared.calls.keys()
        assert torch.equal(prepared.calls[ONE_THREAD]()["y"], prepared.calls["recurra native"]()["y"])
        assert not torch.equal(prepared.calls[PADDED]()["y"], prepared.calls["recurra native"]()["y"])
    assert prepared.check() == {}
    assert not EXTRA.keys() & prepare(replace(case, extra=()), Setting(Workers(1, {}))).calls.keys()


@pytest.mark.parametrize("train", [False, True])
def test_a_sweep_is_one_row_of_interleaved_lengths(train):
    sweep = Sweep("lstm", (4, 8), 1, 3, 5, train)
    prepared = prepare(sweep, Setting(Workers(1, {})))
    assert {*prepared.calls, *prepared.refused} == {"T = 4", "T = 8"}
    assert prepared.flops("T = 8") == prepared.flops("T = 4")  # the short one is called twice
    for name, call in prepared.calls.items():
        assert len(call()["y"]) == int(name[4:])


def test_the_articles_network_is_the_same_step_for_all(tmp_path):
    row = Article(lengths=False, T=7, B=4, words=50, D=3, H=5)
    prepared = prepare(row, Setting(Workers(1, {})))
    assert "torch.nn" in prepared.calls
    assert ("recurra native" in prepared.calls) == bool(NATIVE)
    assert prepared.check() == {}
    prepared.calls["torch.nn"]()  # a step ahead of the others now: other work
    if NATIVE:
        with pytest.raises(AssertionError, match="unequal work: losses"):
            prepared.check()


def test_reviews_have_their_own_lengths_or_a_reason(tmp_path, monkeypatch):
    monkeypatch.delenv("RECURRA_DATA", raising=False)
    row = Article(lengths=True, T=7, B=2, words=50, D=3, H=5)
    absent = prepare(row, Setting(Workers(1, {}), data_dir=tmp_path))
    assert absent.calls == {}
    assert {*absent.refused.values()} == {"IMDB is not here: --data-dir, or RECURRA_DATA"}
    for split in ("train", "test"):
        for name in ("neg", "pos"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0_1.txt").write_text("a fine film" if name == "pos" else "bad")
    prepared = prepare(row, Setting(Workers(1, {}), data_dir=tmp_path))
    assert {"torch.nn, padded", "torch.nn, packed"} <= prepared.calls.keys()
    assert prepared.check() == {}


def test_the_cases_cover_every_cell_and_each_name_is_one_case():
    assert {case.cell for case in CASES} == ALL.keys()
    assert not OWN.keys() & CELLS.keys()  # first seen by the benchmark
    assert {case.shape for case in CASES if isinstance(case, Case) and case.cell == UNSEEN and case.train} == {*GRID}
    assert len({case.name for case in CASES}) == len(CASES)


def test_floating_point_operations_are_those_of_the_products_on_valid_frames():
    material = draw(Case("lstm", 6, 4, 3, 5, train=False))
    assert material.flops == 2 * 6 * 4 * (4 * 5 * 3 + 4 * 5 * 5)
    ragged = replace(draw(Case("lstm", 6, 4, 3, 5)), lengths=torch.tensor([6, 1, 2, 3]))
    assert ragged.flops == 3 * 2 * 12 * (4 * 5 * 3 + 4 * 5 * 5)


# --- time -------------------------------------------------------------------------------------------------------------


def test_calls_take_turns_and_begin_in_turn():
    called = []
    now = iter(range(1000))
    times = interleaved(
        {name: lambda name=name: called.append(name) for name in "abc"}, rounds=4, budget=1e9, clock=lambda: next(now)
    )
    assert "".join(called) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(t.seconds) for name, t in times.items()} == {"a": 4, "b": 4, "c": 4}


def test_the_budget_ends_after_three_rounds_at_least():
    now = iter(range(1000))
    times = interleaved({"a": lambda: None}, rounds=99, budget=0.5, clock=lambda: next(now))
    assert len(times["a"].seconds) == 3


def test_the_median_and_the_quartiles():
    times = Times((5.0, 1.0, 2.0, 3.0, 4.0))
    assert times.quartiles == (2.0, 3.0, 4.0)
    assert times.median == 3.0
    assert Times((7.0,)).quartiles == (7.0, 7.0, 7.0)


def test_a_call_in_another_process_brings_its_own_time():
    class Remote:
        def __call__(self):
            raise AssertionError("its result is not asked for")

        def seconds(self):
            return 0.25

    assert interleaved({"far": Remote()}, rounds=2, budget=1e9)["far"].seconds == (0.25, 0.25)


# --- other processes --------------------------------------------------------------------------------------------------


def test_messages_arrive_as_they_were_sent():
    pipe, arrays = (
        BytesIO(),
        {"x": np.arange(6.0).reshape(2, 3).T, "none": np.zeros((0, 2), np.int32), "one": np.float32(3)},
    )
    send(pipe, {"do": "prepare", "spec": {"T": 3}}, arrays)
    send(pipe, {"do": "result"})
    pipe.seek(0)
    head, got = receive(pipe)
    assert head == {"do": "prepare", "spec": {"T": 3}}
    assert got.keys() == arrays.keys()
    assert all(np.array_equal(got[name], a) and got[name].dtype == a.dtype for name, a in arrays.items())
    assert receive(pipe) == ({"do": "result"}, {})
    with pytest.raises(EOFError):
        receive(pipe)


def test_torch_in_another_process_does_the_same_work_and_says_what_it_cannot():
    case = Case("gru", 6, 4, 3, 5, ragged=True)
    peers = {"torch.nn, huge pages": Peer("torch_nn", {"THP_MEM_ALLOC_ENABLE": "1"}, foreign=False)}
    with Workers(1, peers) as workers:
        worker = workers.by_name["torch.nn, huge pages"]
        prepared = prepare(case, Setting(workers))
        assert prepared.check() == {}
        remote = prepared.calls["torch.nn, huge pages"]
        assert 0 < remote.seconds() < 10
        assert {*remote()} == {"y", "dx"}
        assert worker.versions == {"torch": torch.__version__}
        assert (
            prepare(replace(case, cell="mgu"), Setting(workers)).refused["torch.nn, huge pages"]
            == "torch.nn has no mgu"
        )
        with pytest.raises(PeerError, match="failed: TypeError"):
            remote()  # it holds no case any more
        result = run.measure(case, Setting(workers), {"peak_gflops": 1.0}, rounds=1, budget=0, least=1)
        assert "torch.nn, huge pages" in result["figures"]
    assert worker.process is None


def test_a_peer_that_is_not_there_has_a_reason(monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.workers.PEERS_PYTHON", tmp_path / "python")
    assert Worker(Peer("keras_layers", {}), 1).prepare({}, {}) == "not installed: make bench-peers"
    absent = Worker(Peer("no_such_module", {}, foreign=False), 1)
    assert "not installed: No module named" in absent.prepare({}, {})
    assert absent.process is None


def test_a_peer_that_fails_while_it_is_timed_is_left_out(monkeypatch):
    class Failing:
        worker = object()

        def __call__(self):
            return {}

        def seconds(self):
            error = PeerError("died: out of memory")
            error.worker = self.worker
            raise error

    prepared = prepare(Case("rnn", 3, 2, 3, 4), Setting(Workers(1, {})))
    prepared.calls["peer"] = Failing()
    prepared.check = dict
    monkeypatch.setattr(run, "prepare", lambda row, setting: prepared)
    result = run.measure(Case("rnn", 3, 2, 3, 4), None, {"peak_gflops": 1.0}, rounds=1, budget=0, least=1)
    assert result["refused"]["peer"] == "died: out of memory"
    assert "torch.nn" in result["figures"]


def test_peak_memory_is_measured_in_a_process_of_its_own(capsys):
    case = Case("lstm", 64, 8, 16, 32)
    assert 0 <= memory.measure(case, "torch.nn", 1) < 500
    memory.main([json.dumps(asdict(replace(case, cell="mgu"))), "torch.nn", str(torch.get_num_threads())])
    assert json.loads(capsys.readouterr().out) == "torch.nn has no mgu"


@pytest.mark.skipif(not NATIVE, reason="built without the native machine")
def test_frames_one_by_one_are_torchs_up_to_rounding():
    prepared = prepare(Frames("lstm", 2, 5, 7, T=3), Setting(Workers(1, {})))
    assert len(prepared.calls) == 5
    assert prepared.check() == {}
    outputs = {name: call()["y"] for name, call in prepared.calls.items()}
    assert torch.equal(outputs["recurra native"], prepared.calls["recurra native"]()["y"])  # each call begins anew
    assert not torch.equal(outputs["recurra native, int8"], outputs["recurra native"])


@pytest.mark.skipif(not NATIVE, reason="built without the native machine")
def test_a_crowd_stays_as_many_as_it_was():
    prepared = prepare(Crowd("lstm", 6, 3, 4, moving=2), Setting(Workers(1, {})))
    for call in prepared.calls.values():
        call()
        call()
