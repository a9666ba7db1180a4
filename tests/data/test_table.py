"""Tables: the same rows from every kind of file, and for each thing wrong a message that says where."""

import codecs
import csv
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from recurra.data import read_table
from recurra.errors import (
    DataError,
    EmptyDataError,
    EmptyTextError,
    MissingColumnError,
    MissingDataError,
    UndecodableFileError,
)

TEXTS = ['a "fine", fine film', "dull;\tand long\nin two lines", "naïve \u2028 映画"]
LABELS = ["good", "bad", "good"]


def as_csv(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "review", "sentiment"), *zip("123", TEXTS, LABELS, strict=True)])


def as_json_lines(path: Path) -> None:
    rows = [{"review": text, "sentiment": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")


def as_parquet(path: Path) -> None:
    labels = pyarrow.array(LABELS).dictionary_encode()
    parquet.write_table(pyarrow.table({"review": TEXTS, "other": [1, 2, 3], "sentiment": labels}), path)


WRITERS = {"csv": as_csv, "jsonl": as_json_lines, "parquet": as_parquet}
PACKERS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


@pytest.mark.parametrize(
    ("kind", "packed"),
    [(k, p) for k in WRITERS for p in PACKERS if k != "parquet" or not p],
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str, packed: str) -> None:
    plain = tmp_path / f"plain.{kind}"
    WRITERS[kind](plain)
    path = tmp_path / f"reviews.{kind}{packed}"
    path.write_bytes(PACKERS[packed](plain.read_bytes()))
    table = read_table(path)
    assert (table.texts, table.labels, table.source) == (TEXTS, LABELS, str(path))
    assert read_table(path, text="review", need_label=False).labels is None
    assert read_table(path, label="sentiment", need_label=False).labels == LABELS


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_quote_in_a_tsv_is_a_character(tmp_path: Path) -> None:
    path = write(tmp_path, "t.tsv", 'text\tlabel\n"so open\tx\nfine "end"\ty\n')
    assert read_table(path).texts == ['"so open', 'fine "end"']


def test_what_is_let_pass(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "\ufeff Text ,LABEL\r\na,1\r\n\r\nb, 2 \r\n".encode())
    table = read_table(path)
    assert (table.texts, table.labels) == (["a", "b"], ["1", "2"])
    path = write(tmp_path, "t.csv", "\n \r\n\ntext,label\na,1\n")
    assert (read_table(path).texts, read_table(path).labels) == (["a"], ["1"])
    path = write(tmp_path, "t.jsonl", '\n{"text": "a", "label": 1}\n\n{"text": "b", "label": true}\n')
    assert read_table(path).labels == ["1", "True"]
    long = "word " * 100_000  # more than csv takes by default
    assert read_table(write(tmp_path, "l.csv", f"text,label\n{long},x\n")).texts == [long]
    assert csv.field_size_limit() == 131072


def test_the_obvious_columns_come_in_their_order(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "body,text,category,label\nb,t,c,l\n")
    table = read_table(path)
    assert (table.texts, table.labels) == (["t"], ["l"])
    table = read_table(path, text="body", label="category")
    assert (table.texts, table.labels) == (["b"], ["c"])


BAD = [
    ("t.csv", b"text,label\nfine,x\nna\xefve,x\n", UndecodableFileError, r"t\.csv, line 3: not valid UTF-8"),
    ("t.csv", b"text,label\nfine,x\nna\xefve,x\n", UndecodableFileError, r"byte 0xef at column 3"),
    ("t.csv", b"\xef\xbb\xbftext,label\n\xff,x\n", UndecodableFileError, r"line 2: .*\n.*byte 0xff at column 1"),
    ("t.csv", "", EmptyDataError, r"t\.csv is empty"),
    ("t.csv", " \n\n", EmptyDataError, r"t\.csv is empty\n.*3 bytes"),
    ("t.csv", "text,label\n", EmptyDataError, r"t\.csv has no rows\n.*text, label"),
    ("t.csv", "text,label\nfine,x\na,b,c\n", UndecodableFileError, r"line 3: another number .*\n.*3 fields\n.*2: text"),
    ("t.csv", 'text,label\n"two\nlines",x\na\n', UndecodableFileError, r"line 4: another number of fields"),
    ("t.csv", 'text,label\nfine,x\n"open,x\nb,x\n', UndecodableFileError, r"line 3: not valid CSV"),
    ("t.csv", 'text,label\n"a"b,x\n', UndecodableFileError, r"line 2: not valid CSV"),
    ("t.csv", "text,text,label\na,b,x\n", DataError, r"line 1: columns of the same name\n.*'text'"),
    ("t.csv", 'text,label\n"a\nb",x\n  ,x\n', EmptyTextError, r"t\.csv, line 4: there is no text in 'text'"),
    ("t.csv", "text,label\na,x\nb, \n", DataError, r"t\.csv, line 3: there is no label in 'label'"),
    ("t.csv", "words,label\na,x\n", MissingColumnError, r"no column named text, .* one of the texts\n.*words, label"),
    ("t.csv", "text,kind\na,x\n", MissingColumnError, r"no column named label, .* one of the labels\n.*text, kind"),
    ("t.tsv", "text\tlabel\na\tx\tx\n", UndecodableFileError, r"t\.tsv, line 2: another number of fields"),
    ("t.jsonl", '{"text": "a", "label": "x"}\n{"text": \n', UndecodableFileError, r"t\.jsonl, line 2: not valid JSON"),
    ("t.jsonl", '\n["a", "x"]\n', UndecodableFileError, r"t\.jsonl, line 2: no JSON object"),
    ("t.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}', MissingColumnError, r"line 2: this row has no 'label'"),
    ("t.jsonl", '{"text": null, "label": 1}', EmptyTextError, r"line 1: there is no text in 'text'\n.*None"),
    ("t.jsonl", '{"text": 5, "label": 1}', DataError, r"line 1: 'text' is no text\n.*5"),
    ("t.jsonl", '{"text": "a", "label": []}', DataError, r"line 1: 'label' is no label"),
    ("t.jsonl", '{"text": "a", "label": NaN}', DataError, r"line 1: there is no label"),
    ("t.jsonl", '{"text": "a\\ud83d", "label": 1}', UndecodableFileError, r"line 1: 'text' holds half a character"),
    ("t.jsonl", '{"text": "a", "label": "\\ud800"}', UndecodableFileError, r"line 1: 'label' holds half a character"),
    (
        "t.jsonl",
        '{"text": "a", "n": %s}' % ("9" * 5000),
        UndecodableFileError,
        r"line 1: not valid JSON\n.*4300 digits",
    ),
    ("t.jsonl", '{"text": %s' % ("[" * 99999), UndecodableFileError, r"line 1: not valid JSON\n.*recursion"),
    (
        "t.jsonl",
        '{"text": "a", "text": "b"}',
        UndecodableFileError,
        r"not valid JSON\n.*the name 'text' is there twice",
    ),
    ("t.jsonl", "{}\n{}\n", EmptyDataError, r"t\.jsonl has no columns"),
    ("t.csv", '""\n', EmptyDataError, r"t\.csv has no columns"),
    ("t.csv", "\n\ntext,label\na\n", UndecodableFileError, r"line 4: another number of fields"),
    (
        "t.csv",
        codecs.BOM_UTF16_LE + "text\n".encode("utf-16-le"),
        UndecodableFileError,
        r"t\.csv is in UTF-16\n.*ff fe",
    ),
    (
        "t.csv.gz",
        gzip.compress(b"text,label\n" + b"fine,x\n" * 999, mtime=0)[:-20],
        UndecodableFileError,
        r"damaged or cut off",
    ),
    ("t.csv.gz", b"text,label\na,x\n", UndecodableFileError, r"t\.csv\.gz is damaged or cut off"),
    ("t.csv.xz", lzma.compress(b"text,label\na,x\n")[:-5], UndecodableFileError, r"damaged or cut off"),
    ("t.csv.xz", b"text,label\na,x\n", UndecodableFileError, r"t\.csv\.xz is damaged or cut off"),
    ("t.parquet", b"PAR1 and no more", UndecodableFileError, r"t\.parquet is no Parquet file, or damaged"),
    ("t.parquet", b"", EmptyDataError, r"t\.parquet is empty"),
    ("t.xlsx", b"PK", DataError, r"does not say what kind of table it is\n.*\.xlsx\n.*\.csv, \.tsv"),
    ("t.parquet.gz", b"PK", DataError, r"does not say what kind of table"),
    ("table", b"text,label\n", DataError, r"no ending"),
]


@pytest.mark.parametrize(("name", "content", "kind", "message"), BAD)
def test_what_is_wrong_is_said(
    tmp_path: Path, name: str, content: str | bytes, kind: type[DataError], message: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(kind, match=message) as caught:
        read_table(path)
    assert type(caught.value) is kind
    assert str(path) in str(caught.value)


def test_a_missing_column_is_suggested(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "review,sentiment\na,x\n")
    with pytest.raises(MissingColumnError, match=r"'reviw'\n.*'review'\? \(known: review, sentiment\)"):
        read_table(path, text="reviw")
    with pytest.raises(MissingColumnError, match=r"'sentimnt'\n.*'sentiment'\?"):
        read_table(path, label="sentimnt", need_label=False)


def test_an_empty_line_is_an_empty_text_where_there_is_one_column(tmp_path: Path) -> None:
    with pytest.raises(EmptyTextError, match=r"t\.csv, line 3: there is no text in 'text'"):
        read_table(write(tmp_path, "t.csv", "text\na\n\nb\n"), need_label=False)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"there is no such file\n.*none\.csv"):
        read_table(tmp_path / "none.csv")


def test_a_null_in_parquet_is_found_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"text": ["a", None], "label": ["x", "y"]}), path)
    with pytest.raises(EmptyTextError, match=r"t\.parquet, row 2: there is no text in 'text'"):
        read_table(path)


def test_columns_of_a_parquet_have_names_and_differ(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    twice = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    for table, kind, message in (
        (twice, DataError, r"t\.parquet: columns of the same name\n.*'text'"),
        (pyarrow.table({}), EmptyDataError, r"t\.parquet has no columns"),
    ):
        parquet.write_table(table, path)
        with pytest.raises(kind, match=message):
            read_table(path)


def test_a_parquet_damaged_within_is_found(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(
        pyarrow.table({"text": [f"text {i}" for i in range(999)], "label": ["x"] * 999}), path, write_page_checksum=True
    )
    data = bytearray(path.read_bytes())
    data[10:40] = bytes(30)
    path.write_bytes(data)
    with pytest.raises(UndecodableFileError, match=r"t\.parquet is damaged"):
        read_table(path)
