"""The command line as a user meets it: help without torch, one message for an error, JSON for programs."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch

import recurra
from recurra.cli.main import COMMANDS
from recurra.errors import NativeTargetError, RunFolderError
from recurra.kernels import cpu

ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if not k.startswith(("RECURRA_", "THP_"))},
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "100",
    "TERM": "dumb",
    "NO_COLOR": "1",
}
HELPS = [[], ["train"], ["train", "classify"], *([name] for name in COMMANDS if name != "train")]


def plain(text):
    """Without the frames that rich draws, on one line."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def test_every_help_answers_without_anything_heavy(tmp_path):
    code = (
        "import sys\n"
        "from recurra.cli.main import main\n"
        f"for command in {HELPS!r}:\n"
        "    sys.argv = ['recurra', *command, '--help']\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, end.code\n"
        "    heavy = {'torch', 'lightning', 'pandas', 'matplotlib', 'sklearn', 'tokenizers', 'numpy'} & sys.modules.keys()\n"
        "    assert not heavy, (command, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().count("Usage: recurra") == len(HELPS)


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_every_help_has_an_example(run, command, tmp_path):
    shown = plain(run(*command, "--help", cwd=tmp_path).out)
    assert f"Usage: recurra {' '.join(command)}".strip() in shown
    if command not in ([], ["train"]):
        assert f"recurra {' '.join(command)}" in shown.split("Example", 1)[1]


def test_help_lists_every_command_of_the_table(run, tmp_path):
    shown = plain(run("--help", cwd=tmp_path).out).split("Commands", 1)[1]
    places = [shown.find(f" {name} ") for name in COMMANDS]
    assert -1 not in places
    assert places == sorted(places)


def test_the_version_is_printed(run, tmp_path):
    assert run("--version", cwd=tmp_path).out.strip() == recurra.__version__


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "nowhere"], "there is no such run folder\n  received: nowhere"),
        (["predict", "nowhere", "a text"], "there is no such run folder"),
        (
            ["train", "classify", "nowhere.csv"],
            "no file, no folder and no corpus of that name\n  received: 'nowhere.csv'",
        ),
        (["train", "classify", "imbd"], "received: 'imbd'\n  instead:  'imdb'?"),
        (
            ["train", "classify", "x.csv", "--preset", "articel"],
            "no preset of that name\n  received: 'articel'\n  instead:  'article'?",
        ),
    ],
)
def test_an_error_is_one_message_and_exit_code_2(run, tmp_path, arguments, said):
    done = run(*arguments, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert said in done.err
    assert "docs/errors.md#" in done.err
    assert [*tmp_path.iterdir()] == []


def test_debug_shows_the_traceback(run, tmp_path, monkeypatch):
    with pytest.raises(RunFolderError, match="there is no such run folder"):
        run("--debug", "evaluate", "nowhere", cwd=tmp_path)
    monkeypatch.setenv("RECURRA_DEBUG", "1")
    with pytest.raises(RunFolderError, match="there is no such run folder"):
        run("evaluate", "nowhere", cwd=tmp_path)


def test_a_misspelt_command_or_option_is_suggested(run, tmp_path):
    done = run("evalute", cwd=tmp_path)
    assert done.code == 2
    assert "Did you mean 'evaluate'?" in plain(done.err)
    done = run("train", "classify", "x.csv", "--hiden-size", "3", cwd=tmp_path)
    assert done.code == 2
    assert "--hidden-size" in plain(done.err)


def test_a_folder_that_cannot_be_written_to(run, tmp_path):
    (tmp_path / "reviews.csv").write_text("text,label\n" + "a fine film,good\na dull film,bad\n" * 10)
    (tmp_path / "file").write_text("")
    done = run("train", "classify", "reviews.csv", "--out", "file/run", cwd=tmp_path)
    assert done.code == 2
    assert re.match(r"error: (Not a directory|File exists): file", done.err)


def test_the_module_is_the_command_and_asks_for_huge_pages_before_torch_is_loaded(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "recurra", "doctor", "--json"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        check=True,
    )
    shown = json.loads(done.stdout)
    assert shown["machine"]["huge pages"] == "asked for"
    assert shown["machine"]["threads"] == 1


def test_doctor_shows_the_native_machine(run, tmp_path, monkeypatch):
    monkeypatch.delenv("RECURRA_CPU_TARGET", raising=False)
    shown = json.loads(run("doctor", "--json", cwd=tmp_path).out)["native"]
    assert shown["forced"] is None
    assert shown["targets"] == cpu.targets()
    assert shown["why not"] == cpu.missing()
    assert (shown["target"] is None) == bool(cpu.missing())
    text = plain(run("doctor", cwd=tmp_path).out)
    for name, runs in cpu.targets().items():
        assert f"{name} compiled in, {'runs here' if runs else 'cannot run on this processor'}" in text
    assert f"bfloat16 {shown['bfloat16']}" in text
    assert "multiplied in float32" in text
    assert "target none: Recurra was installed without" in text or "the best that runs here" in text


def test_doctor_says_why_a_forced_target_does_not_run(run, tmp_path, monkeypatch):
    def refused():
        raise NativeTargetError("RECURRA_CPU_TARGET is pdp-11; this machine can run vax", instead="name one of these")

    monkeypatch.setenv("RECURRA_CPU_TARGET", "pdp-11")
    monkeypatch.setattr(cpu, "missing", lambda: "")
    monkeypatch.setattr(cpu, "native", refused)
    assert json.loads(run("doctor", "--json", cwd=tmp_path).out)["native"]["forced"] == "pdp-11"
    text = plain(run("doctor", cwd=tmp_path).out)
    assert "target none: RECURRA_CPU_TARGET is pdp-11; this machine can run vax instead: name one of these" in text


def test_doctor_says_what_is_there_and_how_to_get_the_rest(run, tmp_path, monkeypatch):
    (tmp_path / "data" / "imdb").mkdir(parents=True)
    shown = json.loads(run("doctor", "--json", "--data-dir", "data", cwd=tmp_path).out)
    assert shown["versions"]["torch"] == torch.__version__
    assert shown["extras"]["tasks"] == {"missing": [], "install": 'pip install "recurra[tasks]"'}
    assert shown["data"] == {"--data-dir": "data: imdb", "RECURRA_DATA": "not given"}
    monkeypatch.setattr("recurra.cli.doctor.find_spec", lambda name: None if name == "pooch" else name)
    monkeypatch.setenv("RECURRA_DATA", "nowhere")
    shown = run("doctor", cwd=tmp_path).out
    assert 'missing pooch: pip install "recurra[tasks]"' in shown
    assert "nowhere: there is no such folder" in shown
