"""Every exception that Recurra raises. The docstring of a class is its page in the documentation."""

import difflib
from collections.abc import Iterable
from typing import Any

PAGE = "docs/errors.md"


class RecurraError(Exception):
    """Base class of all errors of Recurra.

    A message has up to four parts: what is wrong, what was received, what to do instead, and where to read more.

    Example:
        >>> print(RecurraError("hidden_size must be positive", received="0", instead="a positive integer"))
        hidden_size must be positive
          received: 0
          instead:  a positive integer
          see:      docs/errors.md#RecurraError
    """

    def __init__(self, what: str, *, received: str = "", instead: str = ""):
        parts = [what]
        if received:
            parts.append(f"  received: {received}")
        if instead:
            parts.append(f"  instead:  {instead}")
        parts.append(f"  see:      {PAGE}#{type(self).__name__}")
        super().__init__("\n".join(parts))

    def __reduce__(self) -> tuple[Any, ...]:
        """An error of a worker process reaches its parent as it was raised, not as its arguments made it."""
        return _as_raised, (type(self), self.args)


def _as_raised(kind: type[RecurraError], args: tuple[Any, ...]) -> RecurraError:
    return kind.__new__(kind, *args)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelt `name`, or the list of what is known.

    Example:
        >>> did_you_mean("lstn", ["lstm", "gru"])
        "'lstm'? (known: gru, lstm)"
        >>> did_you_mean("transformer", ["lstm", "gru"])
        'one of: gru, lstm'
    """
    names = sorted(known)
    folded = {n.casefold(): n for n in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"{folded[near[0]]!r}? (known: {', '.join(names)})" if near else f"one of: {', '.join(names) or '(none)'}"


class UnknownNameError(RecurraError, KeyError):
    """A name (of a cell, a corpus, a preset, an executor …) is not in its table; the nearest one is suggested."""

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        super().__init__(f"there is no {kind} of that name", received=repr(name), instead=did_you_mean(name, known))

    # KeyError prints the repr of its argument, which would escape the line breaks.
    __str__ = Exception.__str__


class OptionError(RecurraError, ValueError):
    """A setting has a value outside of what it allows: a negative size, or two that exclude each other."""


class NativeTargetError(RecurraError, ValueError):
    """``RECURRA_CPU_TARGET`` names a CPU target that is not compiled in, or that this processor cannot run."""


# --- cells and the engine ---------------------------------------------------------------------------------------------


class ShapeSpecError(RecurraError, ValueError):
    """A shape written in letters, such as ``"4H D"``, cannot be read, or uses a letter without a size."""


class CellDefinitionError(RecurraError, TypeError):
    """A cell lacks a part that it must declare: a state type, leaves of states annotated wrongly, a step that returns
    the wrong thing.
    """


class UnderivableStepError(RecurraError, RuntimeError):
    """A fast executor was asked for, and a cell's step uses something the engine cannot derive.

    The message names the operation and the line of source. The reference executor runs any step: under
    ``executor="auto"`` it is used instead, with one warning, and ``explain`` gives this same reason.
    The usual causes are an operation outside of the vocabulary, a branch on the value of a tensor, a tensor made
    inside the step (register it as a buffer), a random draw (pass the mask as a constant), or an in-place operation.
    """


class ExecutorError(RecurraError, RuntimeError):
    """An executor was asked for by name, and it cannot run this scan; the reason is part of the message."""


class InputShapeError(RecurraError, ValueError):
    """The input does not fit the cell: a missing axis, another width than ``input_size``, batch first where time is
    first.
    """


class InputTypeError(RecurraError, TypeError):
    """The input has another dtype or device than the cell's weights, or is no tensor at all."""


class NaNInputError(RecurraError, ValueError):
    """A valid frame of the input holds NaN, or, of a diagnosis, an infinity. Padding past ``lengths`` is never read and
    may hold anything.

    On the CPU this is checked in each call: by the native machine while it reads the frames, by one pass of a sum
    elsewhere. ``recurra.options(check_nan=False)`` leaves it out.
    """


class StateShapeError(RecurraError, ValueError):
    """An initial state does not fit the cell.

    Most often the batch axis was forgotten, or `h` and `c` were swapped: states are named tuples here, so build
    one with ``LSTMState(h=..., c=...)`` rather than by position.
    """


class LengthsError(RecurraError, ValueError):
    """``lengths`` must be ``(B,)``, of an integer dtype, with ``0 <= lengths <= T``. It need not be sorted."""


class ResetError(RecurraError, ValueError):
    """``reset`` must be ``(T, B)`` and of dtype bool (batch-first layers take ``(B, T)``)."""


# --- data -------------------------------------------------------------------------------------------------------------


class DataError(RecurraError, ValueError):
    """A file or a table cannot be used as it is; the message names the file, the line where there is one, and what to
    do.
    """


class MissingColumnError(DataError):
    """A table lacks a column that was asked for; those it has are listed, and the nearest one is suggested."""


class EmptyDataError(DataError):
    """A file, a table or a list of texts holds nothing."""


class EmptyTextError(DataError):
    """A row has no text (empty, white space only, or a missing value); the message gives its file and line, or its
    index.
    """


class UndecodableFileError(DataError):
    """A file is not valid UTF-8, or not valid CSV, JSON or Parquet; the message gives the file and the line. Or a text
    holds half a character, which no tokenizer takes.
    """


class SingleClassError(DataError):
    """A classifier needs at least two classes in its training data."""


class ChecksumError(DataError):
    """A downloaded or given file differs from the one that was published; nothing of it is used."""


class MissingDataError(DataError, FileNotFoundError):
    """Data asked for by name is neither cached, nor in ``--data-dir`` or ``$RECURRA_DATA``, nor could be downloaded."""

    __str__ = Exception.__str__


# --- training and run folders -----------------------------------------------------------------------------------------


class RunFolderError(RecurraError, ValueError):
    """A run folder is damaged, truncated, of a later format, or no run folder; nothing in it was executed."""


class NotFittedError(RecurraError, ValueError, AttributeError):
    """A task was asked to predict before it was fitted or loaded."""


class DivergedError(RecurraError, FloatingPointError):
    """The training loss became NaN or infinite; the last good checkpoint is kept. Or weights are, of a model that is
    diagnosed.
    """


class MissingDependencyError(RecurraError, ImportError):
    """A part of Recurra needs an optional dependency that is not installed; the message gives the command that
    installs it.
    """


class UnsavableStateError(RecurraError, TypeError):
    """A checkpoint was to hold a value that is neither a number, a string, a plain container nor a dense tensor."""
