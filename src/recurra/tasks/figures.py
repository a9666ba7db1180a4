"""How well a classifier did, as figures."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def classification_figures(targets: Array, probabilities: Array, classes: Array) -> dict[str, Any]:
    """Accuracy and more.

    Args:
        targets: (N,) indices among `classes`.
        probabilities: (N, classes).
        classes: their names.

    Returns:
        What ``recurra evaluate --json`` prints: ``accuracy``, ``macro_f1``, ``log_loss``, ``count``; ``classes``, with
        ``label``, ``precision``, ``recall``, ``f1``, ``count`` of each; and ``confusion``, where rows are true classes.
        ``macro_f1`` is over the classes that occur.
    """
    from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

    every = np.arange(len(classes))
    predicted = probabilities.argmax(1)
    precision, recall, f1, count = precision_recall_fscore_support(
        targets, predicted, labels=every, average=None, zero_division=0.0
    )
    return {
        "accuracy": float(accuracy_score(targets, predicted)),
        "macro_f1": float(np.mean(f1[count > 0])),
        "log_loss": float(log_loss(targets, probabilities, labels=every)),
        "count": len(targets),
        "classes": [
            {
                "label": classes[i].item(),
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "count": int(count[i]),
            }
            for i in every
        ],
        "confusion": confusion_matrix(targets, predicted, labels=every).tolist(),
    }
