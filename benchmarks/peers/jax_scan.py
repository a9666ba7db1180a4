"""What one writes by hand in JAX: the step of a cell, and lax.scan over it, compiled."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.nn import sigmoid

Weights = Mapping[str, Any]
Step = Callable[[Weights, Any, Any], tuple[Any, Any]]  # (weights, state, x) -> (state, y)


def versions() -> dict[str, str]:
    """What figures depend on."""
    return {"jax": jax.__version__}


def _rnn(w: Weights, h: Any, x: Any) -> tuple[Any, Any]:
    h = jnp.tanh(x @ w["weight_ih"].T + h @ w["weight_hh"].T + w["bias"])
    return h, h


def _lstm(w: Weights, state: Any, x: Any) -> tuple[Any, Any]:
    h, c = state
    i, f, g, o = jnp.split(x @ w["weight_ih"].T + h @ w["weight_hh"].T + w["bias"], 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    h = sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def _gru(w: Weights, h: Any, x: Any) -> tuple[Any, Any]:
    x_r, x_z, x_n = jnp.split(x @ w["weight_ih"].T + w["bias"], 3, -1)
    h_r, h_z, h_n = jnp.split(h @ w["weight_hh"].T, 3, -1)
    n = jnp.tanh(x_n + sigmoid(x_r + h_r) * (h_n + w["bias_hn"]))
    z = sigmoid(x_z + h_z)
    h = (1 - z) * n + z * h
    return h, h


def _normalised(v: Any, gain: Any, bias: Any) -> Any:
    centred = v - v.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * gain + bias


def _layer_norm_lstm(w: Weights, state: Any, x: Any) -> tuple[Any, Any]:
    h, c = state
    from_x = _normalised(x @ w["weight_ih"].T, w["gain_x"], w["bias"])
    i, f, g, o = jnp.split(from_x + _normalised(h @ w["weight_hh"].T, w["gain_h"], 0.0), 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    h = sigmoid(o) * jnp.tanh(_normalised(c, w["gain_c"], w["bias_c"]))
    return (h, c), h


def _bounded_integrator(w: Weights, state: Any, x: Any) -> tuple[Any, Any]:
    h, c = state
    f, u, o = jnp.split(x @ w["weight_ih"].T + h @ w["weight_hh"].T + w["bias"], 3, -1)
    f = sigmoid(f)
    c = f * c + (1 - f) * jnp.tanh(u) * (1 - 0.5 * jnp.abs(c))
    h = sigmoid(o + w["peephole"] * c) * c / jnp.sqrt(1 + c * c)
    return (h, c), h


# cell -> its step, and how many vectors its state has
STEPS: dict[str, tuple[Step, int]] = {
    "rnn": (_rnn, 1),
    "lstm": (_lstm, 2),
    "gru": (_gru, 1),
    "layer_norm_lstm": (_layer_norm_lstm, 2),
    "bounded_integrator": (_bounded_integrator, 2),
}


def prepare(spec: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    """See ``benchmarks.peers.serve``."""
    if spec["what"] != "scan" or spec["cell"] not in STEPS:
        return f"no step is written in JAX for {spec['cell'] if spec['what'] == 'scan' else 'whole networks'}"
    if "lengths" in arrays:
        return "measured without lengths only"
    step, vectors = STEPS[spec["cell"]]
    weights = {name.removeprefix("w."): jnp.asarray(a) for name, a in arrays.items() if name.startswith("w.")}
    zero = jnp.zeros((spec["B"], spec["H"]), jnp.float32)
    first = zero if vectors == 1 else (zero,) * vectors
    x, dy = jnp.asarray(arrays["x"]), jnp.asarray(arrays["dy"])

    def forward(weights: Weights, x: Any) -> Any:
        return jax.lax.scan(lambda state, frame: step(weights, state, frame), first, x)[1]

    def both(weights: Weights, x: Any, dy: Any) -> Any:
        y, back = jax.vjp(forward, weights, x)
        return y, back(dy)

    if not spec["train"]:
        infer = jax.jit(forward)
        return lambda: jax.block_until_ready(infer(weights, x)), lambda y: {"y": np.array(y)}
    train = jax.jit(both)
    return (
        lambda: jax.block_until_ready(train(weights, x, dy)),
        lambda done: {"y": np.array(done[0]), "dx": np.array(done[1][1])},
    )
