"""A benchmark that lies is worse than none: no number of a red test, equal work, interleaved calls."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1]))
from benchmarks import run
from benchmarks.cases import CASES, Case
from benchmarks.contenders import CONTENDERS, TORCH_NN, draw
from benchmarks.gate import CONFORMANCE, assert_equal_work, conformance
from benchmarks.timing import Times, interleaved

from recurra.cells import CELLS

SMALL = [Case(name, 6, 4, 3, 5, train, ragged) for name in CELLS for train in (False, True) for ragged in (False, True)]


def calls_of(material):
    prepared = {name: prepare(material) for name, prepare in CONTENDERS.items()}
    return {name: call for name, call in prepared.items() if not isinstance(call, str)}


# --- the gate ---------------------------------------------------------------------------------------------------------


PASSES, FAILS = "    def test_it(self): pass\n", "    def test_it(self): assert 0\n"


@pytest.mark.parametrize(
    ("tests", "green", "said"),
    [
        (f"class TestCell_x:\n{PASSES}class TestStaged_x:\n{PASSES}", True, "2 passed"),
        (f"class TestCell_x:\n{PASSES}class TestStaged_x:\n{FAILS}", False, "1 failed"),
        (f"class TestCell_x:\n{PASSES}", False, "ERROR: not found"),  # the executor has no suite
        ("class TestCell_x: pass\nclass TestStaged_x: pass", False, "no tests ran"),
        ("import nothing_of_that_name", False, "found no collectors"),
    ],
    ids=["green", "red", "no suite", "no test", "no import"],
)
def test_the_gate(tmp_path, tests, green, said):
    file = tmp_path / CONFORMANCE
    file.parent.mkdir(parents=True)
    file.write_text(tests)
    passed, last = conformance("x", ["staged"], root=tmp_path)
    assert passed is green
    assert said in last


@pytest.fixture
def red_gru(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "CASES", (Case("gru", 6, 4, 3, 5), Case("rnn", 6, 4, 3, 5)))
    monkeypatch.setattr(run, "conformance", lambda cell, executors: (cell != "gru", f"{len(executors)} executors"))
    monkeypatch.setattr(run, "matmul_flops", lambda: 1e11)
    return tmp_path / "figures.json"


def test_of_a_red_cell_no_number_is_printed_or_written(red_gru, capsys):
    assert run.main(["--rounds", "1", "--out", str(red_gru)]) == 1
    before, after = capsys.readouterr().out.split("\nrnn: conformance green")
    assert "gru: conformance RED, nothing is measured: 2 executors" in before
    assert "|" not in before
    assert "rnn 6x4x3x5 training step" in after
    written = json.loads(red_gru.read_text("utf-8"))
    assert written["red"] == {"gru": "2 executors"}
    assert [result["case"] for result in written["results"]] == ["rnn 6x4x3x5 training step"]
    assert written["machine"].keys() >= {"processor", "threads", "torch", "commit", "load", "matmul_gflops"}
    figures = written["results"][0]["figures"]
    assert [*figures] == [name for name in CONTENDERS if name != "recurra associative"]
    assert figures["torch.nn"]["speed_against_baseline"] == 1
    assert all(f["calls"] == 1 and f["ms"] > 0 for f in figures.values())


def test_an_unknown_cell_is_refused(capsys):
    with pytest.raises(SystemExit):
        run.main(["transformer"])
    assert "no case has the cell transformer; known: coupled_lstm, gru, " in capsys.readouterr().err


# --- equal work -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SMALL, ids=lambda c: c.name)
def test_all_contenders_compute_the_same(case):
    material = draw(case)
    calls = calls_of(material)
    assert calls.keys() >= {"recurra staged", "eager loop"}
    assert ("torch.nn" in calls) == (case.cell in TORCH_NN)
    assert {*calls["eager loop"]()} == ({"y", "dx"} if case.train else {"y"})
    assert_equal_work(material, calls)
    assert {p.dtype for p in material.cell.parameters()} == {torch.float32}  # what is timed afterwards


@pytest.mark.parametrize("name", ["y", "dx"])
def test_unequal_work_is_found(name):
    material = draw(Case("lstm", 6, 4, 3, 5))
    calls = calls_of(material)
    calls["recurra staged"] = lambda: calls["eager loop"]() | {name: calls["eager loop"]()[name] * (1 + 1e-5)}
    with pytest.raises(AssertionError, match=f"recurra staged: {name} .* is off by"):
        assert_equal_work(material, calls)


def test_the_cases_cover_every_cell_and_each_name_is_one_case():
    assert {case.cell for case in CASES} == CELLS.keys()
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
