"""Scores of class probabilities."""

import numpy as np
from sklearn.metrics import roc_auc_score


def score(probabilities, labels) -> dict[str, float]:
    """Accuracy, negative log-likelihood in nats, Brier score (sum over classes) and calibration error.

    Args:
      probabilities: (n, classes), rows that sum to 1.
      labels: (n,) integers.
    """
    rows = np.arange(len(labels))
    probabilities = np.asarray(probabilities, np.float64)
    one_hot = np.eye(probabilities.shape[-1])[labels]
    return {
        "test accuracy": float((probabilities.argmax(-1) == labels).mean()),
        "NLL": float(-np.log(np.maximum(probabilities[rows, labels], np.finfo(np.float32).tiny)).mean()),
        "Brier": float(((probabilities - one_hot) ** 2).sum(-1).mean()),
        "ECE": calibration(probabilities, labels)[0],
    }


def calibration(probabilities, labels, bins=15):
    """Expected calibration error over equal-width bins of the confidence (Guo et al. 2017).

    Returns:
      (error, mean confidence a bin, accuracy a bin), the last two without empty bins.
    """
    confidence = probabilities.max(-1)
    correct = probabilities.argmax(-1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins)
    filled = count > 0
    mean_confidence = np.bincount(index, confidence, bins)[filled] / count[filled]
    accuracy = np.bincount(index, correct, bins)[filled] / count[filled]
    error = float((count[filled] / len(labels) * np.abs(accuracy - mean_confidence)).sum())
    return error, mean_confidence, accuracy


def auroc(inside, outside) -> float:
    """Area under the ROC curve of an uncertainty that should be higher on the `outside` inputs."""
    return float(roc_auc_score(np.r_[np.zeros(len(inside)), np.ones(len(outside))], np.r_[inside, outside]))
