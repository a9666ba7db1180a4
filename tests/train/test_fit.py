"""Fitting: the best epoch is kept, a stopped run resumes bit for bit, and what goes wrong is said."""

import logging
import signal

import pytest
import torch
from toy import ROWS, batches, interrupted_after, objective, train

from recurra.errors import DivergedError, OptionError, RunFolderError, UnknownNameError
from recurra.train.checkpoint import load
from recurra.train.module import Step, learning_rate_factor
from recurra.train.settings import FitSettings

STEPS = ROWS // 16  # in an epoch


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def figures(fitted):
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in fitted.history]


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize("steps", [STEPS, 2 * STEPS + 3, 4 * STEPS])
def test_a_run_stopped_and_resumed_equals_the_unbroken_one(tmp_path, steps, held_out):
    whole, told = train(tmp_path / "whole", held_out=held_out)
    with pytest.raises(KeyboardInterrupt, match=f"the end of epoch {steps // STEPS} is saved"):
        train(tmp_path / "cut", held_out=held_out, objective=interrupted_after(steps, KeyboardInterrupt()))
    resumed, told_again = train(tmp_path / "cut", held_out=held_out, resume=True)
    assert_same_weights(whole.state_dict(), resumed.state_dict())
    assert figures(told) == figures(told_again)
    for name in ("last", "best"):
        a, b = (load(tmp_path / run / f"{name}.safetensors") for run in ("whole", "cut"))
        assert_same_weights(a["state_dict"], b["state_dict"])
        assert_same_weights(*(c["optimizer_states"][0]["state"][0] for c in (a, b)))
        assert torch.equal(*(next(iter(c["callbacks"].values()))["random"]["torch"] for c in (a, b)))


def test_an_interruption_in_the_first_epoch_leaves_nothing_to_resume(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="in epoch 1: no epoch had ended, so resuming begins anew"):
        train(tmp_path, objective=interrupted_after(2, KeyboardInterrupt()))
    with pytest.raises(RunFolderError, match="there is no checkpoint to resume from"):
        train(tmp_path, resume=True)


def test_an_interruption_leaves_the_signal_handler_in_place(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, objective=interrupted_after(2, KeyboardInterrupt()))
    assert signal.getsignal(signal.SIGINT) is before


def test_the_best_epoch_is_kept(tmp_path):
    network, fitted = train(tmp_path, max_epochs=8, learning_rate=0.5, schedule="constant", monitor="valid_loss")
    losses = [epoch["valid_loss"] for epoch in fitted.history]
    assert fitted.best_epoch == 1 + losses.index(min(losses))
    assert fitted.best_epoch < len(losses), "the case is of no use if the last epoch is the best"
    held_out = batches(48, 1)
    with torch.no_grad():
        steps = [objective(network.eval(), batch) for batch in held_out]
    again = sum(float(s.loss) * s.size for s in steps) / sum(s.size for s in steps)
    assert again == pytest.approx(min(losses), rel=1e-6)


def test_a_tie_in_accuracy_goes_to_the_lower_loss_and_is_progress_for_patience(tmp_path):
    # At this rate no text changes its class for several epochs, while the loss falls.
    _, fitted = train(tmp_path, max_epochs=5, patience=1, learning_rate=1e-6, schedule="constant", warmup=0.0)
    assert len({epoch["valid_accuracy"] for epoch in fitted.history}) == 1
    losses = [epoch["valid_loss"] for epoch in fitted.history]
    assert losses == sorted(losses, reverse=True)
    assert fitted.best_epoch == len(losses) == 5


def test_training_stops_when_patience_is_over_and_stays_stopped_when_resumed(tmp_path):
    chosen = {"max_epochs": 40, "patience": 2, "learning_rate": 0.5, "schedule": "constant", "monitor": "valid_loss"}
    network, fitted = train(tmp_path, **chosen)
    assert len(fitted.history) == fitted.best_epoch + 2 < 40
    again, told_again = train(tmp_path, resume=True, **chosen)
    assert figures(fitted) == figures(told_again)
    assert_same_weights(network.state_dict(), again.state_dict())


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(tmp_path):
    a, b, c = (train(tmp_path / str(i), seed=seed)[0].state_dict() for i, seed in enumerate((3, 3, 4)))
    assert_same_weights(a, b)
    assert not torch.equal(a["0.weight"], c["0.weight"])


