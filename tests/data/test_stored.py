"""What lies in a file is what was put there, and its pieces are read as the whole is."""

import errno
import random
import tracemalloc

import numpy as np
import pytest

from recurra.data import UNITS, Stored, Text, Texts, stored
from recurra.errors import DataError, MissingDataError

RANDOM = random.Random(0)
WORDS = "the cat sat; on 'a' mat's naïve 映画 film\u3000x 12 … don't 🙂 \u2028 \r \t".split(" ")
LINES = "".join(" ".join(RANDOM.choices(WORDS, k=RANDOM.randint(0, 9))) + "\n" for _ in range(300))
SHAPES = {
    "lines": LINES,
    "windows": LINES.replace("\n", "\r\n"),
    "one line": LINES.replace("\n", " "),
    "spaces": LINES.replace(" ", "   "),
    "no line end": LINES + "end",
}


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(stored, "PIECE", 200)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("unit", UNITS)
def test_tokens_of_the_pieces_are_those_of_the_whole(unit, shape, small_pieces):
    whole = SHAPES[shape]
    text = Text.of([whole])
    pieces = list(text.pieces())
    assert "".join(pieces) == whole == str(text)
    assert len(pieces) > len(whole) / 400
    one, of_pieces = (UNITS[unit].learn(texts, 300) for texts in ([whole], pieces))
    assert one.document() == of_pieces.document()
    assert np.concatenate([one.encode(piece) for piece in pieces]).tolist() == one.encode(whole).tolist()


def test_words_of_any_letters_are_whole():
    text = "слово ещё " * 70_000
    assert [word for piece in Text.of([text]).pieces() for word in piece.split()] == text.split()


def test_a_text_without_white_space_is_cut_between_characters(small_pieces):
    text = Text.of(["映é🙂x" * 500])
    assert "".join(text.pieces()) == "映é🙂x" * 500
    assert max(len(piece.encode()) for piece in text.pieces()) <= 200


def test_places_in_a_text_are_those_in_its_characters(small_pieces):
    text = Text.of([LINES[:37], "", LINES[37:]])
    assert text.characters == len(LINES)
    for n in [0, 1, 36, 37, 200, 201, *RANDOM.sample(range(len(LINES)), 50), len(LINES)]:
        at = text.offset(n)
        assert at == len(LINES[:n].encode())
        line = LINES.find("\n", n) + 1
        assert text.line_end(at) == len(LINES[:line].encode())
        assert str(text.part(at)) == LINES[n:]
    assert Text.of(["a"]).line_end(0) == 0
    assert Text.of([" \n" * 200]).is_blank()
    assert not Text.of([" \n" * 200, "a"]).is_blank()


def test_texts_are_a_list_that_memory_does_not_hold():
    told = [LINES, "", "half a character: \ud83d", "naïve"]
    texts = Texts(iter([told[0], iter(["", ""]), told[2], iter(["na", "ïve"])]))
    assert texts == told
    assert told == texts
    assert texts != told[1:]
    assert (texts[-1], texts[1:3], len(texts), "naïve" in texts) == ("naïve", told[1:3], 4, True)
    chosen = texts.select([3, 0]).select([1])
    assert (list(chosen), str(chosen.text(0))) == ([LINES], LINES)
    assert texts.characters == sum(map(len, told))
    with pytest.raises(IndexError):
        texts[4]
    assert list(Texts([])) == []


def test_memory_holds_a_row_at_a_time():
    tracemalloc.start()
    rows = Stored(([np.full(10_000, i)] for i in range(500)), np.uint16)
    texts = Texts("x" * 10_000 for _ in range(500))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000
    assert (rows.values.dtype, rows.values.sum(), rows[499][0]) == (np.uint16, 10_000 * 499 * 250, 499)
    assert len(texts) == 500
    assert not rows.values.flags.writeable


def test_no_file_is_left_and_a_full_disk_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    kept = Texts(["a"])
    assert list(tmp_path.iterdir()) == []
    assert kept[0] == "a"

    def full():
        yield "a"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match=r"no room for a copy of the data(.|\n)*No space left(.|\n)*TMPDIR=FOLDER"):
        Texts(full())

    def missing():
        yield "a"
        raise MissingDataError("there is no such file")

    with pytest.raises(MissingDataError, match="there is no such file"):
        Texts(missing())
