"""The experiments that stand beside published tables: their parts against NumPy, and all of them as a command."""

import csv
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from commands import run
from scipy.special import logsumexp

import jdrop
from experiments import MissingFiles
from experiments.active.main import labels_to, patches
from experiments.all import main as all_of_them
from experiments.co2.main import gaussian_process
from experiments.common import images, networks, provenance
from experiments.common.tables import Estimate
from experiments.uci import search as uci
from experiments.uci.main import load, verdict

KEY = jax.random.key(3)


def test_a_table_s_command_names_no_folder():
    given = ["uci", "--data-dir", "/home/me/sets", "--only", "yacht", "--out=/tmp/x"]
    assert provenance.command(given) == "uci --data-dir FOLDER --only yacht --out=FOLDER"


@pytest.mark.slow
def test_the_gaussian_process_sees_the_seasons():
    """And forgets them beyond: two of the noise's standard deviations among the data, those of the prior far away."""
    x = np.linspace(-1.7, 1.7, 150)[:, None]
    truth = np.sin(2 * np.pi * x / 0.11)  # four or five points a season
    y = truth + 0.1 * np.random.default_rng(0).standard_normal(x.shape)
    mean, std = gaussian_process(x, y, np.concatenate([x, [[3.0]]]))
    assert np.sqrt(np.mean((mean[:-1] - truth[:, 0]) ** 2)) < 0.1 < np.std(truth)
    assert std[:-1].max() < 0.2
    assert 0.5 < std[-1] < 2


def forward(params, x):
    """Outputs of shape (n,) by NumPy in float64, of inputs of shape (n, features)."""
    first, last = (np.asarray(params[name], np.float64) for name in ("first", "last"))
    return np.maximum(x @ first[:, :-1].T + first[:, -1], 0) @ last[0] + float(params["bias"][0])


@pytest.mark.slow
def test_uci_predictions_are_mixtures_over_passes():
    splits, count, features, hidden, passes = 2, 7, 3, 5, 6
    rates, taus = np.float32([0.1, 0.5]), np.float32([0.25, 2.0])
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (splits, count, features)), rng.normal(-1, 4, (splits, count))
    keys = jax.random.split(KEY, splits)
    params = jax.vmap(lambda i: uci.init(jax.random.fold_in(KEY, i), features, hidden))(jnp.arange(8))
    params = jax.tree.map(lambda leaf: leaf.reshape(splits, 2, 2, *leaf.shape[1:]), params)
    params["first"] = params["first"].at[..., -1].set(0.3)
    (_, inputs), (_, targets) = uci.standardised(x), uci.standardised(y)
    tiled = jnp.tile(rates, (splits, 1)), jnp.tile(taus, (splits, 1))
    found = uci.predict(uci.Networks(params, inputs, targets), keys, x, y, *tiled, passes)

    for split in range(splits):
        standard = (x[split] - x[split].mean(0)) / x[split].std(0)
        for i, rate in enumerate(rates):
            for j, tau in enumerate(taus):
                network = jax.tree.map(lambda leaf, at=(split, i, j): leaf[at], params)
                outputs = []
                for number in range(passes):
                    key = jdrop.fold_in(jdrop.fold_in(keys[split], "passes"), number)
                    first = jdrop.dropout(jdrop.fold_in(key, "inputs"), jnp.ones(features), rate)
                    last = jdrop.dropout(jdrop.fold_in(key, "hidden"), jnp.ones(hidden), rate)
                    thinned = network | {"last": network["last"] * last}
                    outputs.append(forward(thinned, standard * np.asarray(first)) * y[split].std() + y[split].mean())
                f = np.stack(outputs)
                score = logsumexp(-0.5 * tau * (f - y[split]) ** 2, 0) - np.log(passes)
                score += 0.5 * np.log(tau) - 0.5 * np.log(2 * np.pi)
                expected = {"mean": f.mean(0), "std": f.std(0), "log-likelihood": score}
                for name, values in expected.items():
                    np.testing.assert_allclose(found[name][split, :, i, j], values, rtol=1e-4, atol=1e-4)


def test_a_column_of_one_value_is_standardised_to_zero():
    """In the arithmetic of the test data too, whose values are those of the training data."""
    columns = np.stack([np.full(10741, 0.998), np.arange(10741)], 1)[None]
    values, (mean, std) = uci.standardised(columns)
    np.testing.assert_allclose(values[0, :, 0], 0, atol=1e-6)
    np.testing.assert_allclose(values[0, :, 1].std(), 1, rtol=1e-5)
    np.testing.assert_allclose((jnp.float32(columns) - mean) / std, values, atol=1e-5)


