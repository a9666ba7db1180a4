"""What the models of all tasks have in common: settings, a seed, a training that can be resumed, a run folder."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from torch import nn

from recurra.cells import CELLS
from recurra.errors import DataError, NotFittedError, OptionError
from recurra.tasks import saved
from recurra.train import ranks
from recurra.train.randomness import seeded
from recurra.train.run_folder import FINISHED, NEW, TRAINING, RunFolder, machine, versions, write_json
from recurra.train.settings import FitSettings, plain
from recurra.train.untrusted import read_json

MOST_CONFUSED = 400  # classes whose confusion metrics.json holds; of more it would outgrow what is read again
NO_SETTING = ("progress", "random_state")  # the seed that came of random_state is kept instead


@dataclass(frozen=True)
class Job:
    """What a task gives to be fitted.

    Attributes:
        objective, train, valid, settings: see :func:`recurra.train.fit.fit`.
        begin: called once the network of a new run is made, with its weights drawn.
    """

    objective: Callable[[Any, Any], Any]
    train: Any
    valid: Any | None
    settings: FitSettings
    begin: Callable[[], None] = lambda: None


class Trained(BaseEstimator):  # type: ignore[misc]
    """A model of a task; each task is a dataclass of settings derived from this.

    Attributes:
        task: its name, in a run's config and on the command line.
        network_: what was fitted, with the weights of the best epoch. tokenizer_: texts to ids, with ``to_str()``.
        history_: the figures of each epoch. best_epoch_: the one that was kept, from 1.
        seed_: the seed that `random_state` came to. settings_: those of the fit. about_: what else a run's config says.
    """

    task: ClassVar[str]
    FREE: ClassVar[tuple[str, ...]] = ()  # settings that decide nothing about epochs that are done
    optimizer = "adamw"  # where a task has no setting of that name
    network_: Any
    tokenizer_: Any
    history_: list[dict[str, float]]
    best_epoch_: int
    seed_: int
    settings_: dict[str, Any]
    about_: dict[str, Any]

    # --- what a task adds ---------------------------------------------------------------------------------------------

    def _checked(self) -> FitSettings:
        """The settings of training; raises where a setting of the task is out of range."""
        raise NotImplementedError

    def _network(self) -> nn.Module:
        """A new network of what was learnt before it: vocabulary, classes."""
        raise NotImplementedError

    def _learnt(self) -> dict[str, Any]:
        """What the config of a run holds beside settings: such as classes."""
        return {}

    def _read_learnt(self, config: dict[str, Any], folder: RunFolder) -> None:
        """Take over what :meth:`_learnt` gave; raise RunFolderError where that is damaged."""

    def _read_tokenizer(self, folder: RunFolder) -> Any:
        """What ``tokenizer.json`` holds; raise RunFolderError where that is damaged."""
        raise NotImplementedError

    # --- the same for all ---------------------------------------------------------------------------------------------

    def save(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write a run folder that :meth:`load` reads.

        Raises:
            NotFittedError: before `fit`. RunFolderError: the folder holds something already.
        """
        self._require_fitted()
        if ranks.rank():
            return
        folder = RunFolder(path)
        folder.prepare(overwrite=overwrite)
        self._write(folder)

    @classmethod
    def load(cls, path: Path | str, *, cells: Iterable[Any] = ()) -> Self:
        """Read a run folder; nothing in it is executed.

        Args:
            path: the folder that `fit(run_dir=…)`, `save` or ``recurra train`` wrote.
            cells: your own cells, where the run uses one: they are found by their ``__name__``.

        Raises:
            RunFolderError: it is damaged, truncated, of a later format, or no such run.
            UnknownNameError: the run's cell is neither built in nor among `cells`.
        """
        return saved.load(cls, RunFolder(path), cells)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is something to use."""
        return hasattr(self, "best_epoch_")

    def settings(self) -> dict[str, Any]:
        """Everything that decides the weights, apart from the data, as JSON holds it."""
        found = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name not in NO_SETTING}
        found["cell"] = cell_name(self.cell)
        if not isinstance(found["hidden_size"], int):
            found["hidden_size"] = [plain(width) for width in found["hidden_size"]]
        return found

    def _require_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(f"this {type(self).__name__} is not fitted", instead="fit(…) first, or load a run")

    def _begin(self) -> FitSettings:
        """The settings of a fit that begins; if it fails, nothing looks fitted."""
        self.__dict__.pop("best_epoch_", None)
        settings, self.seed_ = self._checked(), ranks.by_first(self._seed)
        settings.require_accelerator()
        self.settings_ = self.settings()
        return settings

    def _about(self, fingerprint: str, sizes: Mapping[str, int], notes: Mapping[str, Any] | None) -> dict[str, Any]:
        """What a run's config says of its data and its making.

        Raises:
            DataError: the processes of torchrun were given different data.
        """
        if len({*ranks.gathered(fingerprint)}) > 1:
            raise DataError(
                "the processes of torchrun were given different data",
                received=f"process {ranks.rank()}: {', '.join(f'{n} {name}' for name, n in sizes.items())}",
                instead="the same texts in the same order in each; their batches are divided by fit",
            )
        return {
            "seed": self.seed_,
            "data": {"fingerprint": fingerprint, **sizes},
            "notes": dict(notes or {}),
            "versions": versions(),
            "machine": machine(),
        }

    def _train(
        self,
        run_dir: Path | str | None,
        *,
        resume: bool,
        overwrite: bool,
        learn: Callable[[], Any],
        job: Callable[[], Job],
        record: Callable[[RunFolder], Any],
    ) -> Self:
        """Fit in a run folder, or in one that is thrown away.

        Args:
            run_dir, resume, overwrite: see `fit` of the task.
            learn: gives the tokenizer of a new run. job: what to fit, once there is a tokenizer.
            record: writes figures and the report, once there is a network.
        """
        from recurra.train.fit import fit  # Lightning takes seconds to import, and prediction needs none of it

        if resume and run_dir is None:
            raise OptionError("resume=True needs the run folder that it goes on with", instead="fit(..., run_dir=...)")
        with nullcontext(run_dir) if run_dir is not None else tempfile.TemporaryDirectory() as place:
            folder = RunFolder(place)
            state = NEW
            if run_dir is not None:
                state = ranks.by_first(lambda: saved.begin(self, folder, resume=resume, overwrite=overwrite))
            writes = run_dir is not None and ranks.rank() == 0
            if state == FINISHED:
                self._adopt(type(self).load(folder.path, cells=[self.cell] if callable(self.cell) else ()))
                if writes and not folder.report.exists():
                    record(folder)
                return self
            resumed = state == TRAINING
            self.tokenizer_ = ranks.by_first(lambda: self._read_tokenizer(folder)) if resumed else learn()
            made = job()
            with seeded(self.seed_):
                self.network_ = self._network()
                saved.require_readable(self.tokenizer_.to_str(), self.network_)
                if state == NEW:
                    made.begin()
                if writes and state == NEW:  # now only: what cannot be trained discards no older run
                    folder.prepare(overwrite=overwrite or resume)
                    saved.write_config(self, folder)
                fitted = fit(
                    self.network_,
                    made.objective,
                    made.train,
                    made.valid,
                    made.settings,
                    checkpoints=folder.checkpoints,
                    resume=resumed,
                    progress=self.progress,
                )
            self.history_, self.best_epoch_ = fitted.history, fitted.best_epoch
            self.about_["seconds"] = round(sum(epoch["seconds"] for epoch in self.history_), 1)
            if writes:
                self._write(folder)
                record(folder)  # last: whatever may happen to a report, the weights are kept
        return self

    def _write(self, folder: RunFolder) -> None:
        folder.write_weights(self.network_.state_dict())
        write_json(folder.metrics, {"history": self.history_, "best_epoch": self.best_epoch_})
        saved.write_config(self, folder)  # last: it says that the run is finished

    def _write_figures(self, folder: RunFolder, split: str, figures: dict[str, Any]) -> None:
        if len(figures.get("confusion", ())) > MOST_CONFUSED:
            figures = {name: value for name, value in figures.items() if name != "confusion"}
        known = read_json(folder.metrics) if folder.metrics.exists() else {}
        write_json(folder.metrics, {**known, "history": self.history_, "best_epoch": self.best_epoch_, split: figures})

    def _seed(self) -> int:
        state = plain(self.random_state)
        if isinstance(state, int):  # True too is a number to scikit-learn
            state = int(state)
            if not 0 <= state < 2**63:
                raise OptionError("random_state must be at least 0 and below 2**63", received=repr(state))
            return state
        return int(check_random_state(state).randint(2**31 - 1))

    def _adopt(self, other: Self) -> Self:
        self.__dict__.update({name: value for name, value in vars(other).items() if name.endswith("_")})
        return self


def cell_name(cell: Any) -> str:
    """The name under which a cell stands in a run's config.

    Raises:
        OptionError: it has none.
    """
    if isinstance(cell, str):
        return cell
    name = getattr(cell, "__name__", None)
    if not isinstance(name, str):
        raise OptionError(
            "a cell needs a name to be kept in a run", received=repr(cell), instead="a class or a function"
        )
    named = {made: key for key, made in CELLS.items()}
    return named.get(cell, name)
