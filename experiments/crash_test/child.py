"""The training that `crash_test` kills: one call of `fit`, and digests of all that it returns."""

import faulthandler
import hashlib
import json
import os
import sys
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import jdrop

BATCH, HELD_OUT = 100, 400
SAVE_EVERY, EVAL_EVERY, KEEP = 3, 5, 2  # neither divides the other, nor the 13 steps of an epoch
TIME_LIMIT = 300  # seconds, beyond which a process hangs
MODES = {
    "steps, best state": {"scan": False, "patience": 2, "keep_best": True},
    "steps, last state": {"scan": False},
    "scan, best state": {"scan": True, "patience": 2, "keep_best": True},
    "scan, last state": {"scan": True},
}
FAULTS = ("key", "optimizer")  # of a restarted process, on purpose


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        x = nn.BatchNorm(use_running_average=deterministic)(nn.Dense(512)(x))
        x = jdrop.linen.Dropout(0.5, deterministic=deterministic)(nn.relu(x))
        return nn.Dense(10)(x)


def main(folder, mode, seed, epochs, programs, first, fault):
    """Train in `folder`: checkpoints go to `checkpoints`, digests to result.json, and what goes wrong to stderr.

    `programs` keeps compiled programs, with which a start is several times as fast. The `first` process, which is not
    killed, writes them, and the others only read them: JAX does not write them under another name first.
    """
    os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())
    faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
    warnings.simplefilter("error")  # that a checkpoint is damaged is one: no kill may damage any
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", str(programs))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0 if first else float("inf"))
    state, history = train(folder, mode, seed, epochs, fault)
    leaves = {jax.tree_util.keystr(path): digest(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
    (folder / "result.json").write_text(json.dumps({"state": leaves, "history": history}))


def train(folder, mode, seed, epochs, fault):
    images, labels = load_digits(return_X_y=True)
    data = (images / 16).astype(np.float32), labels.astype(np.int32)
    examples, held_out = (tuple(array[part] for array in data) for part in (np.s_[HELD_OUT:], np.s_[:HELD_OUT]))
    model, root = Network(), jax.random.key(seed)
    schedule = optax.cosine_decay_schedule(2e-2, epochs * (len(examples[0]) // BATCH))
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    if fault == "optimizer":
        tx = forgetful(tx)
    variables = jax.jit(model.init, static_argnums=2)(jdrop.fold_in(root, "init"), examples[0][:1], True)
    state = jdrop.training.TrainState.create(
        apply_fn=model.apply,
        params=variables["params"],
        tx=tx,
        key=root,
        collections={"batch_stats": variables["batch_stats"]},
    )

    def loss_fn(params, batch, key, batch_stats):
        if fault == "key" and key is not None:
            key = jdrop.fold_in(key, "fault")
        rngs = None if key is None else {"dropout": key}
        variables = {"params": params, "batch_stats": batch_stats}
        logits, update = model.apply(variables, batch[0], key is None, rngs=rngs, mutable=["batch_stats"])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()
        return loss, {"accuracy": (logits.argmax(-1) == batch[1]).mean()}, update

    step, evaluate = jdrop.training.make_train_step(loss_fn), jdrop.training.make_eval_step(loss_fn)

    def marking_step(state, batch):
        (folder / "trains").touch()  # by now `fit` has removed what a killed process left
        return step(state, batch)

    return jdrop.training.fit(
        state,
        marking_step,
        examples,
        epochs=epochs,
        batch_size=BATCH,
        eval_fn=lambda state: evaluate(state, held_out),
        eval_every=EVAL_EVERY,
        checkpoint_dir=folder / "checkpoints",
        save_every=SAVE_EVERY,
        keep=KEEP,
        resume=True,
        progress=False,
        **MODES[mode],
    )


def forgetful(tx):
    """An optimizer that begins anew at every step."""
    return optax.GradientTransformation(tx.init, lambda updates, _, params: tx.update(updates, tx.init(params), params))


def digest(leaf):
    kind = ""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        kind, leaf = str(jax.random.key_impl(leaf)), jax.random.key_data(leaf)
    leaf = np.asarray(leaf)
    return hashlib.sha256(f"{kind} {leaf.dtype} {leaf.shape} ".encode() + leaf.tobytes()).hexdigest()
