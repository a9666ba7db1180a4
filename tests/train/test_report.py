"""The report is one page that needs nothing else, whatever the texts hold."""

import re
from html.parser import HTMLParser

import numpy as np

from recurra.train.pictures import VARIABLES, accuracy_by_length, confusion, curves
from recurra.train.report import Section, flat, page, preformatted, table

HISTORY = [
    {"epoch": e, "loss": 1 / e, "accuracy": 1 - 0.5 / e, "valid_loss": 1.1 / e, "valid_accuracy": 0.9 - 0.5 / e}
    for e in range(1, 6)
]
NASTY = """</pre></td><script>alert("1")</script>&amp; "quoted" 'text' \ud800"""


class Elements(HTMLParser):
    """All elements with their attributes, and whether every element that was opened was closed."""

    VOID = ("meta", "br")

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def whole():
    counts = [[5, 1], [2, 9]]
    return page(
        NASTY,
        NASTY,
        {NASTY: NASTY},
        [
            Section("Curves", curves(HISTORY, 3), NASTY),
            Section("Confusion", confusion(counts, [NASTY, "b"])),
            Section("Lengths", accuracy_by_length([*range(40)], [i % 3 > 0 for i in range(40)])),
            Section(NASTY, table(["a", "b", NASTY], [(NASTY, 3, 0.5), ("x" * 40, 1234567, 0.25)])),
            Section("Plan", preformatted(NASTY)),
        ],
    )


def test_texts_are_escaped_and_nothing_is_fetched():
    text = whole()
    elements = Elements(text).found
    names = {tag for tag, _ in elements}
    assert not names & {"script", "link", "img", "iframe", "object", "image", "a", "foreignobject"}
    for _, attributes in elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "data"):
            assert attributes.get(name, "#").startswith("#")
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\((?!#)", text)
    assert text.encode("utf-8")


def test_the_ids_of_several_pictures_are_apart():
    ids = [attributes["id"] for _, attributes in Elements(whole()).found if "id" in attributes]
    assert len(ids) == len(set(ids))
    text = whole()
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert used
    assert used <= set(ids)


def test_pictures_take_their_colours_from_the_page():
    for picture in (curves(HISTORY, 3), confusion([[3, 1], [0, 2]], ["a", "b"])):
        assert "var(--ink)" in picture
        assert "var(--second)" in picture
        assert not any(colour in picture for colour in VARIABLES)


def test_pictures_show_what_there_is():
    text = curves(HISTORY, 3)
    assert {"loss", "accuracy", "training", "held out", "kept epoch"} <= set(re.findall(r">([^<>]+)</text>", text))
    text = curves([{"epoch": 1, "loss": 0.5}], 1)
    assert "accuracy" not in text
    assert "held out" not in text
    counts = re.findall(r">([\d,]+)</text>", confusion([[1234, 7], [8, 9]], ["a", "b"]))
    assert {"1,234", "7", "8", "9"} <= set(counts)


def test_pictures_are_the_same_each_time():
    assert curves(HISTORY, 3) == curves(HISTORY, 3)


def test_pictures_of_little_and_of_much():
    assert accuracy_by_length([4], [True]).startswith("<svg")
    assert accuracy_by_length([7] * 20, [False] * 20).startswith("<svg")
    names = [f"class {i}" for i in range(60)]
    assert confusion([[int(i == j) for j in range(60)] for i in range(60)], names).startswith("<svg")


def test_names_are_drawn_as_they_are_and_the_most_confused_of_many():
    assert "$x_$" in confusion([[3, 1], [0, 2]], ["$x_$", "日本"])  # no formula, no warning
    counts = np.eye(300, dtype=int)
    counts[7, 250] = 5
    names = [f"class {i}" for i in range(300)]
    text = confusion(counts.tolist(), names)
    assert {"class 7", "class 250"} <= set(re.findall(r">([^<>]+)</text>", text))
    assert len(text) < 1_000_000


def test_settings_are_flat_rows():
    assert flat({"a": {"b": 1, "c": {"d": None}}, "e": [1]}) == [("a.b", "1"), ("a.c.d", "None"), ("e", "[1]")]
