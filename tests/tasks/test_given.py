"""One text of what a caller gives, and the part of it that is held out."""

import numpy as np
import pytest

from recurra.data import Texts
from recurra.errors import EmptyDataError, MissingDataError, UndecodableFileError
from recurra.tasks.given import held_out, joined

LINES = ["the cat sat on the mat\n", "a dog ran to the cat\n", "the dog sat\n", "a cat ran on a mat\n"]
TEXT = "".join(LINES[i] for i in np.random.default_rng(0).integers(0, len(LINES), 120))


def test_a_part_that_is_held_out_begins_a_line_and_no_character_is_lost():
    for fraction in (0.1, 0.5, 0.9):
        kept, out = held_out(joined(TEXT), fraction)
        assert str(kept) + str(out) == TEXT
        assert str(kept).endswith("\n")
    assert "".join(map(str, held_out(joined("no line end here"), 0.5))) == "no line end here"


def test_a_part_that_is_held_out_is_no_less_than_half_of_what_was_asked_for():
    text = "a" * 1000 + "\n" + "b" * 1000 + "\n" + "c" * 10 + "\n"
    for fraction in (0.05, 0.1, 0.4, 0.6):
        kept, out = map(str, held_out(joined(text), fraction))
        assert kept + out == text
        assert len(out) >= len(text) * fraction / 2
    assert str(held_out(joined(text), 0.6)[1]) == text[1001:]


@pytest.mark.parametrize("make", [list, tuple, iter, Texts])
def test_each_text_but_the_only_one_ends_its_line(make):
    assert str(joined(make(["a\n", "b"]))) == "a\nb\n"
    assert str(joined(make(["to be"]))) == "to be"


@pytest.mark.parametrize("make", [lambda text: text, lambda text: [text], lambda text: Texts([text])])
def test_half_a_character_is_no_text(make):
    with pytest.raises(UndecodableFileError, match="holds half a character"):
        joined(make("half: \ud800"))


def test_a_path_is_a_file(tmp_path):
    with pytest.raises(MissingDataError, match="no such file for the validation text"):
        joined(tmp_path / "none.txt", "validation text")
    with pytest.raises(MissingDataError, match="no such file for the text"):
        joined(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(EmptyDataError, match=r"a\.txt is empty"):
        joined(tmp_path / "a.txt")
