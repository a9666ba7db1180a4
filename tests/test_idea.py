"""The picture shows what the engine does: it is drawn from it."""

import inspect
import re
import textwrap

import idea

from recurra.engine.derive import derive
from recurra.engine.plan import EXECUTORS
from recurra.steps.stages import Stage


def test_it_can_be_drawn_of_what_the_engine_derives_today():
    figure = idea.draw()  # fails where the engine derives another graph
    shown = {text.get_text() for ax in figure.axes for text in ax.texts}
    assert {*map(str.upper, (s.value for s in Stage)), "1 GEMM over T × B rows", *EXECUTORS} <= shown
    assert {executor.what for executor in EXECUTORS.values()} <= shown


def test_its_code_is_the_cells_own():
    source = inspect.getsource(idea.Leaky.step)
    plain = re.sub(r": (Tensor|LeakyState)\b| -> tuple\[.*?\](?=:)", "", source)
    assert textwrap.dedent(plain).splitlines() == [line for line, _ in idea.CODE]


def test_each_line_of_its_code_has_the_stage_of_its_last_value():
    staged = derive(idea.Leaky(4, 4)).forward.staged
    last = {"keep": "call sigmoid", "seen": "linear W", "new": "tanh", "h": "add", "return": "linear V"}
    stage = {name: staged.stage[i] for i, name in idea.names_of(staged).items()}
    assert [(line.split()[0], s) for line, s in idea.CODE[1:]] == [(k, stage[v]) for k, v in last.items()]


def test_the_committed_picture_is_whole():
    text = (idea.Path(idea.__file__).with_suffix(".svg")).read_text("utf-8")
    assert text.startswith("<?xml")
    assert text.rstrip().endswith("</svg>")
    assert "<text" not in text  # letters are outlines: no machine needs the font
