"""What the pages say is so: their Python runs and prints what they show, their commands and links exist."""

import re
import shlex
from pathlib import Path

import pytest
import refresh
from typer.main import get_command

from recurra.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = pytest.mark.parametrize("page", refresh.PAGES, ids=lambda p: p.name)
COMMANDS = [
    pytest.param(line, id=f"{page.name}: {line}")
    for page in refresh.PAGES
    for line in [
        *(row for kind, code in refresh.blocks(page.read_text("utf-8")) if kind == "sh" for row in code.splitlines()),
        *re.findall(r"`(recurra [^`]*)`", page.read_text("utf-8")),
    ]
    if line.startswith("recurra ")
]


@PAGES
def test_its_blocks_run_and_print_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text("utf-8")
    assert refresh.refreshed(text, page.name) == text, "python docs/refresh.py brings it up to date"


@pytest.mark.parametrize("name", refresh.MADE)
def test_pages_made_of_docstrings_are_current(name):
    page = ROOT / "docs" / name
    assert page.read_text("utf-8") == refresh.MADE[name](), "python docs/refresh.py brings it up to date"


def test_every_error_says_where_its_page_is():
    from recurra.errors import PAGE, RecurraError

    where = str(RecurraError("x")).split("see:")[1].strip()
    assert where == f"{PAGE}#RecurraError"
    assert '<a id="RecurraError"></a>' in (ROOT / PAGE).read_text("utf-8")


@PAGES
def test_its_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def check_command(line: str) -> None:
    """That a line of shell is a command of ours, with options that it has."""
    command = get_command(app)
    for word in shlex.split(line, comments=True)[1:]:
        if word.startswith("--"):
            known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
            assert word.split("=")[0] in known, f"{command.name} has no {word}"
        elif hasattr(command, "get_command"):
            found = command.get_command(None, word)
            assert found is not None, f"there is no command {word!r} in {line!r}"
            command = found


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_exist(line):
    check_command(line)


@pytest.mark.parametrize("line", ["recurra fly", "recurra train everything", "recurra doctor --loudly", "recurra --x"])
def test_a_command_that_does_not_exist_is_found(line):
    with pytest.raises(AssertionError):
        check_command(line)


def test_pages_name_commands_at_all():
    assert len(COMMANDS) > 5