def test_gradients_are_clipped(tmp_path):
    # Adam divides by the gradient's own size, but adds 1e-8 to it: gradients of 1e-12 move nothing.
    moved = {}
    for clip in (None, 1e-12):
        before = train(tmp_path / f"{clip}0", max_epochs=1, learning_rate=1e-30)[0].state_dict()
        after = train(tmp_path / f"{clip}1", max_epochs=1, clip=clip)[0].state_dict()
        moved[clip] = max(float((after[k] - before[k]).abs().max()) for k in after)
    assert moved[None] > 1e-2
    assert moved[1e-12] < 1e-5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_divergence_says_where_and_what_to_do(tmp_path, bad):
    def exploding(network, batch):
        step = objective(network, batch)
        return step._replace(loss=step.loss * bad)

    with pytest.raises(
        DivergedError, match=r"became (nan|inf) in epoch 1, batch 1\n.*learning_rate=0.01(.|\n)*clip=1.0"
    ):
        train(tmp_path, objective=exploding)


def test_weights_that_become_infinite_in_the_last_step_are_no_result(tmp_path):
    steps = iter(range(STEPS))

    def last(network, batch):
        step = objective(network, batch)
        return step._replace(loss=step.loss * 1e38) if next(steps) == STEPS - 1 else step

    with pytest.raises(DivergedError, match="became NaN or infinite in epoch 1, the last batch"):
        train(tmp_path, objective=last, held_out=False, max_epochs=1, clip=None)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("monitor", ["valid_loss", "valid_accuracy"])
def test_an_epoch_whose_held_out_loss_is_nan_is_not_the_best(tmp_path, monitor):
    passes = iter(range(3 * 10))

    def first(network, batch):
        step = objective(network, batch)
        unseen = not network.training and next(passes) < 48 // 16
        nan = torch.tensor(torch.nan)
        return Step(nan, step.size, {"accuracy": nan}) if unseen else step

    _, fitted = train(tmp_path, objective=first, max_epochs=3, monitor=monitor)
    assert fitted.history[0]["valid_loss"] != fitted.history[0]["valid_loss"]
    assert fitted.best_epoch > 1


def test_resuming_another_network_is_refused(tmp_path):
    train(tmp_path)
    state = load(tmp_path / "last.safetensors")
    state["state_dict"]["network.0.weight"] = torch.zeros(7, 5)
    from recurra.train.checkpoint import save

    save(state, tmp_path / "last.safetensors")
    with pytest.raises(
        RunFolderError, match=r"of another network\n.*'network.0.weight': \(7, 5\) of torch.float32\n.*\(20, 5\)"
    ):
        train(tmp_path, resume=True, max_epochs=9)


def test_a_best_checkpoint_of_another_moment_is_refused(tmp_path):
    train(tmp_path / "a", max_epochs=1)
    train(tmp_path / "b", max_epochs=3, monitor="valid_loss")
    (tmp_path / "a/best.safetensors").replace(tmp_path / "b/best.safetensors")
    with pytest.raises(RunFolderError, match="is of epoch 1, but the best one was 3"):
        train(tmp_path / "b", max_epochs=3, monitor="valid_loss", resume=True)


def test_nothing_is_printed_or_logged(tmp_path, capfd, caplog):
    with caplog.at_level(logging.DEBUG):
        train(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert [r for r in caplog.records if r.levelno >= logging.INFO and r.name.startswith("lightning")] == []


def test_settings_are_checked():
    with pytest.raises(OptionError, match=r"learning_rate must be a number above 0\n.*-1"):
        FitSettings(learning_rate=-1)
    with pytest.raises(OptionError, match=r"max_epochs must be an integer of at least 1\n.*2.5"):
        FitSettings(max_epochs=2.5)
    with pytest.raises(OptionError, match="warmup must be a number at least 0 and below 1"):
        FitSettings(warmup=1.0)
    with pytest.raises(UnknownNameError, match=r"schedule(.|\n)*'cosine'?"):
        FitSettings(schedule="cosin")
    with pytest.raises(OptionError, match=r'backward_memory must be "all", "sqrt" or a number of bytes\n.*\'some\''):
        FitSettings(backward_memory="some")


def test_schedules_end_where_they_should():
    for name, end in {"constant": 1.0, "linear": 0.0, "cosine": 0.0}.items():
        settings = FitSettings(schedule=name, warmup=0.2)
        factors = [learning_rate_factor(settings, step, 50) for step in range(51)]
        assert factors[:11] == pytest.approx([*((i + 1) / 10 for i in range(10)), 1.0])
        assert factors[50] == pytest.approx(end, abs=1e-12)
        assert factors[10:] == sorted(factors[10:], reverse=True)
