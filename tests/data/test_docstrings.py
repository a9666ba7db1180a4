"""The embedded corpus: what is read of a source, what is left out, which part a text is in, and the cache."""

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.data.docstrings import Docstring, docstrings, installed_packages, part_of, read_docstrings
from recurra.errors import EmptyDataError, OptionError, UnknownNameError

WORDS = "one two three four five six seven eight nine ten"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site"


def put(site: Path, name: str, content: str | bytes) -> Path:
    path = site / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in path.relative_to(site).parents:
        if folder != Path():
            (site / folder / "__init__.py").touch()
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def documented(*bodies: str) -> str:
    return "\n".join(f'def f{i}():\n    """Summary.\n\n    {body}\n    """\n' for i, body in enumerate(bodies))


def read(site: Path, *packages: str, limit: int | None = None) -> list[Docstring]:
    return read_docstrings(packages, limit=limit, roots=[site])


def test_modules_classes_and_functions_wherever_they_stand(site: Path) -> None:
    put(
        site,
        "alpha/deep/code.py",
        f'''"""A module,
in two lines.

Module {WORDS}
"""
if True:
    pass
elif False:
    class Outer:
        """A class.

        Class {WORDS}

            indented
        """
        async def method(self):
            """A method.

            Method {WORDS}
            """
            try:
                pass
            except ValueError:
                def inner():
                    """A function.

                    Inner {WORDS}
                    """
match 1:
    case 1:
        def matched(f=lambda: 0):
            """A case.

            Matched {WORDS}
            """
''',
    )
    file = "deep/code.py"
    assert read(site, "alpha") == [
        Docstring("alpha", file, "A module, in two lines.", f"Module {WORDS}"),
        Docstring("alpha", f"{file}:Outer", "A class.", f"Class {WORDS}\n\n    indented"),
        Docstring("alpha", f"{file}:Outer.method", "A method.", f"Method {WORDS}"),
        Docstring("alpha", f"{file}:Outer.method.inner", "A function.", f"Inner {WORDS}"),
        Docstring("alpha", f"{file}:matched", "A case.", f"Matched {WORDS}"),
    ]


def test_nothing_is_imported_or_run(site: Path) -> None:
    put(site, "alpha/code.py", "raise SystemExit\n" + documented(WORDS))
    assert len(read(site, "alpha")) == 1
    assert "alpha" not in sys.modules


def test_the_source_says_its_encoding(site: Path) -> None:
    put(site, "alpha/code.py", ("# coding: latin-1\n" + documented(f"é {WORDS}")).encode("latin-1"))
    assert [one.body for one in read(site, "alpha")] == [f"é {WORDS}"]


@pytest.mark.parametrize(
    "content",
    [
        documented(WORDS.removeprefix("one ")),  # nine words
        f'def f():\n    """{WORDS} {WORDS}"""\n',  # no body
        documented(WORDS) + "print 'Python 2'\n",
        documented(WORDS).encode() + b"\0",
        documented(f"{WORDS} \xff").encode("latin-1"),  # and nothing says that it is
        documented(f"{WORDS} \\ud800"),  # half a character: no file can hold it
        f'f(\n    """No docstring.\n\n    {WORDS}\n    """\n)\n',
        "(" * 300 + documented(WORDS),
    ],
)
def test_what_is_left_out(site: Path, content: str | bytes) -> None:
    put(site, "alpha/code.py", content)
    put(site, "alpha/fine.py", documented(f"fine {WORDS}"))
    assert [one.body for one in read(site, "alpha")] == [f"fine {WORDS}"]


@pytest.mark.parametrize("folder", ["tests", "test", "_vendor", "deep/externals", "site-packages/beta"])
def test_tests_and_others_packages_are_left_out(site: Path, folder: str) -> None:
    put(site, f"alpha/{folder}/code.py", documented(WORDS))
    put(site, "alpha/code.txt", documented(WORDS))
    assert read(site, "alpha") == []


def test_invalid_escapes_of_others_warn_nobody(site: Path) -> None:
    put(site, "alpha/code.py", documented(f"\\d {WORDS}"))
    assert len(read(site, "alpha")) == 1


