"""What `fit` does around the steps: evaluation, logs, callbacks, one compiled loop, one trace, and no copies."""

import functools
import json
import shutil
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import key
from runs import STEP, X, Y, equal, evaluate, interrupting, linear_loss, linear_state, linen_state, loss_fn
from tiers import some

import jdrop
from jdrop.training import TrainState, fit, make_train_step, tensorboard

SETTING = {"epochs": 4, "batch_size": 8, "progress": False}  # 5 steps an epoch


def run(**changes):
    return fit(linen_state(), STEP, (X, Y), **(SETTING | changes))


def test_the_state_is_evaluated_every_so_many_steps():
    seen = []

    def eval_fn(state):
        seen.append((int(state.step), float(state.params["Dense_1"]["bias"][0])))
        return {"steps": state.step}

    _, history = run(eval_fn=eval_fn, eval_every=3)
    assert [step for step, _ in seen] == [3, 6, 9, 12, 15, 18]
    assert history["eval_steps"] == [3.0, 6.0, 9.0, 12.0, 15.0, 18.0]
    assert len(history["loss"]) == 4
    state = linen_state()
    batches = [o for e in range(4) for o in orders(e)]
    for number, batch in enumerate(batches, 1):
        state, _ = STEP(state, (X[batch], Y[batch]))
        if number in (3, 18):
            assert (number, float(state.params["Dense_1"]["bias"][0])) in seen


def orders(epoch):
    order = np.asarray(jax.random.permutation(jdrop.fold_in(key(), "shuffle", epoch), 40))
    return order.reshape(5, 8)


@some("save_every", [None, 3], 1)
def test_one_compiled_loop_is_the_steps_one_by_one(tmp_path, save_every):
    """To float tolerance, since XLA may fuse a step in a loop otherwise; order, masks and counts are exact."""

    def loss(params, batch, key, batch_stats):
        mask = jdrop.keep_mask(key, (8, 16), 0.5)
        value, metrics, update = loss_fn(params, batch, key, batch_stats)
        digest = jnp.where(mask, jnp.arange(128.0).reshape(8, 16), 0.0).sum()
        return value, metrics | {"mask": digest, "labels": batch[1].sum().astype(jnp.float32)}, update

    step, options = make_train_step(loss), {}
    if save_every is not None:
        options = {"checkpoint_dir": tmp_path, "save_every": save_every}
    one, first = fit(linen_state(), step, (X, Y), **SETTING)
    other, second = fit(linen_state(), step, (X, Y), scan=True, eval_fn=evaluate, eval_every=7, **options, **SETTING)
    assert [first[name] for name in ("mask", "labels")] == [second[name] for name in ("mask", "labels")]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), one.params, other.params)
    np.testing.assert_allclose(first["loss"], second["loss"], rtol=1e-5)
    assert len(second["eval_loss"]) == 2
    assert int(other.step) == 20


@some("scan", [False, True], 1)
def test_a_loss_is_traced_once_over_steps_epochs_and_rates(tmp_path, scan):
    traces = []

    def loss(params, batch, key, schedule):
        traces.append(0)
        rate = 0.5 * jnp.exp(-schedule["count"] / 10)
        x = jdrop.dropout(key, batch, rate)
        return jnp.mean((x @ params["w"] - 1.0) ** 2), {"rate": rate}, {"schedule": {"count": schedule["count"] + 1}}

    def state():
        return TrainState.create(params={"w": jnp.zeros(6)}, tx=TX, key=key(), collections={"schedule": {"count": 0.0}})

    step = make_train_step(loss)
    _, history = fit(state(), step, X, scan=scan, checkpoint_dir=tmp_path, save_every=3, **SETTING)
    fit(state(), step, X, scan=scan, **SETTING | {"epochs": 2})
    fit(state(), step, X, scan=scan, checkpoint_dir=tmp_path, **SETTING | {"epochs": 6})
    assert len(traces) == 1
    assert len(set(history["rate"])) == 4
    if not scan:
        assert step._cache_size() == 1  # compiled once, too


TX = optax.sgd(0.1)


@pytest.mark.slow
@some("scan", [False, True], 1)
def test_key_reuse_is_clean_through_a_whole_fit(tmp_path, scan):
    with jax.debug_key_reuse(True):
        fresh = make_train_step(loss_fn)
        for _ in range(2):
            fit(
                linen_state(), fresh, (X, Y), scan=scan, eval_fn=evaluate, patience=50, eval_every=2,
                checkpoint_dir=tmp_path, save_every=4, **SETTING,
            )  # fmt: skip
            SETTING["epochs"] += 1
        SETTING["epochs"] -= 2


def test_donated_buffers_are_reused():
    """The parameters of all steps lie at the two or fewer places that XLA changes between."""
    params = {"w": jnp.zeros((6, 5000))}
    state = TrainState.create(params=params, tx=optax.sgd(0.1, momentum=0.9), key=key())
    places, step = [], make_train_step(lambda p, batch, key: linear_loss(p, batch, key))

    def watching(state, batch):
        new, metrics = step(state, batch)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.opt_state)))
        places.append(frozenset(leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((new.params, new.opt_state))))
        return new, metrics

    fit(state, watching, X, **SETTING)
    assert len(places) == 20
    assert len(frozenset.union(*places)) == 2


