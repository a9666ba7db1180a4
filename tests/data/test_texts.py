"""Running text by name or by path."""

import gzip
import hashlib
from pathlib import Path

import pytest

from recurra.data import load_splits, load_text
from recurra.data.cache import write_json_lines
from recurra.data.download import Published
from recurra.data.public_texts import PTB, TINYSHAKESPEARE, find_text, ptb, tinyshakespeare
from recurra.errors import (
    ChecksumError,
    DataError,
    EmptyDataError,
    MissingDataError,
    OptionError,
    UndecodableFileError,
)

BOOKS = {"train": "some words to train\n", "valid": "some to hold out\n", "test": "the rest\n"}


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RECURRA_DATA", raising=False)


def published(texts):
    return {
        part: Published(f"http://127.0.0.1:9/{part}.txt", hashlib.md5(text.encode()).hexdigest(), f"ptb.{part}.txt")
        for part, text in texts.items()
    }


def put(folder, packed):
    folder.mkdir(parents=True, exist_ok=True)
    for part, text in BOOKS.items():
        data = text.encode()
        (folder / f"ptb.{part}.txt{'.gz' if packed else ''}").write_bytes(gzip.compress(data) if packed else data)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("below", ["", "ptb"])
def test_ptb_from_a_folder(tmp_path, packed, below, monkeypatch):
    put(tmp_path / "given" / below, packed)
    files = published(BOOKS)
    splits = ptb(tmp_path / "given", files=files)
    found = {part: getattr(splits, part).texts for part in BOOKS}
    assert found == {part: [text] for part, text in BOOKS.items()}
    assert splits.train.labels is None
    monkeypatch.setenv("RECURRA_DATA", str(tmp_path / "given"))
    assert ptb(files=files) == splits
    assert find_text("ptb", files) == tmp_path / "given" / below


def test_a_folder_without_it_and_a_text_that_is_another_one(tmp_path):
    with pytest.raises(MissingDataError, match=r"ptb is not in the folder given(.|\n)*ptb\.train\.txt, ptb\.valid"):
        ptb(tmp_path)
    put(tmp_path, packed=False)
    with pytest.raises(ChecksumError, match=r"ptb\.train\.txt is not the text that was published(.|\n)*wojzaremba"):
        ptb(tmp_path)


def test_what_cannot_be_downloaded_says_where_it_is(tmp_path):
    assert find_text("ptb", PTB) is None
    with pytest.raises(MissingDataError, match=r"could not be downloaded(.|\n)*--data-dir FOLDER"):
        ptb(files=published(BOOKS))


def test_tinyshakespeare_is_cut_after_nine_tenths(tmp_path):
    text = "".join(f"line {i}\n" for i in range(100))
    (tmp_path / "input.txt").write_text(text)
    one = Published("http://127.0.0.1:9/input.txt", hashlib.md5(text.encode()).hexdigest(), "input.txt")
    splits = tinyshakespeare(tmp_path, files={"all": one})
    assert splits.train.texts[0] + splits.test.texts[0] == text
    assert len(splits.train.texts[0]) == len(text) * 9 // 10
    assert splits.valid is None


def test_addresses_and_sums_are_whole():
    for one in (*PTB.values(), *TINYSHAKESPEARE.values()):
        assert one.url.startswith("https://")
        assert len(one.md5) == 32


def test_a_text_file_of_any_name(tmp_path):
    for name, data in {"book.txt": b"a\r\nb", "README": b"a\r\nb", "book.txt.gz": gzip.compress(b"a\r\nb")}.items():
        (tmp_path / name).write_bytes(data)
        splits = load_text(tmp_path / name)
        assert splits.train.texts == ["a\r\nb"], "as it is, to the last character"
        assert (splits.valid, splits.test) == (None, None)


def test_a_column_of_a_table(tmp_path):
    (tmp_path / "t.csv").write_text("words,text\na,b\nc,d\n")
    assert load_text(tmp_path / "t.csv").train.texts == ["b", "d"]
    assert load_text(tmp_path / "t.csv", text="words").train.texts == ["a", "c"]