def test_copies_count_for_the_first_package(site: Path) -> None:
    put(site, "beta/code.py", documented(WORDS, f"beta {WORDS}"))
    put(site, "alpha/code.py", documented(WORDS.upper(), f"alpha {WORDS}", f"alpha  {WORDS}"))
    found = read(site, "beta", "alpha")
    assert [(one.package, one.body) for one in found] == [
        ("alpha", WORDS.upper()),
        ("alpha", f"alpha {WORDS}"),
        ("beta", f"beta {WORDS}"),
    ]


def test_the_order_is_that_of_names(site: Path) -> None:
    for name in ("b", "a", "a/b", "c"):
        put(site, f"alpha/{name}.py", documented(f"{name} {WORDS}"))
    assert [one.where for one in read(site, "alpha")] == ["a.py:f0", "a/b.py:f0", "b.py:f0", "c.py:f0"]


def test_of_two_packages_of_a_name_the_first_is_read(site: Path) -> None:
    put(site / "one", "alpha/code.py", documented(f"one {WORDS}"))
    put(site / "two", "alpha/code.py", documented(f"two {WORDS}"))
    put(site / "two", "beta-2.0.dist-info/code.py", documented(WORDS))
    (site / "two" / "data").mkdir()
    roots = [site / "one", site / "nowhere", site / "two"]
    assert [one.body for one in read_docstrings(["alpha"], roots=roots)] == [f"one {WORDS}"]
    assert installed_packages(roots=roots) == ["stdlib", "alpha"]


def test_an_unknown_package_is_suggested(site: Path) -> None:
    put(site, "alpha/code.py", "")
    with pytest.raises(
        UnknownNameError, match=r"no installed package of that name\n.*'alhpa'\n.*'alpha'\? \(known: alpha, stdlib\)"
    ):
        read(site, "alhpa")


def test_packages_with_too_few_texts_are_no_classes(site: Path) -> None:
    put(site, "alpha/code.py", documented(*(f"{i} {WORDS}" for i in range(60))))
    put(site, "beta/code.py", documented(*(f"{i} {WORDS}" for i in range(60, 119))))
    splits = docstrings(["alpha", "beta"], min_texts=60, roots=[site])
    assert splits.valid
    assert splits.test
    assert {label for part in (splits.train, splits.valid, splits.test) for label in part.labels or []} == {"alpha"}
    with pytest.raises(EmptyDataError, match=r"no package has 61 docstrings\n.*alpha: 60, beta: 59"):
        docstrings(["alpha", "beta"], min_texts=61, roots=[site])
    with pytest.raises(OptionError, match=r"min_texts must be positive\n.*0"):
        docstrings(["alpha"], min_texts=0, roots=[site])


def test_a_limit_takes_the_first_texts_of_each_package(site: Path) -> None:
    put(site, "alpha/a.py", documented(f"1 {WORDS}", f"1 {WORDS}", f"2 {WORDS}"))
    put(site, "alpha/b.py", documented(f"3 {WORDS}", f"4 {WORDS}"))
    put(site, "beta/a.py", documented(f"4 {WORDS}"))
    assert [one.body[0] for one in read(site, "alpha", "beta", limit=3)] == ["1", "2", "3", "4"]
    assert [one.package for one in read(site, "alpha", "beta", limit=1)] == ["alpha", "beta"]
    with pytest.raises(OptionError, match=r"limit must be positive\n.*0"):
        read(site, "alpha", limit=0)


def test_parts_hold_each_text_once_in_fixed_proportions(site: Path) -> None:
    bodies = [f"{i} {WORDS}" for i in range(2000)]
    put(site, "alpha/code.py", documented(*bodies))
    splits = docstrings(["alpha"], roots=[site])
    assert splits.valid
    assert splits.test
    parts = {"train": splits.train.texts, "valid": splits.valid.texts, "test": splits.test.texts}
    assert sorted(text for texts in parts.values() for text in texts) == sorted(bodies)
    for name, texts in parts.items():
        assert {part_of(text) for text in texts} == {name}
    # 2,000 draws of one in ten: 200 with a standard deviation of 13.4
    assert 140 < len(splits.valid.texts) < 260
    assert 140 < len(splits.test.texts) < 260


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_part_is_of_words_alone(text: str) -> None:
    assert part_of(text) == part_of("\n ".join(text.casefold().split()))


