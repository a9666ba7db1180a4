"""IMDB by name: the same from every form, and never from a file that is another one, cut off, or unsafe."""

import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recurra.data.cache import write_json_lines
from recurra.data.download import Published
from recurra.data.public import IMDB, imdb
from recurra.errors import ChecksumError, DataError, MissingDataError, UndecodableFileError

PLACES = [Path(os.environ.get("RECURRA_DATA", "none")), Path(__file__).parents[3] / "shared" / "data"]
SHARED = next((place for place in PLACES if (place / "imdb" / "train.jsonl.gz").is_file()), None)
REVIEWS = {
    ("train", "neg"): ["Dull.<br />Very dull.", "Not for me", "Zzz"],
    ("train", "pos"): ["A fine film", "“Naïve” in the best way"],
    ("test", "neg"): ["Long, and dull", "No"],
    ("test", "pos"): ["Fine acting", "Yes"],
}
NUMBERS = (0, 10, 2)  # names sort otherwise than numbers do


def members() -> dict[str, bytes]:
    found = {"aclImdb/README": b"read me", "aclImdb/train/unsup/0_0.txt": b"without a label"}
    for (split, name), texts in REVIEWS.items():
        for number, text in zip(NUMBERS, texts, strict=False):
            found[f"aclImdb/{split}/{name}/{number}_{3 if name == 'neg' else 8}.txt"] = text.encode()
    return found


