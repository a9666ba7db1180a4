"""A run folder is kept from accidents, and one from a stranger cannot do harm."""

import json
import struct

import pytest
import torch

from recurra.errors import RunFolderError
from recurra.train.files import write_atomically
from recurra.train.run_folder import RunFolder, versions, write_json
from recurra.train.untrusted import field, read_json

WEIGHTS = {"a": torch.randn(3, 4), "b": torch.arange(5)}


@pytest.fixture
def folder(tmp_path):
    """A finished run of a task "test"."""
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    folder.write_weights(WEIGHTS)
    folder.tokenizer.write_text("{}")
    folder.write_config({"task": "test", "settings": {"x": float("nan")}})
    return folder


def expected(**changes):
    return {k: v.to("meta") for k, v in (WEIGHTS | changes).items()}


def test_what_is_written_is_read(folder):
    config = folder.read_config("test")
    assert config["format"] == 1
    assert config["settings"] == {"x": None}
    found = folder.read_weights(expected())
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[k], WEIGHTS[k]) for k in WEIGHTS)


def test_a_run_is_not_discarded_by_accident(folder):
    with pytest.raises(RunFolderError, match=r"already holds a finished run\n.*run\n.*--resume(.|\n)*--overwrite"):
        folder.prepare()
    folder.weights.unlink()
    with pytest.raises(RunFolderError, match="already holds a run that was not finished"):
        folder.prepare()
    assert folder.config.exists()


def test_overwriting_removes_files_of_ours_only(folder):
    (folder.path / "notes.txt").write_text("mine")
    (folder.checkpoints / "last.safetensors").write_bytes(b"x")
    folder.prepare(overwrite=True)
    assert sorted(p.name for p in folder.path.rglob("*")) == ["checkpoints", "config.json", "notes.txt"]
    assert read_json(folder.config) == {"format": 1, "state": "new", "files": {}}


def test_a_folder_of_another_kind_is_not_overwritten(folder, tmp_path):
    """A model of another package may have files of just these names."""
    for name, content in {"config.json": '{"model_type": "bert"}', "model.safetensors": "precious"}.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(RunFolderError, match="not empty and holds no run"):
        RunFolder(tmp_path).prepare(overwrite=True)
    assert (tmp_path / "model.safetensors").read_text() == "precious"
    (tmp_path / "mine").mkdir()
    for name in (".config.json.swp", "notes"):
        (tmp_path / "mine" / name).write_text("mine")
    with pytest.raises(RunFolderError, match="not empty and holds no run"):
        RunFolder(tmp_path / "mine").prepare()
    assert {p.name for p in (tmp_path / "mine").iterdir()} == {".config.json.swp", "notes"}


def test_what_a_kill_left_half_written_is_removed(folder):
    strays = [
        folder.path / ".config.json.a1b2c3d4.recurra-tmp",
        folder.checkpoints / ".last.safetensors.a1b2c3d4.recurra-tmp",
    ]
    for stray in (*strays, folder.path / ".notes", folder.path / ".config.json.swp"):
        stray.write_bytes(b"x")
    folder.tidy()
    assert sorted(p.name for p in folder.path.rglob(".*")) == [".config.json.swp", ".notes"]
    assert folder.config.exists()


def test_checkpoints_that_lie_elsewhere_are_not_touched(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/only.safetensors").write_bytes(b"x")
    folder.checkpoints.rmdir()
    folder.checkpoints.symlink_to(tmp_path / "mine")
    with pytest.raises(RunFolderError, match=r"checkpoints leads out of the run folder\n.*mine"):
        folder.prepare(overwrite=True)
    assert (tmp_path / "mine/only.safetensors").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RunFolderError, match=r"not empty and holds no run(.|\n)*thesis\.tex"):
            RunFolder(tmp_path).prepare(overwrite=overwrite)
    with pytest.raises(RunFolderError, match="there is a file of that name"):
        RunFolder(tmp_path / "thesis.tex").prepare()


def test_a_missing_folder_and_one_without_a_run(tmp_path):
    with pytest.raises(RunFolderError, match=r"no such run folder\n.*nowhere"):
        RunFolder(tmp_path / "nowhere").read_config("test")
    with pytest.raises(RunFolderError, match=r"holds no run: config\.json is missing"):
        RunFolder(tmp_path).read_config("test")