def test_the_parts_of_texts_never_change() -> None:
    # Held-out texts of a trained model would be among another version's training texts.
    found = [part_of(text) for text in ("Return a copy.", "a", "b", "c", "d", "e", "f", "g", "h", "i")]
    assert found == ["valid", "test", "train", "test", *["train"] * 5, "test"]


def test_sources_are_parsed_once(site: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(site, "alpha/code.py", documented(WORDS))
    first = read(site, "alpha")
    (kept,) = cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("ast.parse", lambda *_: pytest.fail("parsed again"))
        assert read(site, "alpha") == first
    assert [*cache.iterdir()] == [kept]


def test_another_file_or_another_content_is_read_anew(site: Path) -> None:
    path = put(site, "alpha/code.py", documented(WORDS))
    before = path.stat()
    assert [one.body for one in read(site, "alpha")] == [WORDS]
    path.write_text(documented(WORDS.replace("one", "eno")))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert [one.body for one in read(site, "alpha")] == [WORDS.replace("one", "eno")]
    put(site, "alpha/more.py", documented(f"more {WORDS}"))
    assert len(read(site, "alpha")) == 2
    (site / "alpha" / "more.py").unlink()
    assert len(read(site, "alpha")) == 1


@pytest.mark.parametrize("damaged", [b"", b"no gzip", b"{}\n", "cut"])
def test_a_damaged_cache_is_made_anew(site: Path, cache: Path, damaged: bytes | str) -> None:
    put(site, "alpha/code.py", documented(WORDS))
    first = read(site, "alpha")
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-9] if isinstance(damaged, str) else damaged)
    assert read(site, "alpha") == first
    assert kept.read_bytes() == whole


def test_old_caches_are_deleted(site: Path, cache: Path) -> None:
    cache.mkdir()
    (cache / "imdb").mkdir()
    for i in range(6):
        path = cache / f"docstrings-{i}.jsonl.gz"
        path.touch()
        os.utime(path, (i, i))
    put(site, "alpha/code.py", documented(WORDS))
    read(site, "alpha")
    old = {path.name for path in cache.iterdir()}
    assert old >= {"imdb", *(f"docstrings-{i}.jsonl.gz" for i in (3, 4, 5))}
    assert len(old) == 5


def test_an_interruption_leaves_no_cache(site: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(site, "alpha/code.py", documented(WORDS))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ast.parse", stop)
        with pytest.raises(KeyboardInterrupt):
            read(site, "alpha")
    assert gc.isenabled()
    assert not cache.exists()
    assert len(read(site, "alpha")) == 1


def test_the_fingerprint_is_of_the_texts_wherever_they_are(site: Path, tmp_path: Path) -> None:
    for place in (site, tmp_path / "elsewhere"):
        put(place, "alpha/code.py", documented(*(f"{i} {WORDS}" for i in range(100))))
    one = docstrings(["alpha"], roots=[site])
    assert docstrings(["alpha"], roots=[tmp_path / "elsewhere"]) == one
    put(site, "alpha/more.py", documented(f"more {WORDS}"))
    assert docstrings(["alpha"], roots=[site]).fingerprint != one.fingerprint


def test_the_standard_library_and_what_recurra_needs_are_there() -> None:
    splits = docstrings(["stdlib", "numpy"], limit=100)
    labels = [label for part in (splits.train, splits.valid, splits.test) if part for label in part.labels or []]
    assert sorted(labels) == ["numpy"] * 100 + ["stdlib"] * 100
    known = installed_packages()
    assert {"stdlib", "torch", "scipy", "sklearn"} <= {*known}
    assert not {"json", "asyncio", "__pycache__"} & {*known}
