"""What stands in a checkpoint folder may be anybody's: it is refused, or the checkpoint before it is used."""

import hashlib
import json
import os
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import key
from runs import X, linear_loss, linear_state, same
from tiers import some

from jdrop.training import CheckpointError, TrainState, fit, make_train_step, vmap_seeds
from jdrop.training import _storage as storage

STEP = make_train_step(linear_loss)


def run(state=None, step=STEP, data=X, **options):
    state = linear_state() if state is None else state
    return fit(state, step, data, **({"epochs": 2, "batch_size": 8, "progress": False} | options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints of the steps 5 and 10."""
    folder = tmp_path_factory.mktemp("records")
    run(checkpoint_dir=folder)
    return folder


def forged(folder, change):
    """Change the record of step 10, and its hash, as a stranger could."""
    path = folder / "10" / "run.json"
    record = json.loads(path.read_text())["run"]
    changed = change(record)
    record = record if changed is None else changed
    digest = hashlib.sha256(json.dumps(record).encode()).hexdigest()
    path.write_text(json.dumps({"sha256": digest, "run": record}))


def setting(name, value):
    def change(record):
        record[name] = value

    return change


def file_named(name):
    def change(record):
        record["files"][name] = "0" * 64

    return change


CHANGES = {
    "step nan": setting("step", float("nan")),
    "step text": setting("step", "10"),
    "step negative": setting("step", -1),
    "step huge": setting("step", 2**70),
    "step other": setting("step", 9),
    "step flag": setting("step", True),
    "start nan": setting("start", float("nan")),
    "history list": setting("history", [1]),
    "history text": setting("history", {"loss": "abc"}),
    "history objects": setting("history", {"loss": [{}]}),
    "metrics kind": setting("metrics", {"loss": "object"}),
    "evaluated": setting("evaluated", "yes"),
    "patience": setting("patience", 1.5),
    "best loss": setting("best_loss", "inf"),
    "waited": setting("waited", {}),
    "log": setting("log", 3),
    "log of a text": setting("log", ["a", "b"]),
    "leaves": setting("leaves", []),
    "leaf sizes": setting("leaves", {"a": {"shape": [-1], "dtype": "float32"}}),
    "leaf without": setting("leaves", {"a": {}}),
    "seeds": setting("seeds", 3),
    "source": setting("source", 3),
    "alike": setting("alike", []),
    "files": setting("files", []),
    "a file above": file_named("../../../etc/hostname"),
    "an absolute file": file_named("/etc/hostname"),
    "a device": file_named("/dev/zero"),
    "a file of no text": file_named("\0"),
    "no record": lambda record: [],
    "a number": lambda record: 3,
    "nothing": lambda record: {},
}


@some("name", CHANGES, 0, 4, 7, -7, -6)
def test_a_record_that_no_run_writes(folder, tmp_path, name):
    """The checkpoint before it is used; where there is none, a CheckpointError says why."""
    place = tmp_path / "run"
    shutil.copytree(folder, place)
    forged(place, CHANGES[name])
    alone = tmp_path / "alone"
    shutil.copytree(place / "10", alone / "10")
    with pytest.warns(UserWarning, match="a damaged checkpoint is set aside .*; training resumes from .*5"):
        result = run(checkpoint_dir=place)
    same(result, run())
    with pytest.raises(CheckpointError, match="no checkpoint in .* is whole"):
        run(checkpoint_dir=alone)


@some(
    "text",
    ["", "{", "null", "[]", "3", '{"run": 3}', "[" * 50_000 + "]" * 50_000, '{"a":' * 50_000, "\ufeff{}", "NaN"],
    0,
    6,
    ids=range(10),
)
def test_a_record_that_is_no_json(folder, tmp_path, text):
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "10" / "run.json").write_text(text)
    with pytest.warns(UserWarning, match="a damaged checkpoint is set aside"):
        same(run(checkpoint_dir=tmp_path / "run"), run())


@some("kind", ["link", "pipe", "folder", "bytes", "device"], 0, 1)
def test_a_record_or_a_file_that_is_none(folder, tmp_path, kind):
    """A pipe or a device would be read for ever, a link leads out of the folder."""
    for name in ("run.json", "arrays/_METADATA"):
        place = tmp_path / name.replace("/", "-")
        shutil.copytree(folder, place)
        path = place / "10" / name
        content = path.read_bytes()
        path.unlink()
        if kind == "link":
            (tmp_path / "elsewhere").write_bytes(content)
            path.symlink_to(tmp_path / "elsewhere")
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.write_bytes(b"\xff\xfe\x00")
        with pytest.warns(UserWarning, match="a damaged checkpoint is set aside"):
            same(run(checkpoint_dir=place), run())


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_the_name_of_what_is_set_aside_may_be_taken(folder, tmp_path, kind):
    """What stands there stays, or is an older one of the same."""
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "10" / "run.json").write_text("")
    taken = tmp_path / "run" / "10.broken"
    if kind == "file":
        taken.write_text("mine")
    elif kind == "folder":
        taken.mkdir()
    else:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "it").write_text("mine")
        taken.symlink_to(tmp_path / "mine")
    with pytest.warns(UserWarning, match="a damaged checkpoint is set aside"):
        same(run(checkpoint_dir=tmp_path / "run"), run())
    if kind == "file":
        assert taken.read_text() == "mine"
    if kind == "link":
        assert (tmp_path / "mine" / "it").read_text() == "mine"


@some("name", ["a[b]", "a*", "a?", "{a}", "a b", "a'b", "ä", "a\\b", "%s", "..a", "-a"], 0)
def test_a_folder_of_any_name(tmp_path, name):
    """Saved, kept, and gone on from."""
    (tmp_path / "a").mkdir()
    run(epochs=1, checkpoint_dir=tmp_path / name, save_every=1)
    assert {path.name for path in (tmp_path / name).iterdir()} == {"3", "4", "5"}
    same(run(checkpoint_dir=tmp_path / name), run())
    assert list((tmp_path / "a").iterdir()) == []


def test_what_is_saved_is_read_again(tmp_path, monkeypatch):
    """A checkpoint that can't be read was not saved: the run says so, and the one before stays."""
    read, reads = storage._read, []

    def unreadable(*arguments):
        reads.append(0)
        if len(reads) == 2:  # the first is that of the checkpoint which the run goes on from
            raise ValueError("unreadable")
        return read(*arguments)

    run(epochs=1, checkpoint_dir=tmp_path)
    monkeypatch.setattr(storage, "_read", unreadable)
    with pytest.raises(
        CheckpointError, match=r"step 10 could not be saved in .* \(unreadable\); that of step 5 is whole"
    ):
        run(checkpoint_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["5"]
    same(run(checkpoint_dir=tmp_path), run())


# A run that is another run.


def other_row():
    x = X.copy()
    x[0, 0] += 1
    return x


OTHERS = {
    "rows": ({"data": other_row()}, "data"),
    "type of the data": ({"data": X.astype(np.float64)}, "data"),
    "shape of the data": ({"data": X.reshape(40, 2, 3)}, "data"),
    "batches": ({"data": [X[:8]] * 5, "batch_size": None}, "examples|data"),
    "optimizer": ({"state": lambda: linear_state(tx=optax.adam(0.1))}, "optimizer"),
    "accumulate": ({"step": make_train_step(linear_loss, accumulate=2)}, "accumulate"),
    "per_example": ({"step": make_train_step(linear_loss, per_example=True)}, "per_example"),
}


@some("name", OTHERS, 0, 3, 5)
def test_another_run_is_noticed(folder, tmp_path, name):
    change, named = OTHERS[name]
    if "state" in change:
        change = change | {"state": change["state"]()}
    shutil.copytree(folder, tmp_path / "run")
    with jax.numpy_dtype_promotion("standard"), pytest.raises(CheckpointError, match=named):
        run(checkpoint_dir=tmp_path / "run", **({"epochs": 3} | change))
    same(run(checkpoint_dir=tmp_path / "run", epochs=3), run(epochs=3))


def test_other_hyperparameters_are_noticed_where_the_state_shows_them(tmp_path):
    def state(rate):
        return linear_state(tx=optax.inject_hyperparams(optax.sgd)(learning_rate=rate))

    run(state(0.1), epochs=1, checkpoint_dir=tmp_path)
    with pytest.raises(CheckpointError, match="hyperparameters .*0.1.* but here it is .*0.2"):
        run(state(0.2), checkpoint_dir=tmp_path)
    assert int(run(state(0.1), checkpoint_dir=tmp_path)[0].step) == 10


def test_another_evaluation_is_noticed(tmp_path):
    def evaluate(state):
        return {"loss": jnp.sum(state.params["w"])}

    run(epochs=1, checkpoint_dir=tmp_path, eval_fn=evaluate, eval_every=2)
    with pytest.raises(CheckpointError, match="eval_every 2, but here it is 3"):
        run(checkpoint_dir=tmp_path, eval_fn=evaluate, eval_every=3)


def test_a_callback_can_t_change_the_history():
    """Also where a number is a list of them, one a seed."""

    def spoil(state, record):
        record["loss"][0] = "spoiled"
        record.clear()

    def train(**options):
        stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(linear_state, range(2)))
        return run(stack, vmap_seeds(STEP), **options)

    same(train(callbacks=[spoil]), train())


# Logs.


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_log_that_two_runs_share_loses_no_line(tmp_path):
    """One is resumed from a checkpoint before its last lines: those are cut out, and the other's stay."""
    log = tmp_path / "log.jsonl"

    class Stop(Exception):
        pass

    def stop(state, record):
        if record["step"] == 15:
            raise Stop

    with pytest.raises(Stop):
        run(epochs=4, log=log, checkpoint_dir=tmp_path / "one", save_every=5, callbacks=[stop])
    run(linear_state(1), epochs=4, log=log, checkpoint_dir=tmp_path / "two")
    assert len(lines(log)) == 7
    run(epochs=4, log=log, checkpoint_dir=tmp_path / "one", save_every=5)
    steps = [line["step"] for line in lines(log)]
    assert sorted(steps) == sorted([5, 10, 15, 20] * 2)
    losses = {(line["step"], line["loss"]) for line in lines(log)}
    for seed in (0, 1):
        history = run(linear_state(seed), epochs=4)[1]
        assert {(5 * i + 5, loss) for i, loss in enumerate(history["loss"])} <= losses


@pytest.mark.parametrize("what", ["removed", "a folder"])
def test_a_log_that_is_gone(tmp_path, what):
    """Removed, it begins again; what can't be written to is said, and the checkpoints stay."""
    log = tmp_path / "log.jsonl"
    run(epochs=1, log=log, checkpoint_dir=tmp_path / "run")
    log.unlink()
    if what == "removed":
        same(run(log=log, checkpoint_dir=tmp_path / "run"), run())
        assert [line["step"] for line in lines(log)] == [10]
    else:
        log.mkdir()
        with pytest.raises(ValueError, match="log .* can't be written to"):
            run(log=log, checkpoint_dir=tmp_path / "run")
        same(run(checkpoint_dir=tmp_path / "run"), run())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full, a disk that is always full")
def test_a_log_on_a_full_disk():
    with pytest.raises((CheckpointError, ValueError), match="log /dev/full can't be written to.*No space left"):
        run(log="/dev/full")


def test_integers_beyond_32_bits_as_a_step():
    state = TrainState.create(params={"w": jnp.zeros(6)}, tx=optax.sgd(0.1), key=key())
    with pytest.raises((TypeError, ValueError), match="epochs"):
        fit(state, STEP, X, epochs=10**30, batch_size=8, progress=False)