@pytest.mark.parametrize("content", [b"", b'{"format": 1', b"\xff\xfe", b"[1]", b"null", b"[" * 100_000])
def test_a_damaged_config_is_named(folder, content):
    folder.config.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"config\.json is damaged"):
        folder.read_config("test")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "is of format 2; this version of recurra reads format 1"),
        ({"format": None}, "is of format None"),
        ({"task": "forecast"}, "the run is of another task than 'test'\n.*'forecast'"),
        ({"files": None}, "'files' must be dict"),
        ({"files": {"../../etc/passwd": {}}}, "names a file that no run has"),
        ({"files": {"model.safetensors": 3}}, "names a file that no run has"),
    ],
)
def test_a_config_that_does_not_fit(folder, change, said):
    write_json(folder.config, read_json(folder.config) | change)
    with pytest.raises(RunFolderError, match=said):
        folder.read_config("test")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_damaged_file_is_named(folder, name):
    path = folder.path / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(
        RunFolderError, match=rf"{name} is damaged: its content is not what was written(.|\n)*--overwrite"
    ):
        folder.read_config("test")
    path.write_bytes(content[:-1])
    with pytest.raises(
        RunFolderError, match=rf"{name} is damaged or truncated\n.*{len(content) - 1} bytes, {len(content)}"
    ):
        folder.read_config("test")
    path.unlink()
    with pytest.raises(RunFolderError, match=f"a file of the run is missing: {name}"):
        folder.read_config("test")


def test_a_run_that_is_not_finished_says_how_to_finish_it(folder):
    folder.weights.unlink()
    folder.write_config({"task": "test"})
    folder.last.write_bytes(b"x")
    with pytest.raises(RunFolderError, match=r"has no weights(.|\n)*with --resume"):
        folder.require_finished(folder.read_config("test"))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (expected(c=torch.zeros(2)), r"missing or unknown\n.*missing \['c'\], unknown \[\]"),
        ({"a": WEIGHTS["a"]}, r"missing \[\], unknown \['b'\]"),
        (expected(a=torch.zeros(4, 3)), r"a must be \(4, 3\) of torch.float32\n.*\(3, 4\) of torch.float32"),
        (expected(b=torch.zeros(5)), r"b must be \(5,\) of torch.float32\n.*\(5,\) of torch.int64"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, wanted, said):
    with pytest.raises(RunFolderError, match=said):
        folder.read_weights(wanted)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(folder, bad):
    folder.write_weights(WEIGHTS | {"a": torch.full((3, 4), bad)})
    with pytest.raises(RunFolderError, match="NaN or infinite: a"):
        folder.read_weights(expected())


@pytest.mark.parametrize("kept", [0, 4, 8, 60, -1])
def test_truncated_weights_are_refused(folder, kept):
    folder.weights.write_bytes(folder.weights.read_bytes()[:kept])
    with pytest.raises(RunFolderError, match=r"model\.safetensors is damaged or truncated"):
        folder.read_weights(expected())


def test_sizes_are_checked_before_memory_is_taken(folder):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 1 << 42]}}).encode()
    folder.weights.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    with pytest.raises(RunFolderError, match="damaged or truncated"):
        folder.read_weights({"a": torch.empty(1 << 20, 1 << 20, device="meta")})


def test_a_field_has_its_type(folder):
    with pytest.raises(RunFolderError, match=r"'seed' must be int\n.*True"):
        field({"seed": True}, "seed", int, folder.config)
    with pytest.raises(RunFolderError, match=r"'seed' must be int or str\n.*nothing"):
        field({}, "seed", (int, str), folder.config)


def test_a_json_of_gigabytes_is_not_read(folder):
    with folder.config.open("wb") as file:
        file.truncate(1 << 31)  # a hole: takes no space on disk
    with pytest.raises(RunFolderError, match="larger than any run's"):
        folder.read_config("test")


def test_files_are_readable_by_others(tmp_path):
    write_atomically(tmp_path / "a", "ä")
    assert (tmp_path / "a").read_bytes() == "ä".encode()
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_versions_name_what_matters():
    found = versions()
    assert found["torch"] == torch.__version__
    assert "python" in found
