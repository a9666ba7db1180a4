"""What is kept for the backward pass is a setting of a task, and changes no gradient."""

import torch
from some_texts import SMALL

from recurra.engine.options import current_options
from recurra.tasks import TextClassifier


def test_gradients_are_the_same_whatever_is_kept_for_the_backward_pass(monkeypatch):
    seen, flat = set(), []
    run = torch.nn.Module.__call__

    def noting(module, *args, **kwargs):
        if module.training:
            seen.add(current_options().save)
        return run(module, *args, **kwargs)

    texts = [" ".join(["fine" if k % 2 else "dull"] * 600) for k in range(16)]
    for kept in ("all", "sqrt", 100_000):
        settings = {**SMALL, "max_tokens": 600, "max_epochs": 2, "validation_fraction": 0, "backward_memory": kept}
        model = TextClassifier(**settings)
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.Module, "__call__", noting)
            model.fit(texts, ["good", "bad"] * 8)
        flat.append(torch.cat([p.detach().flatten() for p in model.network_.parameters()]))
    assert {"all", "sqrt", 100_000} <= seen
    for other in flat[1:]:
        torch.testing.assert_close(other, flat[0], rtol=1e-4, atol=1e-5)
