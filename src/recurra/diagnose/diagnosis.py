"""Everything at once: flow, Jacobians, gates, and the letter that is made of them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recurra.diagnose.flow import flow_of, verdicts
from recurra.diagnose.gates import gates_of
from recurra.diagnose.jacobians import jacobians_of
from recurra.diagnose.letter import Advice, LayerDiagnosis, letter
from recurra.diagnose.runs import runs_of
from recurra.train.files import require_place, write_atomically
from recurra.train.settings import require_seed
from recurra.train.strict_json import strict_json

KINDS = "a diagnosis", (".html", ".json")  # that are written


@dataclass(frozen=True)
class Diagnosis:
    """What was measured of a model, and the letter.

    Attributes:
        layers: one a layer and direction.
        advice: what is wrong and what to change; empty where nothing is.
    """

    layers: list[LayerDiagnosis]
    advice: list[Advice]

    def __str__(self) -> str:
        lines = list(verdicts([layer.flow for layer in self.layers]))
        lines += ["", *map(str, self.advice)] if self.advice else ["", "Nothing is wrong that can be seen from here."]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Its numbers, as JSON holds them."""
        layers = [
            {"flow": v.flow.as_json(), "jacobians": v.jacobians.as_json(), "gates": v.gates.as_json()}
            for v in self.layers
        ]
        return {"layers": layers, "advice": [asdict(advice) for advice in self.advice]}

    def save(self, path: Path | str) -> None:
        """Write it as ``.html``, one page with pictures that needs no other file, or as ``.json``.

        Raises:
            OptionError: the name ends otherwise, or its folder is not there.
        """
        from recurra.diagnose.page import page_of

        kinds = {".html": lambda: page_of(self), ".json": lambda: strict_json(self.as_json()) + "\n"}
        path = Path(path)
        require_place(path, *KINDS)
        write_atomically(path, kinds[path.suffix.lower()]())


def diagnose(model: Any, *inputs: Any, anchors: int | None = 16, seed: int = 0, **keywords: Any) -> Diagnosis:
    """Look at a model's memory on some data: gradients through time, Jacobians, gates, states; and say what to change.

    Args:
        model: a cell, or any module that holds recurrent layers, torch.nn's RNN, LSTM and GRU too.
        inputs, keywords: what it is called with; a batch of some dozens of sequences is enough.
        anchors: frames of each sequence that gradients start from; None: all.
        seed: of everything random, at least 0.

    Raises:
        OptionError: it holds no recurrent layer, or `anchors` or `seed` is out of range. DataError: no frame is valid.

    Example:
        >>> import torch, recurra
        >>> _ = torch.manual_seed(0)
        >>> found = diagnose(torch.nn.RNN(3, 16), 0.1 * torch.randn(60, 4, 3))
        >>> found.layers[0].flow.verdict, found.advice[0].symptom
        ('vanishing', 'gradients vanish')
    """
    require_seed(seed)
    layers = [
        LayerDiagnosis(
            bool(run.cell.memory),
            flow_of(run, anchors=anchors, seed=seed),
            jacobians_of(run, seed=seed),
            gates_of(run, seed=seed),
        )
        for run in runs_of(model, *inputs, **keywords)
    ]
    return Diagnosis(layers, letter(layers))