def test_callbacks_see_what_is_new(tmp_path):
    records = []

    def callback(state, record):
        assert int(state.step) == record["step"]
        records.append(record)

    _, history = run(eval_fn=evaluate, eval_every=4, callbacks=[callback])
    assert [record["step"] for record in records] == [4, 5, 8, 10, 12, 15, 16, 20]
    assert [record["epoch"] for record in records] == [1, 1, 2, 2, 3, 3, 4, 4]
    for name in history:
        assert [record[name] for record in records if name in record] == history[name]
    assert set(records[-1]) == {"step", "epoch", "loss", "accuracy", "eval_loss", "eval_accuracy"}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def untimed(records):
    assert all(record.pop("seconds") > 0 and record.pop("examples_per_second") > 0 for record in records)
    return records


def test_the_log_has_a_line_a_record_also_after_a_crash(tmp_path):
    class Crash(Exception):
        pass

    def crash(state, record):
        if record["step"] == 16:
            raise Crash

    setting = {"eval_fn": evaluate, "eval_every": 4}
    run(log=tmp_path / "logs" / "whole.jsonl", **setting)
    whole = untimed(lines(tmp_path / "logs" / "whole.jsonl"))
    assert [record["step"] for record in whole] == [4, 5, 8, 10, 12, 15, 16, 20]
    log, checkpoints = tmp_path / "run.jsonl", {"checkpoint_dir": tmp_path / "run", "save_every": 9}
    with pytest.raises(Crash):
        run(log=log, callbacks=[crash], **setting, **checkpoints)
    assert [record["step"] for record in lines(log)] == [4, 5, 8, 10, 12, 15, 16]
    log.write_text(log.read_text() + '{"step": 20, "epo')  # killed while writing
    run(log=log, **setting, **checkpoints)
    assert untimed(lines(log)) == whole


