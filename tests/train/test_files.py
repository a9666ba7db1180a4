"""Files written whole: who may read them, and paths whose bytes are no characters."""

import json
import os

import pytest

from recurra.data.cache import write_json_lines
from recurra.train.files import write_atomically


@pytest.fixture
def umask():
    """Set the umask; it is the caller's again after the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o027])
def test_who_may_read_a_file_is_for_the_umask_to_say(tmp_path, umask, mask):
    umask(mask)
    write_atomically(tmp_path / "a", b"whole")
    write_json_lines(tmp_path / "b.gz", [{"text": "whole"}])
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    assert len([*tmp_path.iterdir()]) == 2


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "folder", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_path_that_is_no_text_comes_back_from_json(tmp_path):
    path = os.fsdecode(b"caf\xe9/r.csv")
    write_atomically(tmp_path / "a", json.dumps({"data": path}, ensure_ascii=False))
    assert json.loads((tmp_path / "a").read_bytes())["data"] == path
