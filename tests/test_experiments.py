"""The experiments as a user runs them: as commands."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from experiments import _metrics, _report

ROOT = Path(__file__).parent.parent


def run(*arguments, **variables):
    """Run a command with a user's own settings of JAX: none."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "JDROP_"))}
    command = [sys.executable, "-W", "error", "-m", "experiments", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment | variables)


def test_help_lists_the_experiments():
    result = run("--help")
    assert result.returncode == 0
    for name in ("digits", "mnist"):
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize("name", ["nope", "_report", "digit", "__main__"])
def test_an_unknown_name_exits_with_2_and_the_list(name):
    result = run(name)
    assert result.returncode == 2
    assert f"no experiment {name!r}" in result.stderr
    assert "\n  digits " in result.stderr


def test_digits(tmp_path):
    result = run("digits", "--quick", "--seed", "3", "--out", str(tmp_path))
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader((tmp_path / "digits.csv").read_text().splitlines()))
    assert [row["method"] for row in rows] == ["no dropout", "dropout, deterministic", "dropout, Monte Carlo"]
    for row in rows:
        assert 0 < float(row["test accuracy"]) <= 1
        assert float(row["NLL standard error"]) > 0
        assert f"{float(row['NLL']):.4f} ± {float(row['NLL standard error']):.4f}" in result.stdout
    assert (tmp_path / "digits.md").read_text().rstrip() in result.stdout
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


def test_scores_are_scikit_learn_s():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(4), 300)
    labels = generator.integers(0, 4, 300)
    scores = _metrics.score(probabilities, labels)
    assert scores["NLL"] == pytest.approx(log_loss(labels, probabilities))
    one_hot = np.eye(4)[labels]
    assert scores["Brier"] == pytest.approx(sum(brier_score_loss(one_hot[:, c], probabilities[:, c]) for c in range(4)))
    assert scores["test accuracy"] == np.mean(probabilities.argmax(1) == labels)


def test_the_calibration_error_by_its_definition():
    generator = np.random.default_rng(1)
    probabilities = generator.dirichlet(np.ones(3), 500)
    labels = generator.integers(0, 3, 500)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    error = 0.0
    for low in np.arange(15) / 15:
        chosen = (confidence >= low) & (confidence < low + 1 / 15)
        if chosen.any():
            error += chosen.mean() * abs(correct[chosen].mean() - confidence[chosen].mean())
    assert _metrics.calibration(probabilities, labels)[0] == pytest.approx(error)


def test_estimates_and_tables(tmp_path):
    value = _report.estimate([1.0, 2.0, 4.0])
    assert value.mean == pytest.approx(7 / 3)
    assert value.error == pytest.approx(np.std([1, 2, 4], ddof=1) / np.sqrt(3))
    text = _report.save_table([{"a": "x", "b": value}], tmp_path, "t")
    assert text.splitlines()[2] == "| x | 2.3333 ± 0.8819 |"
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == "a,b,b standard error"
