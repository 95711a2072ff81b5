"""The experiments as a user runs them: as commands."""

import csv
import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from experiments import _idx, _metrics, _report, mnist

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


def idx(array) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def test_idx_files_gzipped_or_not(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for name, content in (("plain", idx(array)), ("zipped.gz", gzip.compress(idx(array)))):
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(
            _idx.read_idx(_idx.find_idx(tmp_path, name.removesuffix(".gz")), (2, 3, 4)), array
        )
    assert _idx.find_idx(tmp_path, "absent") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with the bytes b''"),
        (b"\x1f\x8b\x08\x00", "starts with the bytes"),
        (b"\0\0\x0d\x01\0\0\0\2ab", "type 0x0d"),
        (b"\0\0\x08\x03\0\0\0\2", "within its header of 16"),
        (b"\0\0\x08\x01\0\0\0\3abc", r"shape \(3,\), but \(2,\) is needed"),
        (b"\0\0\x08\x01\0\0\0\2a", "holds 1 elements"),
        (b"\0\0\x08\x01\0\0\0\2abc", "holds 3 elements"),
    ],
)
def test_damaged_idx_files(tmp_path, content, message):
    (tmp_path / "it").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        _idx.read_idx(tmp_path / "it", (2,))
    (tmp_path / "it.gz").write_bytes(gzip.compress(content)[:-3])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        _idx.read_idx(tmp_path / "it.gz", (2,))


def test_mnist_says_which_files_it_misses(tmp_path):
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"")
    for result in (run("mnist", "--data-dir", str(tmp_path)), run("mnist", JDROP_DATA=str(tmp_path))):
        assert result.returncode == 1
        assert f"looked in {tmp_path}" in result.stderr
        for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"):
            assert f"{name}  (missing)" in result.stderr
        assert "t10k-labels-idx1-ubyte\n" in result.stderr
        assert "--data-dir or the environment variable JDROP_DATA" in result.stderr
    assert "no folder was named" in run("mnist").stderr


def test_the_pooling_of_mnist_is_flax_s():
    x = jax.random.normal(jax.random.key(0), (3, 8, 6, 5))

    def flax(x):
        return nn.max_pool(x, (2, 2), (2, 2))

    np.testing.assert_array_equal(mnist.max_pool(x), flax(x))
    np.testing.assert_array_equal(*(jax.grad(lambda x, f=f: (f(x) ** 2).sum())(x) for f in (mnist.max_pool, flax)))