@pytest.mark.slow
def test_a_log_keeps_what_others_wrote(tmp_path, monkeypatch):
    """Only what this run wrote after its checkpoint is cut off, in the very file that it wrote to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("some text\n")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "notes.txt")
    setting = {"checkpoint_dir": tmp_path / "run", "save_every": 3, "log": "link.jsonl"}
    with pytest.raises(KeyboardInterrupt):
        fit(linen_state(), interrupting(8), (X, Y), **SETTING, **setting)
    size = (tmp_path / "notes.txt").stat().st_size
    (tmp_path / "notes.txt").write_text((tmp_path / "notes.txt").read_text() + '{"step": 1')
    run(**setting)
    text = (tmp_path / "notes.txt").read_text()
    assert text.startswith("some text\n")
    assert [json.loads(line)["step"] for line in text.splitlines()[1:]] == [5, 10, 15, 20]
    assert size < len(text)
    (tmp_path / "other.jsonl").write_text("x" * 5000)
    shutil.rmtree(tmp_path / "run" / "20")
    run(**setting | {"log": "other.jsonl"})
    assert (tmp_path / "other.jsonl").read_text().startswith("x" * 5000)
    with pytest.raises(ValueError, match="run can't be written to .* give the name of a file that can"):
        run(log=tmp_path / "run")


def test_a_log_keeps_the_runs_before_and_writes_json_for_what_is_not_a_number(tmp_path):
    log = tmp_path / "log.jsonl"
    run(log=log, epochs=1)
    run(log=log, epochs=1, eval_fn=lambda state: {"gap": float("nan")})
    first, second = lines(log)
    assert first["loss"] == second["loss"]
    assert second["eval_gap"] is None


@pytest.mark.slow
def test_tensorboard_gets_the_numbers(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    _, history = run(eval_fn=evaluate, callbacks=[tensorboard(tmp_path)])
    (path,) = tmp_path.iterdir()
    deadline = time.monotonic() + 30
    while path.stat().st_size < 1000 and time.monotonic() < deadline:  # the library writes in a thread
        time.sleep(0.1)
    data, values = path.read_bytes(), {}
    while data:
        length = int.from_bytes(data[:8], "little")
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        for value in event.summary.value:
            values.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert [step for step, _ in values["eval_loss"]] == [5, 10, 15, 20]
    for name in history:
        np.testing.assert_allclose([value for _, value in values[name]], history[name], rtol=1e-6)


def test_tensorboard_without_its_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "jdrop\[tensorboard\]"'):
        tensorboard(tmp_path)


def test_schedules_and_clipping_come_from_optax():
    """Written out in NumPy: a linear schedule, and the gradient cut to a norm of 0.5."""
    tx = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(optax.linear_schedule(0.2, 0.0, 20)))
    state, _ = fit(linear_state(tx=tx), make_train_step(linear_loss), X, **SETTING)
    w = np.zeros(6)
    for number, batch in enumerate(o for e in range(4) for o in orders(e)):
        dropped = np.asarray(jdrop.dropout(jdrop.fold_in(key(), "dropout", number), X[batch], 0.5), np.float64)
        gradient = 2 * dropped.T @ (dropped @ w - 1) / 8
        w -= 0.2 * (1 - number / 20) * gradient * min(1, 0.5 / np.linalg.norm(gradient))
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-4)


def test_the_state_with_the_lowest_loss_is_returned_without_stopping():
    losses = iter([3.0, 1.0, 2.0, 1.5])
    states = []

    def eval_fn(state):
        states.append(np.asarray(state.params["Dense_1"]["bias"]))
        return {"loss": next(losses)}

    state, history = run(eval_fn=eval_fn, keep_best=True)
    assert history["eval_loss"] == [3.0, 1.0, 2.0, 1.5]
    np.testing.assert_array_equal(state.params["Dense_1"]["bias"], states[1])


def test_data_on_disk_are_read_batch_by_batch(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for scan in (False, True):
        one, _ = fit(linen_state(), STEP, (mapped, Y), scan=scan, **SETTING)
        equal(one, run(scan=scan)[0])


def test_a_fit_from_the_middle_of_an_epoch_finishes_that_epoch():
    state = linen_state()
    for batch in orders(0)[:3]:
        state, _ = STEP(state, (X[batch], Y[batch]))
    whole, history = run(epochs=2)
    rest, later = fit(state, STEP, (X, Y), **SETTING | {"epochs": 2})
    equal(rest, whole)
    assert later["loss"][1] == history["loss"][1]
    assert later["loss"][0] != history["loss"][0]
    with_records, losses = linen_state(), []
    for batch in orders(0):
        with_records, metrics = STEP(with_records, (X[batch], Y[batch]))
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(later["loss"][0], np.mean(losses[3:]), rtol=1e-6)


def test_no_epochs_change_nothing(tmp_path):
    state, history = run(epochs=0, checkpoint_dir=tmp_path)
    equal(state, linen_state())
    assert history == {}


def test_a_step_of_the_user_s_own():
    """Any function of the right form will do, and it is called once a step."""
    calls = []

    def step(state, batch):
        calls.append(batch.shape)
        return state.replace(step=state.step + 1), {"loss": 2.0, "vector": np.array([1.0, 2.0])}

    _, history = fit(linear_state(), step, X, **SETTING)
    assert calls == [(8, 6)] * 20
    assert history == {"loss": [2.0] * 4, "vector": [1.5] * 4}
    for metrics, error, message in (
        ({"eval_loss": 1.0, "step": 2}, ValueError, r"\['eval_loss', 'step'\], but .* give them other names"),
        ({"x": 1j}, TypeError, "'x' as a complex"),
        ({"x": key()}, TypeError, "'x' as an array of key"),
        ({"x": {"y": 1.0}}, TypeError, "'x' as a dict, but a metric is a real number"),
        ({"x": np.zeros((0,))}, ValueError, r"'x' of shape \(0,\)"),
    ):
        with pytest.raises(error, match=message):
            fit(linear_state(), lambda state, batch, m=metrics: (state, {"loss": 0.0} | m), X, **SETTING)
    for metrics, came in (({}, r"\[\]"), (3.0, "a float")):
        with pytest.raises(ValueError, match=f"returned the metrics {came}, but a dict with a 'loss'"):
            fit(linear_state(), lambda state, batch, m=metrics: (state, m), X, **SETTING)


def test_other_types_are_named():
    with pytest.raises(TypeError, match=r"state is a dict, but a jdrop.training.TrainState is needed"):
        fit({}, STEP, (X, Y), **SETTING)
    for value, came in ((None, "a NoneType"), ("0.5", "a str"), (np.complex64(1), "an array of complex64")):
        with pytest.raises(TypeError, match=f"eval_fn returned 'm' as {came}"):
            run(eval_fn=lambda state, value=value: {"m": value})


def test_metrics_that_are_not_those_of_the_steps_before(tmp_path):
    def step(names):
        return lambda state, batch: (state, {"loss": 1.0} | dict.fromkeys(names, 2.0))

    fit(linear_state(), step("a"), X, **SETTING | {"epochs": 1}, checkpoint_dir=tmp_path, save_every=3)
    shutil.rmtree(tmp_path / "5")
    for names in ("", "ab"):
        with pytest.raises(ValueError, match=r"those of the epoch's steps before are \['a', 'loss'\]"):
            fit(linear_state(), step(names), X, **SETTING, checkpoint_dir=tmp_path)


def test_nan_checks_find_nothing_and_names_are_no_markup():
    with jax.debug_nans(True):
        run(epochs=1)
    fit(linear_state(), lambda state, batch: (state, {"loss": 1.0, "tokens[/s]": 2.0}), X, epochs=1, batch_size=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eval_every": 0, "eval_fn": evaluate}, "eval_every is 0"),
        ({"eval_every": 3}, "pass an eval_fn"),
        ({"checkpoint_dir": "gs://bucket/run"}, "a folder of a file system is needed"),
        ({"eval_fn": lambda state: {"loss": np.zeros(3)}}, r"'loss' of shape \(3,\), but \(\) is needed"),
    ],
)
def test_settings_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        run(**change)