def archive(files: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in more:
            tar.addfile(member)
    return buffer.getvalue()


def published(content: bytes, url: str = "http://127.0.0.1:9/aclImdb_v1.tar.gz") -> Published:
    return Published(url, hashlib.md5(content).hexdigest(), "aclImdb_v1.tar.gz")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RECURRA_DATA", raising=False)
    return tmp_path / "cache"


def files_under(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def put_archive(folder: Path) -> None:
    (folder / "aclImdb_v1.tar.gz").write_bytes(archive(members()))


def put_folder(folder: Path) -> None:
    for name, content in members().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def put_tables(folder: Path) -> None:
    for split in ("train", "test"):
        rows = []
        for label, name in enumerate(("neg", "pos")):
            texts = REVIEWS[split, name]
            order = sorted(range(len(texts)), key=lambda i: NUMBERS[i])
            rows += [{"id": f"{split}/{name}/{i}", "label": label, "text": texts[i]} for i in order]
        write_json_lines(folder / f"{split}.jsonl.gz", rows)


def expected(split: str) -> list[tuple[str, str]]:
    """Texts by class and number: 0, 2, 10."""
    order = {3: (0, 2, 1), 2: (0, 1)}
    return [(REVIEWS[split, name][i], name) for name in ("neg", "pos") for i in order[len(REVIEWS[split, name])]]


@pytest.mark.parametrize("inside", ["", "imdb"])
@pytest.mark.parametrize("put", [put_archive, put_folder, put_tables])
def test_every_form_gives_the_same(
    tmp_path: Path, put: Callable[[Path], None], inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given"
    (given / inside).mkdir(parents=True)
    put(given / inside)
    file = published(archive(members()))
    splits = imdb(given, published=file)
    assert [*zip(splits.train.texts, splits.train.labels or [], strict=True)] == expected("train")
    assert splits.test
    assert [*zip(splits.test.texts, splits.test.labels or [], strict=True)] == expected("test")
    assert splits.valid is None
    assert splits.train.source == "imdb"
    other = tmp_path / "other"
    other.mkdir()
    put_tables(other)
    monkeypatch.setenv("RECURRA_DATA", str(other))
    assert imdb(published=file).fingerprint == splits.fingerprint


def test_the_folder_itself_may_be_named(tmp_path: Path) -> None:
    put_folder(tmp_path)
    assert imdb(tmp_path / "aclImdb").train.texts == [text for text, _ in expected("train")]


def test_a_folder_named_must_hold_it(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"not in the folder given\n.*\n.*aclImdb_v1\.tar\.gz, the folder"):
        imdb(tmp_path)


def test_another_archive_is_refused(tmp_path: Path, cache: Path) -> None:
    put_archive(tmp_path)
    with pytest.raises(ChecksumError, match=rf"aclImdb_v1\.tar\.gz is not the file .*\n.*\n.*md5 {IMDB.md5}"):
        imdb(tmp_path)
    assert files_under(cache) == []


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    return found


@pytest.mark.parametrize(
    "unsafe",
    [
        member("../evil.txt"),
        member("/etc/evil.txt"),
        member("aclImdb/../../evil.txt"),
        member("aclImdb/train/neg/1_1.txt", tarfile.SYMTYPE, "/etc/passwd"),
        member("aclImdb/train/neg/1_1.txt", tarfile.LNKTYPE, "../../secret"),
        member("aclImdb/device", tarfile.CHRTYPE),
    ],
    ids=lambda m: f"{m.name}-{m.type.decode()}",
)
def test_unsafe_members_are_refused(tmp_path: Path, cache: Path, unsafe: tarfile.TarInfo) -> None:
    content = archive(members(), unsafe)
    (tmp_path / "aclImdb_v1.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"not safe to unpack\n.*(evil|1_1\.txt|device)"):
        imdb(tmp_path, published=published(content))
    assert files_under(cache) == []


def test_damaged_content_is_refused(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "aclImdb_v1.tar.gz"
    whole = archive(members())
    bad = archive({**members(), "aclImdb/test/pos/7_7.txt": b"one\ntw\xf6"})
    few = archive({name: data for name, data in members().items() if "test/pos" not in name})
    for content, message in {
        whole[:-30]: r"aclImdb_v1\.tar\.gz is damaged or cut off",
        b"no archive at all": r"aclImdb_v1\.tar\.gz is damaged or cut off",
        bad: r"aclImdb/test/pos/7_7\.txt, line 2: not valid UTF-8\n.*0xf6",
        few: r"holds no test reviews of both classes",
    }.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            imdb(tmp_path, published=published(content))
        assert files_under(cache) == []


def test_damaged_folders_and_tables_are_refused(tmp_path: Path) -> None:
    put_folder(tmp_path)
    stray = tmp_path / "aclImdb/train/neg/notes.txt"
    stray.write_text("mine")
    with pytest.raises(DataError, match=r"is no review\n.*notes\.txt"):
        imdb(tmp_path)
    stray.unlink()
    (tmp_path / "aclImdb/train/pos/5_9.txt").write_bytes(b"\xff")
    with pytest.raises(UndecodableFileError, match=r"5_9\.txt, line 1: not valid UTF-8"):
        imdb(tmp_path)
    for path in (tmp_path / "aclImdb/train/pos").iterdir():
        path.unlink()
    with pytest.raises(MissingDataError, match=r"holds no reviews\n.*pos"):
        imdb(tmp_path)
    for split in ("train", "test"):
        write_json_lines(tmp_path / f"{split}.jsonl.gz", [{"text": "a", "label": 2}])
    with pytest.raises(DataError, match=r"labels other than 0 and 1\n.*2"):
        imdb(tmp_path)


class Server(ThreadingHTTPServer):
    """Serves one content; `cut` makes it break off, `asked` counts."""

    content = b""
    cut = False
    status = 200
    asked = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        sent = self.server.content[: len(self.server.content) // 2 if self.server.cut else None]
        self.wfile.write(sent)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as serving:
        serving.content = archive(members())
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def at(server: Server, content: bytes | None = None) -> Published:
    return published(content or server.content, f"http://127.0.0.1:{server.server_port}/aclImdb_v1.tar.gz")


def test_it_is_downloaded_once(server: Server, cache: Path) -> None:
    first = imdb(published=at(server))
    assert [*zip(first.train.texts, first.train.labels or [], strict=True)] == expected("train")
    assert files_under(cache) == ["test.jsonl.gz", "train.jsonl.gz"]
    assert imdb(published=at(server)).fingerprint == first.fingerprint
    assert server.asked == 1
    next(cache.rglob("test.jsonl.gz")).unlink()  # as if it had been stopped between the two
    assert imdb(published=at(server)).fingerprint == first.fingerprint
    assert server.asked == 2


def test_a_download_with_another_sum_is_not_kept(server: Server, cache: Path) -> None:
    with pytest.raises(ChecksumError, match=r"is not the file that was published.*\n.*\n.*md5 "):
        imdb(published=at(server, b"what was published"))
    assert files_under(cache) == []


def test_a_download_that_breaks_off_is_not_kept(server: Server, cache: Path) -> None:
    server.cut = True
    with pytest.raises(MissingDataError, match=r"could not be downloaded\n.*\n.*--data-dir FOLDER, or \$RECURRA_DATA"):
        imdb(published=at(server))
    assert files_under(cache) == []
    server.cut = False
    assert len(imdb(published=at(server)).train.texts) == 5


def test_a_file_that_is_gone(server: Server, cache: Path) -> None:
    server.status = 404
    with pytest.raises(MissingDataError, match=r"could not be downloaded\n.*404"):
        imdb(published=at(server))
    assert files_under(cache) == []


def test_a_server_that_is_gone(cache: Path) -> None:
    with Server(("127.0.0.1", 0), Handler) as gone:
        nowhere = at(gone, b"-")
    with pytest.raises(MissingDataError, match=r"could not be downloaded\n.*ConnectionError.*\n.*--data-dir"):
        imdb(published=nowhere)
    assert files_under(cache) == []


def test_a_data_folder_without_it_is_passed_by(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("RECURRA_DATA", str(tmp_path / "data"))
    assert len(imdb(published=at(server)).train.texts) == 5


@pytest.mark.skipif(not SHARED, reason="imdb is in neither $RECURRA_DATA nor ../shared/data beside the repository")
def test_the_real_reviews() -> None:
    assert SHARED
    splits = imdb(SHARED)
    for table in (splits.train, splits.test):
        assert table
        assert table.labels == ["neg"] * 12_500 + ["pos"] * 12_500
    assert len({*splits.train.texts}) == 24_904  # both are the published numbers
    assert splits.test
    assert len({*splits.test.texts}) == 24_801
