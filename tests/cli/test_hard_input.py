"""Input that is unusual, or meant for something else: read as it is, or refused in one message."""

import codecs
import gzip
import json
import lzma
import os

import pytest
from some_pairs import pairs

from recurra.tasks import LanguageModel, Summarizer, TextClassifier

SMALL = {"hidden_size": 4, "embedding_size": 4, "max_epochs": 1, "validation_fraction": 0, "random_state": 0}
TEXTS = ["a fine film", "a dull film", "a warm plot", "a cold plot"] * 6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with runs of each task: `c`, `l` and `s`; `ints`, whose classes are numbers; `marked`, with brackets."""
    folder = tmp_path_factory.mktemp("hard")
    for name, classes in {"c": ["good", "bad"], "ints": [1, 0], "marked": ["[/a]", "[red]"]}.items():
        TextClassifier(**SMALL, word_vectors="random").fit(TEXTS, classes * 12, run_dir=folder / name)
    LanguageModel(**SMALL, unit="char", batch_size=2).fit("\n".join(TEXTS) + "\n", run_dir=folder / "l")
    Summarizer(**SMALL, beam=1, max_target_tokens=4).fit(*pairs(16, 0), run_dir=folder / "s")
    return folder


def assert_refused(done, *said):
    assert done.code == 2, done.out
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err
    for part in said:
        assert part in done.err


def classified(run, place, *arguments, **options):
    done = run("predict", "c", *arguments, "--json", cwd=place, **options)
    assert done.code == 0, done.err
    return [row["probabilities"] for row in json.loads(done.out)]


@pytest.mark.parametrize("length", [255, 256, 300, 1023, 1024, 5000])
def test_a_text_may_be_longer_than_a_name(run, place, length):
    assert len(classified(run, place, "z" * length)) == 1
    assert run("predict", "s", "z" * length, cwd=place).code == 0


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_byte_order_mark_is_no_part_of_a_text(run, place, end):
    plain, marked = (mark + f"fine film\ndull plot{end}".encode() for mark in (b"", codecs.BOM_UTF8))
    (place / "plain.txt").write_bytes(plain)
    (place / "marked.txt").write_bytes(marked)
    expected = classified(run, place, "plain.txt")
    assert classified(run, place, "marked.txt") == expected
    assert classified(run, place, "-", given=marked) == expected
    told = [run("predict", "c", "-", "--follow", "--json", cwd=place, given=given).out for given in (plain, marked)]
    assert told[0] == told[1]
    whole = [run("predict", "s", name, "--whole", "--json", cwd=place).out for name in ("plain.txt", "marked.txt")]
    assert whole[0] == whole[1]
    assert run("predict", "l", "-", "--seed", 1, cwd=place, given=codecs.BOM_UTF8 + b"a ").out.startswith("a ")


def test_packed_lines_are_read(run, place):
    content = b"fine film\ndull plot\n"
    (place / "lines.txt").write_bytes(content)
    (place / "lines.txt.gz").write_bytes(gzip.compress(content))
    (place / "lines.XZ").write_bytes(lzma.compress(content))
    assert classified(run, place, "lines.txt.gz") == classified(run, place, "lines.XZ")
    assert classified(run, place, "lines.txt.gz") == classified(run, place, "lines.txt")
    (place / "cut.gz").write_bytes(gzip.compress(content)[:-9])
    assert_refused(run("predict", "c", "cut.gz", cwd=place), "cut.gz is damaged or cut off")
    assert_refused(run("predict", "s", "cut.gz", "--whole", cwd=place), "cut.gz is damaged or cut off")


def test_the_last_ending_says_whether_a_file_is_a_table(run, place):
    (place / "NEW.CSV").write_text("text,label\nfine film,good\n")
    (place / "notes.csv.txt").write_text("fine film\n")
    expected = classified(run, place, "fine film")
    assert classified(run, place, "NEW.CSV") == expected
    assert classified(run, place, "notes.csv.txt") == expected


def test_what_comes_through_a_pipe_with_a_name_is_read(run, place):
    read, write = os.pipe()
    os.write(write, b"fine film\ndull plot\n")
    os.close(write)
    assert len(classified(run, place, f"/dev/fd/{read}")) == 2
    os.close(read)


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (("predict", "c", "caf\udce9 good"), b"", "the text: not valid UTF-8\n  received: byte 0xe9 at column 4"),
        (("predict", "s", "caf\udce9 good"), b"", "the text: not valid UTF-8"),
        (("predict", "l", "caf\udce9 good"), b"", "the prompt: not valid UTF-8"),
        (("predict", "l", "-"), b"a\na \xff", "standard input, line 2: not valid UTF-8"),
        (("predict", "c", "utf16.txt"), b"", "utf16.txt is in UTF-16\n  received: ff fe"),
        (("predict", "s", "utf16.txt", "--whole"), b"", "utf16.txt is in UTF-16"),
        (("predict", "c", "folder"), b"", "there is a folder of that name"),
        (("predict", "c", "folder/"), b"", "there is a folder of that name"),
        (("predict", "c", "."), b"", "there is a folder of that name"),
        (
            ("predict", "c", "utf16.txt", "--follow", "--text", "col"),
            b"",
            "--follow reads lines, which have no columns",
        ),
        (("predict", "c", "a", "--length", 0), b"", "--length is no option for a run of task classify"),
        (("predict", "c", "a", "--top-k", 0), b"", "--top-k is no option"),
        (("predict", "c", "a", "--temperature", 0), b"", "--temperature is no option"),
        (("predict", "c", "a", "--seed", 0), b"", "--seed is no option"),
        (("predict", "listed", "a"), b"", "a task that this version does not know\n  received: ['classify']"),
        (("evaluate", "listed"), b"", "a task that this version does not know"),
        (("predict", "new", "a"), b"", "the run has no weights: it is not finished"),
    ],
)
def test_what_cannot_be_meant_is_refused(run, place, arguments, given, said):
    (place / "utf16.txt").write_bytes(codecs.BOM_UTF16_LE + "fine\n".encode("utf-16-le"))
    (place / "folder").mkdir(exist_ok=True)
    for name, config in {"listed": {"task": ["classify"]}, "new": {"state": "new", "files": {}}}.items():
        (place / name).mkdir(exist_ok=True)
        (place / name / "config.json").write_text(json.dumps({"format": 1, **config}))
    assert_refused(run(*arguments, cwd=place, given=given), said)


def test_brackets_of_a_label_are_shown(run, place):
    (place / "marked.csv").write_text("text,label\na fine film,[/a]\na dull film,[red]\n")
    done = run("evaluate", "marked", "marked.csv", cwd=place)
    assert done.code == 0, done.err
    assert done.out.count("[/a]") == done.out.count("[red]") == 3


def test_classes_that_are_numbers_are_those_of_a_table(run, place):
    (place / "ints.csv").write_text("text,label\na fine film,1\na dull film,0\n")
    assert run("evaluate", "ints", "ints.csv", cwd=place).code == 0
    (place / "others.csv").write_text("text,label\na fine film,1\na dull film,7\n")
    assert_refused(run("evaluate", "ints", "others.csv", cwd=place), "received: 7", "labels among 0, 1")


def test_a_wide_table_is_whole_where_it_is_no_terminal(run, tmp_path, monkeypatch):
    names = [f"class-{k:02}" for k in range(30)]
    TextClassifier(**SMALL, word_vectors="random").fit(
        [f"a film of {n}" for n in names] * 2, names * 2, run_dir=tmp_path / "c"
    )
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"a film,{name}\n" for name in names))
    monkeypatch.setenv("COLUMNS", "80")
    shown = run("evaluate", "c", "t.csv", cwd=tmp_path).out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) > 200


def test_a_path_may_hold_bytes_that_are_no_characters(run, tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    (tmp_path / odd).mkdir()
    (tmp_path / odd / "r.csv").write_text("text,label\n" + "a fine film,good\na dull film,bad\n" * 10)
    small = "--hidden-size 4 --embedding-size 4 --epochs 1 --word-vectors random".split()
    train = ("train", "classify", f"{odd}/r.csv", *small)
    done = run(*train, "--out", "run", cwd=tmp_path)
    assert done.code == 0, done.err
    assert run("evaluate", "run", cwd=tmp_path).code == 0
    assert run("predict", "run", f"{odd}/r.csv", cwd=tmp_path).code == 0
    refused = run(*train, "--out", f"{odd}/run", cwd=tmp_path)
    assert_refused(refused, "the path of a run must be valid UTF-8")
    assert "epoch 1" not in refused.err
    assert_refused(run("predict", f"{odd}/none", "a", cwd=tmp_path), "no such run folder")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1\n1 / 0\n", "boom.py:2 cannot be run\n  received: ZeroDivisionError: division by zero"),
        ("def f():\n    raise RuntimeError('no')\n\nf()\n", "boom.py:2 cannot be run\n  received: RuntimeError: no"),
        ("import sys\nsys.exit(3)\n", "boom.py:2 cannot be run\n  received: SystemExit: 3"),
        ("import json\njson.loads('{')\n", "boom.py:2 cannot be run\n  received: JSONDecodeError"),
        ("x = (\n", "boom.py:1 cannot be run\n  received: SyntaxError"),
        ("import nothing_of_the_kind\n", "boom.py:1 cannot be run\n  received: ModuleNotFoundError"),
    ],
)
@pytest.mark.parametrize("command", [("explain",), ("diagnose", "--cell")], ids=" ".join)
def test_a_file_that_raises_is_said_with_its_line(run, tmp_path, code, said, command):
    (tmp_path / "boom.py").write_text(code)
    assert_refused(run(*command, "boom.py:X", cwd=tmp_path), said)


def test_a_seed_beyond_any_generator(run, place):
    for command in (("predict", "l", "a"), ("diagnose", "c"), ("diagnose", "--cell", "lstm")):
        assert_refused(run(*command, "--seed", 10**22, cwd=place), "seed must be at most")