@pytest.mark.parametrize("name", ["{}.txt", "ptb.{}.txt.gz", "my.{}.md"])
def test_a_folder_of_parts(tmp_path, name):
    for part, text in BOOKS.items():
        path = tmp_path / name.format(part)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    (tmp_path / "training.txt").write_text("no part")
    splits = load_text(tmp_path)
    assert [getattr(splits, part).texts for part in BOOKS] == [[text] for text in BOOKS.values()]


def test_a_folder_of_texts(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/two.txt", "a.txt", "c.rst"):
        (tmp_path / name).write_text(f"{name}\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert load_text(tmp_path).train.texts == ["a.txt\n", "b/two.txt\n", "c.rst\n"]


def test_folders_of_parts_and_what_is_hidden(tmp_path):
    for name in ("train/b/two.txt", "train/a.md", "Dev/x.txt", "test/test/y.txt", "read.me.md", "train/.hidden/z.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n")
    splits = load_text(tmp_path)
    assert [[*part.texts] for part in (splits.train, splits.valid, splits.test)] == [
        ["train/a.md\n", "train/b/two.txt\n"],
        ["Dev/x.txt\n"],
        ["test/test/y.txt\n"],
    ]


def test_a_column_is_of_a_table(tmp_path):
    (tmp_path / "book.txt").write_text("words\n")
    for source in (tmp_path, tmp_path / "book.txt", "ptb"):
        with pytest.raises(OptionError, match="names a column of a table, and there is none"):
            load_text(source, text="body")


def test_what_is_called_test_is_never_trained_on(tmp_path):
    for name in ("book.txt", "VALID.txt", "Test.txt"):
        (tmp_path / name).write_text(f"{name}\n")
    splits = load_text(tmp_path)
    assert [[*part.texts] for part in (splits.train, splits.valid, splits.test)] == [
        ["book.txt\n"],
        ["VALID.txt\n"],
        ["Test.txt\n"],
    ]
    (tmp_path / "book.txt").unlink()
    with pytest.raises(MissingDataError, match="the folder holds no text to train on"):
        load_text(tmp_path)


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(MissingDataError, match="no file, no folder and no corpus of that name"):
        load_text(tmp_path / "none")
    with pytest.raises(MissingDataError, match=r"the folder holds no texts(.|\n)*empty"):
        load_text(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"a\n\xff")
    with pytest.raises(UndecodableFileError, match=r"a\.txt, line 2: not valid UTF-8"):
        load_text(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(EmptyDataError, match=r"a\.txt is empty"):
        load_text(tmp_path)
    for name in ("train.txt", "train.md"):
        (tmp_path / name).write_text("words\n")
    with pytest.raises(DataError, match="several texts of the same part"):
        load_text(tmp_path)


def test_a_labelled_corpus_is_text_too_but_no_text_has_classes(tmp_path):
    for split in ("train", "test"):
        write_json_lines(tmp_path / f"imdb/{split}.jsonl.gz", [{"text": f"{split} {i}", "label": i} for i in (0, 1)])
    splits = load_text("imdb", data_dir=tmp_path)
    assert splits.train.texts == ["train 0", "train 1"]
    assert splits.train.labels is None


def test_a_classifier_cannot_learn_from_a_text(monkeypatch, tmp_path):
    from dataclasses import replace

    from recurra.data import corpora

    put(tmp_path, packed=False)
    row = replace(corpora.CORPORA["ptb"], load=lambda place: ptb(place, files=published(BOOKS)))
    monkeypatch.setitem(corpora.CORPORA, "ptb", row)
    with pytest.raises(DataError, match=r"the texts of ptb have no classes(.|\n)*the next word"):
        load_splits("ptb", data_dir=tmp_path)
    assert load_text("ptb", data_dir=Path(tmp_path)).test.texts == ["the rest\n"]
