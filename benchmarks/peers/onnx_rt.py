"""onnxruntime: its own operators for LSTM, GRU and RNN, forward only."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Arrays = Mapping[str, Any]


def versions() -> dict[str, str]:
    """What figures depend on."""
    return {"onnxruntime": onnxruntime.__version__}


def _blocks(w: Any, order: tuple[int, ...]) -> Any:
    """Gate blocks in ONNX's order, with its axis of directions."""
    parts = np.split(w, len(order))
    return np.concatenate([parts[k] for k in order])[None]


def _gru_outer(a: Arrays) -> Any:
    return np.concatenate([np.zeros(2 * len(a["w.bias_hn"]), np.float32), a["w.bias_hn"]])


# cell -> the operator, its gates in terms of ours, its second bias, its attributes
OPERATORS: dict[str, tuple[str, tuple[int, ...], Callable[[Arrays], Any], dict[str, Any]]] = {
    "lstm": ("LSTM", (0, 3, 1, 2), lambda a: np.zeros_like(a["w.bias"]), {}),
    "gru": ("GRU", (1, 0, 2), _gru_outer, {"linear_before_reset": 1}),
    "rnn": ("RNN", (0,), lambda a: np.zeros_like(a["w.bias"]), {}),
}


def prepare(spec: Mapping[str, Any], arrays: Arrays) -> Any:
    """See ``benchmarks.peers.serve``."""
    one_by_one = spec["what"] == "frames"
    if not one_by_one and (spec["what"] != "scan" or spec["cell"] not in OPERATORS):
        return f"onnxruntime has no {spec['cell'] if spec['what'] == 'scan' else 'whole networks'}"
    if not one_by_one and (spec["train"] or "lengths" in arrays):
        return "forward only, and without lengths"
    name, order, outer, attributes = OPERATORS[spec["cell"]]
    weights = {
        "W": _blocks(arrays["w.weight_ih"], order),
        "R": _blocks(arrays["w.weight_hh"], order),
        "b": np.concatenate([_blocks(arrays["w.bias"], order), _blocks(outer(arrays), order)], 1),
    }
    B, D, H = (spec[letter] for letter in "BDH")
    T = 1 if one_by_one else spec["T"]
    # Of frames that come one by one the state is carried from call to call: an LSTM's two.
    before, after = (["", "h", "c"], ["h'", "c'"]) if one_by_one else ([], [])
    node = helper.make_node(name, ["x", *weights, *before], ["y", *after], hidden_size=H, **attributes)
    value = lambda k, *shape: helper.make_tensor_value_info(k, TensorProto.FLOAT, shape)
    graph = helper.make_graph(
        [node],
        "scan",
        [value("x", T, B, D), *(value(k, 1, B, H) for k in before[1:])],
        [value("y", T, 1, B, H), *(value(k, 1, B, H) for k in after)],
        [numpy_helper.from_array(np.ascontiguousarray(w), k) for k, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    options.add_session_config_entry("session.force_spinning_stop", "1")  # its threads must not spin into others' calls
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.ascontiguousarray(arrays["x"])
    if one_by_one:
        nought = np.zeros((1, B, H), np.float32)

        def frames() -> list[Any]:
            h, c, outputs = nought, nought, []
            for t in range(spec["T"]):
                y, h, c = session.run(["y", *after], {"x": x[t : t + 1], "h": h, "c": c})
                outputs.append(y[0, 0])
            return outputs

        return frames, lambda ys: {"y": np.stack(ys)}
    return lambda: session.run(["y"], {"x": x})[0], lambda y: {"y": y[:, 0]}