@pytest.mark.slow
@jax.numpy_dtype_promotion("standard")  # which optax's Adam needs
@jax.enable_x64(True)  # for Adam's first steps enlarge what rounds off in small gradients
def test_uci_networks_are_those_of_a_plain_loop():
    """One split, rate and tau of the grid, step by step, the last batch of an epoch a small one."""
    count, features, hidden, epochs = 150, 3, 4, 2
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, count, features)), rng.normal(size=(2, count))
    keys = jax.random.split(KEY, 2)
    rates, taus = (jnp.tile(jnp.array(values), (2, 1)) for values in ([0.05, 0.3], [1e-4, 1.0]))
    found = uci.train(x, y, keys, rates, taus, hidden=hidden, epochs=epochs)

    rate, tau, key = 0.3, 1e-4, keys[1]
    params = uci.init(jdrop.fold_in(key, "init"), features, hidden)
    tx = optax.adam(1e-3)
    state = tx.init(params)
    for epoch in range(epochs):
        of_epoch = jdrop.fold_in(key, "epoch", epoch)
        order = np.asarray(jax.random.permutation(jdrop.fold_in(of_epoch, "order"), count))
        padded = np.concatenate([order, np.zeros(2 * 128 - count, int)]).reshape(2, 128)
        batches = jnp.asarray(x[1][padded].swapaxes(1, 2))
        dropped = jdrop.dropout(jdrop.fold_in(of_epoch, "inputs"), batches, rate)
        keep = jdrop.keep_mask(jdrop.fold_in(of_epoch, "hidden"), (2, hidden, 128), rate)
        for step, size in enumerate((128, count - 128)):

            def loss(params, step=step, size=size):
                first, last = params["first"], params["last"]
                z = first[:, :-1] @ dropped[step] + first[:, -1:]
                h = z * (z > 0) * keep[step] / (1 - rate)
                error = (last @ h + params["bias"])[0, :size] - y[1][padded[step, :size]]
                decay = 1e-4 * (1 - rate) / (2 * count * tau)
                return jnp.mean(error**2) + decay * (jnp.sum(first[:, :-1] ** 2) + jnp.sum(last**2))

            updates, state = tx.update(jax.grad(loss)(params), state)
            params = optax.apply_updates(params, updates)
    for name, expected in params.items():
        np.testing.assert_allclose(found[name][1, 1, 0], expected, rtol=1e-6, atol=1e-9)


def test_uci_verdicts():
    assert verdict(Estimate(0.1, 0.06), 1) == "not separable"
    assert verdict(Estimate(0.1, 0.04), 1) == "better"
    assert verdict(Estimate(0.1, 0.04), -1) == "worse"


def test_patches_make_a_convolution():
    x = jax.random.normal(KEY, (2, 11, 8, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    expected = jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(patches(x, 3, 2) @ kernel.reshape(27, 5), expected, rtol=1e-4, atol=1e-4)


def test_labels_to_a_bound_are_those_of_each_repeat():
    errors = [np.array([30.0, 12.0]), np.array([9.0, 11.0]), np.array([11.0, 10.0])]
    row = labels_to("BALD", errors, np.array([20, 30, 40]))
    assert row["labels to 10 %"] == Estimate(35.0, 5.0)
    assert row["labels to 5 %"] == "more than 40"
    assert (row["published, 10 %"], row["published, 5 %"]) == (145, 335)


def test_sparsity_is_the_divergence_of_poisson_rates():
    activities = np.array([[0.0, 0.4], [0.2, 0.8]])
    q = activities.mean(0) + 1e-6
    expected = (0.1 * np.log(0.1 / q) - 0.1 + q).sum()
    np.testing.assert_allclose(networks.sparsity(jnp.asarray(activities, jnp.float32)), expected, rtol=1e-5)
    assert networks.sparsity(jnp.full((4, 3), 0.1)) < 1e-6


def test_data_may_be_in_a_folder_of_their_own_name(tmp_path):
    assert images.subfolder(tmp_path, "mnist") == tmp_path
    (tmp_path / "mnist").mkdir()
    assert images.subfolder(tmp_path, "mnist") == tmp_path / "mnist"


@pytest.mark.slow
def test_an_experiment_that_the_system_ends_has_failed():
    assert all_of_them.in_a_process(os._exit, 0) == all_of_them.FAILED
    assert all_of_them.in_a_process(str, all_of_them.RAN) == all_of_them.RAN


@pytest.mark.slow
def test_uci_on_a_set_of_one_s_own(tmp_path):
    """Every number of the table, again from the predictions."""
    folder, rng = tmp_path / "yacht", np.random.default_rng(0)
    (folder / "results").mkdir(parents=True)
    x = rng.normal(size=(60, 3))
    np.savetxt(folder / "data.txt", np.c_[x, 5 * x[:, 0] - 2 * x[:, 1] + rng.normal(size=60)])
    for i in range(2):
        order = rng.permutation(60)
        np.savetxt(folder / f"index_train_{i}.txt", order[:50], "%d")
        np.savetxt(folder / f"index_test_{i}.txt", order[50:], "%d")
    one_number = {"n_splits": 2, "n_hidden": 6, "n_epochs": 1, "index_target": 3}
    for name, values in (one_number | {"dropout_rates": [0.05, 0.2], "tau_values": [0.1, 0.5]}).items():
        np.savetxt(folder / f"{name}.txt", np.atleast_1d(values), "%g")
    np.savetxt(folder / "index_features.txt", [0, 1, 2], "%d")
    np.savetxt(folder / "results" / "test_MC_rmse_1.txt", [1.0, 2.0])
    result = run("uci", "--only", "yacht", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    (row,), splits = (
        list(csv.DictReader((tmp_path / "out" / f"{name}.csv").read_text().splitlines())) for name in ("uci", "splits")
    )
    p = np.load(tmp_path / "out" / "predictions-yacht.npz")
    rmse = np.sqrt(((p["mean"] - p["target"]) ** 2).mean(1))
    score = p["log-likelihood"].mean(1)
    for column, values, name in (("RMSE", rmse, "RMSE"), ("LL", score, "log-likelihood")):
        np.testing.assert_allclose([float(split[name]) for split in splits], values, rtol=1e-4)
        np.testing.assert_allclose(float(row[column]), values.mean(), rtol=1e-4)
        np.testing.assert_allclose(float(row[f"{column} standard error"]), values.std(ddof=1) / 2**0.5, rtol=1e-4)
    np.testing.assert_allclose(float(row["RMSE - reference"]), (rmse - [1, 2]).mean(), rtol=1e-4)
    assert "LL - reference" not in row
    taus = {float(split["tau"]) for split in splits}
    assert taus <= {0.1, 0.5}
    assert row["at the edge"] == "2 of 2"
    with pytest.raises(MissingFiles, match=r"bostonHousing is missing \(looked in"):
        load(tmp_path / "elsewhere", "bostonHousing", None)
