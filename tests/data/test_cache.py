"""The cache: whole files or none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recurra.data.cache import cache_folder, read_json_lines, write_json_lines
from recurra.errors import UndecodableFileError

ROWS = [{"text": "naïve\nfilm", "label": 1}, {"text": "\u2028", "label": 0}]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl.gz"
    write_json_lines(path, ROWS)
    assert read_json_lines(path) == ROWS
    before = path.read_bytes()
    write_json_lines(path, ROWS)
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    def failing() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise KeyboardInterrupt

    path = tmp_path / "rows.jsonl.gz"
    for before in ([], ["rows.jsonl.gz"]):
        with pytest.raises(KeyboardInterrupt):
            write_json_lines(path, failing())
        assert [found.name for found in tmp_path.iterdir()] == before
        write_json_lines(path, ROWS)
    assert read_json_lines(path) == ROWS


def test_a_damaged_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    write_json_lines(path, ROWS)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UndecodableFileError, match=r"rows\.jsonl\.gz is damaged"):
        read_json_lines(path)


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("RECURRA_CACHE")
    assert cache_folder().name == "recurra"
