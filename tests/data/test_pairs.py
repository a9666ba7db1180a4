"""Pairs by column and by name: read whole, or refused with the file and what to do."""

import gzip
import json
import os
from pathlib import Path

import pandas as pd
import pytest

from recurra.data import PAIRS, PairSplits, PairTable, docstring_pairs, load_pairs, read_docstrings, read_pairs
from recurra.data.docstrings import part_of
from recurra.data.pairs import tatoeba_part
from recurra.errors import DataError, EmptyTextError, MissingColumnError, MissingDataError

SHARED = Path(os.environ.get("RECURRA_DATA") or Path(__file__).parents[3] / "shared" / "data")
PUBLIC = [name for name in PAIRS if name != "docstrings"]
ROWS = {"body": ["We meet at ten.", 'He said "no", twice.'], "subject": ["Meeting", "No"]}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_of_each_kind(tmp_path, kind):
    path, frame = tmp_path / f"mail.{kind}", pd.DataFrame(ROWS | {"other": [1, 2]})
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    elif kind == "csv":
        frame.to_csv(path, index=False)
    else:
        path.write_text("body\tsubject\n" + "".join(f"{a}\t{b}\n" for a, b in zip(*ROWS.values(), strict=True)))
    pairs = read_pairs(path)
    assert pairs == PairTable(ROWS["body"], ROWS["subject"], str(path))
    assert len(pairs) == 2
    swapped = read_pairs(path, source="subject", target="body")
    assert (swapped.sources, swapped.targets) == (pairs.targets, pairs.sources)
    assert read_pairs(path, need_target=False).targets is None
    splits = load_pairs(path)
    assert (splits.train, splits.valid, splits.test) == (pairs, None, None)
    assert len(splits.fingerprint) == 64 != load_pairs(path, source="subject", target="body").fingerprint


def test_the_fingerprint_is_of_all_references():
    table = PairTable(["a", "b"], ["x", "y"], "here")
    several = [PairTable(["a", "b"], ["x", "y"], "here", [["x", one], ["y"]]) for one in ("z", "w")]
    assert len({PairSplits(one, None, None).fingerprint for one in (table, *several)}) == 3


def test_a_folder_of_tables(tmp_path):
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.tsv").write_text(f"source\ttarget\none {part}\t{part}\n")
    splits = load_pairs(tmp_path)
    assert [table.targets for table in (splits.train, splits.valid, splits.test)] == [["train"], ["dev"], ["test"]]
    (tmp_path / "train.csv").mkdir()
    (tmp_path / "train.tsv.bak").write_text("an older one")
    assert load_pairs(tmp_path) == splits
    (tmp_path / "train.tsv").unlink()
    with pytest.raises(MissingDataError, match=r"no table of training texts(.|\n)*dev\.tsv, test\.tsv"):
        load_pairs(tmp_path)


def test_what_is_no_table_of_pairs(tmp_path):
    path = tmp_path / "mail.csv"
    path.write_text("body,subject\nWe meet,Meeting\nAgain,\n")
    with pytest.raises(EmptyTextError, match=r"mail\.csv, line 3: there is no text in 'subject'"):
        read_pairs(path)
    with pytest.raises(MissingColumnError, match=r"no column of that name\n.*'sbject'\n.*'subject'\?"):
        read_pairs(path, target="sbject")
    with pytest.raises(DataError, match="source and target are the same column"):
        read_pairs(path, target="body")
    path.write_text("a,b\n1,2\n")
    with pytest.raises(MissingColumnError, match=r"source, body, text, article or document(.|\n)*--source a"):
        read_pairs(path)
    with pytest.raises(MissingDataError, match=r"no corpus of pairs of that name\n.*'tatoba'\n.*'tatoeba'\?"):
        load_pairs("tatoba")


def test_docstrings_and_their_summaries():
    splits = docstring_pairs(["stdlib"], limit=400)
    found = {one.body: one.summary for one in read_docstrings(["stdlib"], limit=400)}
    for part in ("train", "valid", "test"):
        table = getattr(splits, part)
        assert {part_of(body) for body in table.sources} == {part}
        for body, summary in zip(table.sources, table.targets, strict=True):
            assert found[body] == summary
            assert len(summary.split()) >= 3
    assert len(splits.train) > len(splits.test)


def test_all_translations_of_a_sentence_are_in_one_part(tmp_path):
    folder = tmp_path / "tatoeba_fra_eng"
    folder.mkdir()
    english = [f"Sentence {i}." for i in range(60)]
    text = "".join(f"{e}\tPhrase {k} {e}\n" for e in english for k in (1, 2))
    (folder / "fra.txt.gz").write_bytes(gzip.compress(text.encode()))
    splits = load_pairs("tatoeba", data_dir=tmp_path)
    for part in ("train", "valid", "test"):
        assert {tatoeba_part(s) for s in getattr(splits, part).sources} == {part}
    assert len(splits.train) + len(splits.valid) + len(splits.test) == 120
    (folder / "fra.txt.gz").write_bytes(gzip.compress(b"Go.\tVa !\nno tab\n"))
    with pytest.raises(DataError, match=r"fra\.txt\.gz, line 2: no pair\n.*no tab"):
        load_pairs("tatoeba", data_dir=tmp_path)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_corpus_that_is_not_there_says_where_it_comes_from(name, tmp_path, monkeypatch):
    monkeypatch.delenv("RECURRA_DATA", raising=False)
    with pytest.raises(MissingDataError, match=rf"{name} is not here, and is not downloaded(.|\n)*it comes from"):
        load_pairs(name)
    with pytest.raises(MissingDataError, match=rf"{name} is not in the folder given(.|\n)*it comes from"):
        load_pairs(name, data_dir=tmp_path)


def test_a_damaged_corpus(tmp_path):
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.jsonl.gz").write_bytes(
            gzip.compress(b'{"code": "x = 1", "text": "x is one"}\n{"code": 3, "text": "x"}\n')
        )
    with pytest.raises(DataError, match=r"train\.jsonl\.gz, line 2: no row of this corpus\n.*a text is missing: 3"):
        load_pairs("django_pseudocode", data_dir=tmp_path)


COUNTS = {
    "aeslc": (14_436, 1_960, 1_906),
    "scitldr": (1_992, 619, 618),
    "django_pseudocode": (16_000, 1_000, 1_805),
    "multi30k": (29_000, 1_014, 1_000),
    "tatoeba": (128_821, 6_971, 6_995),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_ones(name):
    try:
        splits = load_pairs(name, data_dir=SHARED)
    except MissingDataError:
        pytest.skip(f"{name} is not in $RECURRA_DATA or ../shared/data")
    found = [len(table) for table in (splits.train, splits.valid, splits.test)]
    assert found == pytest.approx(COUNTS[name], rel=0.002)  # a handful of e-mails have no text
    several = {"aeslc": {4}, "scitldr": {1, 2, 3, 4}}.get(name)
    for table in (splits.train, splits.valid, splits.test):
        assert all(s.strip() and t.strip() for s, t in zip(table.sources, table.targets, strict=True))
        if several and table is not splits.train:
            assert {len(one) for one in table.references} <= several
            assert [first for first, *_ in table.references] == table.targets
        else:
            assert table.references is None
