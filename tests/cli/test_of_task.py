"""The tables of what evaluate, predict and diagnose do by a run's task."""

import importlib
import inspect

import pytest

from recurra.cli.diagnose import diagnose
from recurra.cli.evaluate import evaluate
from recurra.cli.of_task import DIAGNOSE, EVALUATE, PREDICT
from recurra.cli.predict import predict
from recurra.cli.train import TASKS
from recurra.tasks import LanguageModel, Summarizer, TextClassifier

TABLES = ((EVALUATE, evaluate), (PREDICT, predict), (DIAGNOSE, diagnose))
ROWS = [(command, row) for table, command in TABLES for row in table.values()]


@pytest.mark.parametrize(("command", "row"), ROWS, ids=[row for _, row in ROWS])
def test_each_function_takes_options_that_its_command_has(command, row):
    module, name = row.split(":")
    function = getattr(importlib.import_module(module), name)
    assert inspect.signature(function).parameters.keys() <= inspect.signature(command).parameters.keys()


def test_each_task_that_is_trained_is_evaluated_and_predicted_with():
    assert (
        {TextClassifier.task, LanguageModel.task, Summarizer.task}
        == EVALUATE.keys()
        == PREDICT.keys()
        == DIAGNOSE.keys()
    )
    assert {function.__name__ for function in TASKS} == EVALUATE.keys()
