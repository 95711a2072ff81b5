"""A good call of every public function, as (function, {argument: value}): what tests of the whole API are made of."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from cases import key
from flax import nnx

import jdrop

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)
KERNEL = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32)
LABELS = jnp.asarray([0, 1, 2, 0, 1, 2])
POSITIVE = jnp.asarray([True, False, True, True, False, False])


def predict(k, x):
    return jax.nn.softmax(jdrop.dropout(k, x, 0.5) @ KERNEL)


def logits(k, x):
    return jdrop.dropout(k, x, 0.5) @ KERNEL


def loss_fn(params, batch, k):
    return jnp.mean((jdrop.dropout(k, batch, 0.5, k is None) @ params["kernel"]) ** 2), {}


def state():
    return jdrop.training.TrainState.create(params={"kernel": KERNEL}, tx=optax.sgd(0.1), key=key())


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="head")(jdrop.linen.Dropout(0.5, deterministic=True)(x))


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.drop, self.head = jdrop.nnx.Dropout(0.5, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.drop(x))


def drawn():
    return {"key": key(), "x": X, "rate": 0.5, "deterministic": False}


def family():
    """The calls of the kinds of dropout."""
    d = jdrop
    images, tokens = jnp.ones((2, 4, 4, 3)), jnp.arange(24).reshape(6, 4) % 5
    masks = d.masksembles_masks(key(), 2, 4)
    tree = {"a": {"kernel": KERNEL}}
    arguments = {
        "alpha_dropout": drawn(),
        "channel_dropout": drawn() | {"channel_axis": -1},
        "concrete_dropout": drawn() | {"temperature": 0.1},
        "concrete_regularizer": {"kernel": KERNEL, "rate": 0.5, "weight": 0.1, "dropout": 0.1},
        "drop_block": drawn() | {"x": images, "block_size": 2, "scaling": "none"},
        "drop_connect": {"key": key(), "params": tree, "rate": 0.5, "deterministic": False, "kernels_only": True},
        "drop_connect_moments": {"x": X, "kernel": KERNEL, "rate": 0.5, "scaling": "inverted"},
        "drop_path": drawn() | {"scaling": "none"},
        "embedding_dropout": drawn() | {"x": images[0], "tokens": tokens[:4]},
        "feature_alpha_dropout": drawn() | {"channel_axis": -1},
        "gaussian_dropout": drawn(),
        "gaussian_noise": {"key": key(), "x": X, "std": 0.5, "deterministic": False},
        "linear_depth_rates": {"rate": 0.5, "depth": 3, "first": 0.1},
        "masksembles": {"x": X, "masks": masks, "index": 1},
        "masksembles_masks": {"key": key(), "num_masks": 2, "width": 4, "scale": 2.0},
        "mixout": {"key": key(), "params": tree, "pretrained": tree, "rate": 0.5, "deterministic": False},
        "multi_sample_dropout": drawn() | {"head": lambda x: x @ KERNEL, "num_samples": 2},
        "patch_dropout": drawn() | {"x": images[0], "prefix_tokens": 1},
        "prune": {"kernel": KERNEL, "log_alpha": KERNEL, "threshold": 3.0},
        "r_drop": {"logits": X, "other": X + 1},
        "token_dropout": drawn() | {"x": images[0], "padding": tokens[:4] == 0},
        "variational_dropout": {"key": key(), "x": X, "kernel": KERNEL, "log_alpha": KERNEL, "deterministic": False},
        "variational_kl": {"log_alpha": KERNEL},
        "word_dropout": {"key": key(), "tokens": tokens, "rate": 0.5, "replacement": 1, "padding": tokens == 0},
    }
    found = {name: (getattr(d, name), given) for name, given in arguments.items()}
    found |= {
        "curriculum": (d.schedules.curriculum, {"rate": 0.5, "speed": 0.1}),
        "early": (d.schedules.early, {"rate": 0.5, "steps": 10, "decay": True}),
        "late": (d.schedules.late, {"rate": 0.5, "start": 10}),
    }
    return found


def calls():
    """{name: (function, {argument: value})}; with every argument that has junk to fear."""
    mc, t = jdrop.mc, jdrop.training
    samples = mc.samples(predict, key(), X, 5, consistent=True)
    p, outputs = samples.mean(0), mc.samples(lambda k, x: jdrop.dropout(k, x, 0.5)[:, 0] + 3, key(), X, 5)
    targets, ones = jnp.arange(6.0), jnp.ones(6)
    model, net = NNXNet(nnx.Rngs(0)), Net()
    variables = net.init(key(), X)
    fields = {"num_bins": 5}
    label = {"probabilities": p, "labels": LABELS}
    found = {
        "dropout": (jdrop.dropout, {"key": key(), "x": X, "rate": 0.5, "deterministic": False, "broadcast_dims": (1,)}),
        "keep_mask": (jdrop.keep_mask, {"key": key(), "shape": (3, 4), "rate": 0.5, "broadcast_dims": (1,)}),
        "fold_in": (jdrop.fold_in, {"key": key()}),
        **{
            f"{family.__name__}.attention_fn": (
                family.attention_fn,
                {name: jnp.ones((1, 6, 2, 4)) for name in ("query", "key", "value")}
                | {"mask": jnp.ones((6, 6)), "bias": jnp.zeros((6, 6)), "deterministic": True},
            )
            for family in (jdrop.linen, jdrop.nnx)
        },
        "dot_product_attention": (
            jdrop.dot_product_attention,
            {
                "key": key(),
                **{name: jnp.ones((1, 6, 2, 4)) for name in "qkv"},
                "rate": 0.5,
                "deterministic": False,
                "bias": jnp.zeros((6, 6)),
                "mask": jnp.ones((6, 6), bool),
                "is_causal": True,
                "scale": 0.5,
                "query_seq_lengths": jnp.array([5]),
                "key_value_seq_lengths": jnp.array([4]),
                "local_window_size": (2, 1),
                "broadcast_dims": (1,),
                "block_size": (4, 3),
                "implementation": "xla",
            },
        ),
        "variational_mask": (
            jdrop.variational_mask,
            {"key": key(), "shape": (3, 4), "rate": 0.5, "dtype": jnp.float32},
        ),
        "zoneout": (jdrop.zoneout, {"key": key(), "new": X, "previous": X + 1, "rate": 0.5, "deterministic": False}),
        **family(),
        "l1": (jdrop.l1, {"params": {"kernel": KERNEL}, "strength": 0.5, "kernels_only": True}),
        "l2": (jdrop.l2, {"params": {"kernel": KERNEL}, "strength": 0.5, "kernels_only": True}),
        "max_norm": (jdrop.max_norm, {"limit": 3.0, "axes": 0}),
        "scale_weights": (
            jdrop.scale_weights,
            {"params": {"a": {"kernel": KERNEL}}, "rates": {"a": 0.5}, "inverse": False},
        ),
        "mc_dropout": (
            jdrop.mc_dropout,
            {
                "predict": logits,
                "key": key(),
                "x": X,
                "num_samples": 12,
                "transform": jax.nn.softmax,
                "consistent": False,
                "chunk_size": 5,
                "mesh": None,
            },
        ),
        "mc_dropout tolerance": (
            jdrop.mc_dropout,
            {"predict": logits, "key": key(), "x": X, "tolerance": 0.9, "max_samples": 50},
        ),
        "samples": (
            mc.samples,
            {
                "predict": logits,
                "key": key(),
                "x": X,
                "num_samples": 12,
                "consistent": True,
                "chunk_size": 5,
                "mesh": None,
            },
        ),
        "mc_dropout_batches": (
            mc.mc_dropout_batches,
            {"predict": predict, "key": key(), "batches": [X, X[:2]], "num_samples": 12, "progress": False},
        ),
        "propagate": (mc.propagate, {"predict": logits, "x": X}),
        "all_masks": (mc.all_masks, {"width": 3, "rate": 0.5}),
        "geometric_mean": (mc.geometric_mean, {"probabilities": samples, "weights": jnp.ones(5)}),
        "linen.predictor": (
            jdrop.linen.predictor,
            {
                "model": net,
                "variables": variables,
                "only": "Dropout_0",
                "inject": {"head": 0.5},
                "rng_collection": "dropout",
            },
        ),
        "nnx.predictor": (jdrop.nnx.predictor, {"model": model, "only": "drop", "inject": {"head": 0.5}}),
        "nnx.train_parts": (jdrop.nnx.train_parts, {"model": model}),
        "nnx.model_loss": (jdrop.nnx.model_loss, {"model": model, "loss_fn": lambda m, x: m(x).mean()}),
        "fit": (
            t.fit,
            {
                "state": state(),
                "train_step": t.make_train_step(loss_fn),
                "data": X,
                "epochs": 1,
                "batch_size": 3,
                "eval_fn": lambda state: {"loss": 1.0},
                "eval_every": 1,
                "patience": 3,
                "keep_best": True,
                "scan": False,
                "sharding": None,
                "keep": 2,
                "resume": True,
                "callbacks": [],
                "progress": False,
            },
        ),
        "make_train_step": (t.make_train_step, {"loss_fn": loss_fn, "accumulate": 2, "per_example": True}),
        "make_eval_step": (t.make_eval_step, {"loss_fn": loss_fn}),
        "vmap_seeds": (t.vmap_seeds, {"function": t.make_train_step(loss_fn)}),
        "nll": (mc.metrics.nll, label),
        "brier": (mc.metrics.brier, label),
        "reliability": (mc.metrics.reliability, label | fields),
        "ece": (mc.metrics.ece, label | fields),
        "mce": (mc.metrics.mce, label | fields),
        "adaptive_ece": (mc.metrics.adaptive_ece, label | fields),
        "classwise_ece": (mc.metrics.classwise_ece, label | fields),
        "label_log_likelihood": (mc.metrics.label_log_likelihood, {"probabilities": samples, "labels": LABELS}),
        "interval_coverage": (mc.metrics.interval_coverage, {"lower": -ones, "upper": ones, "targets": targets}),
        "interval_width": (mc.metrics.interval_width, {"lower": -ones, "upper": ones}),
        "rmse": (mc.metrics.rmse, {"mean": ones, "targets": targets}),
        "sharpness": (mc.metrics.sharpness, {"variance": ones}),
    }
    for name in ("gaussian_log_likelihood", "crps_gaussian", "pit_gaussian"):
        found[name] = getattr(mc.metrics, name), {"mean": ones, "variance": ones, "targets": targets}
    for name in ("crps_ensemble", "pit_ensemble"):
        found[name] = getattr(mc.metrics, name), {"outputs": outputs, "targets": targets}
    found["mixture_log_likelihood"] = (
        mc.metrics.mixture_log_likelihood,
        {"outputs": outputs, "targets": targets, "tau": ones},
    )
    for name in ("auroc", "average_precision"):
        found[name] = getattr(mc.metrics, name), {"uncertainty": targets, "positive": POSITIVE}
    for name in ("risk_coverage", "aurc"):
        found[name] = getattr(mc.metrics, name), {"uncertainty": targets, "correct": POSITIVE}
    found["selective_accuracy"] = (
        mc.metrics.selective_accuracy,
        {"uncertainty": targets, "correct": POSITIVE, "coverage": 0.5},
    )
    for name in (
        "predictive_entropy",
        "expected_entropy",
        "mutual_information",
        "variation_ratio",
        "vote_disagreement",
        "max_probability",
        "margin",
        "entropy",
    ):
        found[name] = getattr(mc.uncertainty, name), {"probabilities": samples}
    for name in ("predictive_mean", "epistemic_variance"):
        found[name] = getattr(mc.uncertainty, name), {"outputs": outputs}
    found |= {
        "aleatoric_variance": (mc.uncertainty.aleatoric_variance, {"log_variance": outputs}),
        "total_variance": (mc.uncertainty.total_variance, {"outputs": outputs, "tau": 2.0}),
        "quantiles": (mc.uncertainty.quantiles, {"outputs": outputs, "q": jnp.array([0.1, 0.9])}),
        "central_interval": (mc.uncertainty.central_interval, {"outputs": outputs, "coverage": 0.9}),
        "fit_tau": (mc.calibration.fit_tau, {"outputs": outputs, "targets": targets}),
        "prior_tau": (
            mc.calibration.prior_tau, {"rate": 0.5, "length_scale": 1.0, "num_examples": 10, "weight_decay": 0.1}
        ),
        "fit_temperature": (
            mc.calibration.fit_temperature, {"logits": 4 * jnp.eye(3)[LABELS], "labels": LABELS.at[0].set(1)}
        ),
        "mean_std": (mc.acquisition.mean_std, {"probabilities": samples}),
        "random": (mc.acquisition.random, {"key": key(), "n": 5}),
        "top_k": (mc.acquisition.top_k, {"scores": targets, "k": 2}),
        "batch_bald": (
            mc.acquisition.batch_bald, {"key": key(), "probabilities": samples, "k": 2, "num_configurations": 100}
        ),
        "lac_quantile": (mc.conformal.lac_quantile, label | {"alpha": 0.3}),
        "lac_sets": (mc.conformal.lac_sets, {"probabilities": p, "quantile": 0.5}),
        "aps_quantile": (mc.conformal.aps_quantile, {"key": key()} | label | {"alpha": 0.3}),
        "aps_sets": (mc.conformal.aps_sets, {"key": key(), "probabilities": p, "quantile": 0.5}),
        "residual_quantile": (
            mc.conformal.residual_quantile, {"mean": ones, "targets": targets, "alpha": 0.3, "variance": ones}
        ),
        "residual_intervals": (mc.conformal.residual_intervals, {"mean": ones, "quantile": 0.5, "variance": ones}),
        "plots.rate_curve": (mc.plots.rate_curve, {"rates": jnp.array([0.1, 0.5]), "scores": jnp.array([0.3, 0.2])}),
        "select_rate": (
            mc.calibration.select_rate,
            {
                "predict": lambda k, x, rate: jax.nn.softmax(jdrop.dropout(k, x, rate, k is None) @ KERNEL),
                "key": key(),
                "x": X,
                "labels": LABELS,
                "rates": jnp.array([0.1, 0.5]),
                "num_samples": 3,
                "score": mc.metrics.nll,
            },
        ),
        "plots.reliability_diagram": (mc.plots.reliability_diagram, label | fields),
        "plots.risk_coverage": (mc.plots.risk_coverage, {"uncertainty": targets, "correct": POSITIVE}),
        "plots.uncertainty_histogram": (
            mc.plots.uncertainty_histogram, {"in_distribution": targets, "out_of_distribution": ones}
        ),
        "plots.most_least_certain": (
            mc.plots.most_least_certain,
            {"images": jnp.ones((6, 3, 3)) * targets[:, None, None], "uncertainty": targets, "n": 2},
        ),
        "plots.regression_band": (mc.plots.regression_band, {"x": targets, "outputs": outputs, "tau": 2.0}),
    }  # fmt: skip
    return found


def uncalled(modules, names):
    """The public functions of which there is no call."""
    called = {function for function, _ in calls().values()}
    for module in modules:
        for name in names(module):
            function = getattr(module, name)
            if inspect.isfunction(function) and function not in called:
                yield f"{module.__name__}.{name}"
