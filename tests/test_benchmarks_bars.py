"""What is made of a run's figures: bars that hold, are missed or are not measured; the README's part and picture."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
from benchmarks import bars, memory, report, streams
from benchmarks.bars import BARS, Bar, Results, judge, verdicts
from benchmarks.cases import CASES, GRID, ONE_THREAD, OUR_LSTM, PADDED, ROUNDED, Sweep
from benchmarks.contenders import CONTENDERS, EXTRA
from benchmarks.machine import processor

# --- bars -------------------------------------------------------------------------------------------------------------


def document(ms=lambda row, who: 1.0, **more):
    """A run in which every row of the bars has figures."""
    results = []
    for row in CASES:
        whos = [f"T = {T}" for T in row.Ts] if isinstance(row, Sweep) else EVERYONE
        rates = {"gflops": 30.0, "gbytes_per_s": 15.0}
        figures = {w: {"ms": ms(row, w), "rounds_ms": [ms(row, w)], **rates} for w in whos}
        results.append({"case": row.name, "baseline": "torch.nn", "figures": figures, "refused": {}})
    about = {"processor": "AMD EPYC", "generation": "Zen 3", "vectors": "AVX2", "cores": 2, "threads": 2,
             "native_target": "x86-64-v3", "torch": "2.13.0", "commit": "abc", "date": "2026-01-01T00:00:00+00:00",
             "peak_gflops": 60.0, "copy_gbytes": 20.0}  # fmt: skip
    mib = {case.name: {"recurra native": 9.0, "torch.nn": 10.0} for case in (*memory.CASES, memory.ENDLESS)}
    return {"machine": about, "memory": mib, "results": results, "red": {}, "versions": {"jax": "0"}} | more


OF_STREAMS = (streams.WHOLE, streams.HALF, streams.QUARTER, "torch.nn.LSTMCell", streams.APART)
EVERYONE = (
    *CONTENDERS,
    *EXTRA,
    "torch.nn, huge pages",
    "torch.nn, padded",
    "torch.nn, packed",
    *bars.KERAS,
    "onnxruntime",
    *OF_STREAMS,
)
SLOWNESS = {
    "recurra native": 1.0,
    ROUNDED: 3.0,
    ONE_THREAD: 1.9,
    PADDED: 2.0,
    OUR_LSTM: 0.8,
    "eager loop": 16.0,
    "torch.nn": 4.0,
}


def shown(document):
    return {row["name"]: row["shown"] for row in verdicts(document)}


def test_each_bar_is_computed_from_its_figures():
    result = document(
        lambda row, who: (3.0 + (who == "T = 1000")) if isinstance(row, Sweep) else SLOWNESS.get(who, 6.0)
    )
    assert shown(result) == {
        **dict.fromkeys(("1a", "1b", "1c", "1e", "1f", "2a", "3a", "9a", "9c"), "4.00×"),
        **dict.fromkeys(("1d", "2b", "2c", "2d", "9b", "9d", "10"), "6.00×"),
        "9e": "2.00×",
        "9f": "1.00×",
        "11b": "1.33×",
        "9g": "6.00×",
        "10b": "9.0 MiB",
        "11a": "0.33×",
        **dict.fromkeys(("4a", "4b", "4c"), "16.00×"),
        **dict.fromkeys(("7a", "7b", "7c"), "1.90×"),
        "3b": "0.50×",
        "4d": "1.25×",
        "5a": "50%",
        "5b": "0.90×",
        **dict.fromkeys(("6a", "6b", "6c", "6d"), "33%"),
        "8a": "75%",
        "8b": "75%",
    }


def test_a_bar_takes_the_mean_or_the_worst_of_its_shapes():
    slow = lambda row, who: 8.0 if who == "torch.nn" and getattr(row, "shape", None) == GRID[0] else 1.0
    figures = shown(document(slow))
    assert figures["1a"] == "8.00×"
    assert figures["1b"] == f"{8 ** (1 / 7):.2f}×"
    assert figures["1c"] == "1.00×"


def test_a_sweep_is_as_uneven_as_its_dearest_frame():
    def ms(row, who):
        if not isinstance(row, Sweep):
            return 1.0
        return 1.2 if who == "T = 16000" and (row.B == 8) == row.train else 1.0

    figures = {row["name"]: row for row in verdicts(document(ms))}
    assert [figures[name]["figure"] for name in ("6a", "6b", "6c", "6d")] == pytest.approx([0, 0.2, 0.2, 0])
    assert [figures[name]["verdict"] for name in ("6a", "6b", "6c", "6d")] == ["holds", "holds", "missed", "holds"]


def test_ratios_are_taken_round_by_round():
    twice_as_slow_for_a_while = document(lambda row, who: SLOWNESS.get(who, 6.0))
    for result in twice_as_slow_for_a_while["results"]:
        for who, figure in result["figures"].items():
            figure["rounds_ms"] = [figure["ms"] * slow for slow in (1, 2, 2 if who == "torch.nn" else 1, 1, 2)]
    assert shown(twice_as_slow_for_a_while)["1a"] == "4.00×"


@pytest.mark.parametrize(
    ("figure", "at_most", "goal", "verdict"),
    [(2.0, False, 3.0, "holds"), (3.0, False, 3.0, "holds, and its goal"), (1.99, False, None, "missed"),
     (2.0, True, None, "holds"), (2.01, True, None, "missed")],
)  # fmt: skip
def test_a_bar_holds_or_is_missed(figure, at_most, goal, verdict):
    bar = Bar("x", "a sentence", "how", lambda results: figure, 2.0, goal, at_most)
    assert judge(bar, Results({}))["verdict"] == verdict


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: d.update(results=[]), "lstm 500x64x50x100 training step: not in this run"),
        (lambda d: d.update(results=[], red={"lstm": "1 failed"}), "conformance of lstm is red: 1 failed"),
        (lambda d: [r["figures"].pop("torch.nn") and r["refused"].update({"torch.nn": "it rained"}) for r in d["results"]
                    if "torch.nn" in r["figures"]], "torch.nn: it rained"),
    ],
    ids=["absent", "red", "refused"],
)  # fmt: skip
def test_a_bar_without_figures_says_why(change, why):
    result = document()
    change(result)
    row = verdicts(result)[0]
    assert row["figure"] is None
    assert row["verdict"].startswith("not measured: ")
    assert why in row["verdict"]


def test_the_bars_are_rows_with_names_of_their_own_that_the_cases_serve():
    assert len({bar.name for bar in BARS}) == len(BARS)
    assert {bar.name.rstrip("abcdefg") for bar in BARS} == {*"123456789", "10", "11"}
    assert all(row["figure"] is not None for row in verdicts(document()))  # each case that a bar needs is a row
    quick = document()
    quick["results"] = [r for row, r in zip(CASES, quick["results"], strict=True) if row.quick]
    assert all(row["figure"] is not None for row in verdicts(quick))  # and is in the quick run


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_readme_is_written_between_its_markers_and_has_its_picture(tmp_path):
    (tmp_path / "docs").mkdir()
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nof last year \\1\n{report.END}\nafter\n", "utf-8")
    result = document(lambda row, who: SLOWNESS.get(who, 6.0))
    report.write_readme(result, root=tmp_path)
    text = readme.read_text("utf-8")
    assert text.startswith(f"before\n{report.BEGIN}\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "last year" not in text
    assert re.search(r"\| 500×64×50×100 +\| +1 \(4\.00×\) ", text)
    assert "AMD EPYC (Zen 3, AVX2; 2 cores, 2 threads), native target x86-64-v3" in text
    assert text.count("holds") + text.count("missed") == len(BARS)
    assert "<svg" in (tmp_path / "docs" / "bench.svg").read_text("utf-8")
    report.write_readme(result, root=tmp_path)
    assert readme.read_text("utf-8") == text
    readme.write_text("no markers", "utf-8")
    with pytest.raises(ValueError, match="README.md has no <!-- bench: begin -->"):
        report.write_readme(result, root=tmp_path)


def test_what_was_not_measured_is_a_dash(tmp_path):
    part = report.readme_part(document() | {"results": []})
    assert "| 500×64×50×100   | " in part
    assert "(" not in part.split("| 500×64×50×100")[1].splitlines()[0]
    report.picture(document() | {"results": []}, tmp_path / "empty.svg")


def test_our_readme_has_the_markers():
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    assert text.count(report.BEGIN) == text.count(report.END) == 1


def test_bars_are_printed_with_the_machine_and_again_from_a_file(tmp_path, capsys):
    file = tmp_path / "run.json"
    file.write_text(json.dumps(document()), "utf-8")
    bars.main([str(file)])
    out = capsys.readouterr().out
    assert out.startswith("The bars were set on two cores of an AMD Zen 5 with AVX-512")
    assert sum(line.startswith(tuple(f"| {bar.name} " for bar in BARS)) for line in out.splitlines()) == len(BARS)


CPUINFO = (
    "processor\t: 0\nvendor_id\t: {}\ncpu family\t: {}\nmodel name\t: A CPU\nflags\t\t: fpu {}\n\nprocessor\t: 1\n"
)


@pytest.mark.parametrize(
    ("vendor", "family", "flags", "generation", "vectors"),
    [
        ("AuthenticAMD", 25, "avx2 sse4_2", "Zen 3", "AVX2"),
        ("AuthenticAMD", 25, "avx2 avx512f", "Zen 4", "AVX-512"),
        ("AuthenticAMD", 26, "avx2 avx512f", "Zen 5", "AVX-512"),
        ("GenuineIntel", 6, "sse4_2", "", "SSE4.2"),
    ],
)
def test_the_processor_is_named(vendor, family, flags, generation, vectors):
    found = processor(CPUINFO.format(vendor, family, flags))
    assert (found["processor"], found["generation"], found["vectors"]) == ("A CPU", generation, vectors)
    assert processor("")["processor"]
