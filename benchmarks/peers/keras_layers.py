"""Keras' layers, on the backend that KERAS_BACKEND names: one compiled function a case."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

Arrays = Mapping[str, Any]
BACKEND = keras.backend.backend()


def versions() -> dict[str, str]:
    """What figures depend on."""
    return {"keras": keras.__version__, BACKEND: __import__(BACKEND).__version__}


def prepare(spec: Mapping[str, Any], arrays: Arrays) -> Any:
    """See ``benchmarks.peers.serve``."""
    return PREPARE[spec["what"]](spec, arrays)


# --- one layer --------------------------------------------------------------------------------------------------------


def _gru_weights(a: Arrays) -> list[Any]:
    """Blocks r z n become z r h, and Keras has both biases where the reset stands behind the product."""
    turn = lambda w: np.concatenate([w[len(w) // 3 : 2 * len(w) // 3], w[: len(w) // 3], w[2 * len(w) // 3 :]])
    H = len(a["w.bias_hn"])
    outer = np.concatenate([np.zeros(2 * H, a["w.bias_hn"].dtype), a["w.bias_hn"]])
    return [turn(a["w.weight_ih"]).T, turn(a["w.weight_hh"]).T, np.stack([turn(a["w.bias"]), outer])]


def _plain_weights(a: Arrays) -> list[Any]:
    return [a["w.weight_ih"].T, a["w.weight_hh"].T, a["w.bias"]]


# cell -> the layer, and its weights from ours
LAYERS: dict[str, tuple[type[Any], Callable[[Arrays], list[Any]]]] = {
    "lstm": (keras.layers.LSTM, _plain_weights),
    "gru": (keras.layers.GRU, _gru_weights),
    "rnn": (keras.layers.SimpleRNN, _plain_weights),
}


def _scan(spec: Mapping[str, Any], arrays: Arrays) -> Any:
    if spec["cell"] not in LAYERS:
        return f"Keras has no {spec['cell']}"
    if "lengths" in arrays:
        return "measured without lengths only"
    kind, weights = LAYERS[spec["cell"]]
    layer = kind(spec["H"], return_sequences=True)
    layer.build((spec["B"], spec["T"], spec["D"]))
    layer.set_weights(weights(arrays))
    x, dy = (np.ascontiguousarray(arrays[name].swapaxes(0, 1)) for name in ("x", "dy"))
    return SCANS[BACKEND](layer, x, dy, spec["train"])


def _on_jax(layer: Any, x: Any, dy: Any, train: bool) -> Any:
    import jax

    x, dy = jax.numpy.asarray(x), jax.numpy.asarray(dy)
    values = [v.value for v in layer.trainable_variables]
    fixed = [v.value for v in layer.non_trainable_variables]
    forward = lambda values, x: layer.stateless_call(values, fixed, x)[0]

    def step(values: Any, x: Any, dy: Any) -> Any:
        y, back = jax.vjp(forward, values, x)
        return y, back(dy)

    compiled = jax.jit(step if train else forward)
    given = (values, x, dy) if train else (values, x)

    def export(done: Any) -> dict[str, Any]:
        return _named(done[0], done[1][1]) if train else _named(done)

    return lambda: jax.block_until_ready(compiled(*given)), export


def _on_tensorflow(layer: Any, x: Any, dy: Any, train: bool) -> Any:
    import tensorflow as tf

    x, dy = tf.constant(x), tf.constant(dy)

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return y, tape.gradient(y, [x, *(v.value for v in layer.trainable_variables)], output_gradients=dy)

    @tf.function
    def forward() -> Any:
        return layer(x)

    # Eager tensors of a CPU are computed when the call returns.
    return (step, lambda done: _named(done[0], done[1][0])) if train else (forward, _named)


def _named(y: Any, dx: Any = None) -> dict[str, Any]:
    """Time first, as the others give it."""
    found = {"y": y} if dx is None else {"y": y, "dx": dx}
    return {name: np.asarray(value).swapaxes(0, 1) for name, value in found.items()}


SCANS = {"jax": _on_jax, "tensorflow": _on_tensorflow}

# --- the article's network --------------------------------------------------------------------------------------------


def _article(spec: Mapping[str, Any], arrays: Arrays) -> Any:
    if "lengths" in arrays:
        return "measured without lengths only"
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Embedding(spec["words"], spec["D"]),
            layers.LSTM(spec["H"], return_sequences=True),
            layers.LSTM(spec["H"]),
            layers.Dense(spec["classes"]),
        ]
    )
    model.build((spec["B"], spec["T"]))
    of = lambda name: arrays[f"w.{name}"]
    lstm = lambda n: [
        of(f"lstm.weight_ih_l{n}").T,
        of(f"lstm.weight_hh_l{n}").T,
        of(f"lstm.bias_ih_l{n}") + of(f"lstm.bias_hh_l{n}"),
    ]
    model.set_weights([of("embedding.weight"), *lstm(0), *lstm(1), of("out.weight").T, of("out.bias")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-8), loss)  # torch's epsilon
    ids, labels = np.ascontiguousarray(arrays["ids"].T), arrays["labels"]

    def call() -> Any:
        model.reset_metrics()  # what is returned is a running mean
        return model.train_on_batch(ids, labels)

    return call, lambda value: {"loss": np.reshape(np.asarray(value, np.float32), 1)}


PREPARE = {"scan": _scan, "article": _article}
