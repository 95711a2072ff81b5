"""A run that was stopped, at any step and in any way, ends as if it had not been."""

import contextlib
import json
import resource
import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import key
from runs import LINEAR_TX, STEP, X, Y, equal, evaluate, interrupting, linear_loss, linear_state, linen_state, same
from tiers import some

from jdrop.training import CheckpointError, NonFiniteLossError, TrainState, fit, make_train_step
from jdrop.training import _storage as storage

SETTING = {"epochs": 10, "batch_size": 8, "eval_fn": evaluate, "eval_every": 7, "progress": False}
SETTING |= {"patience": 100, "keep_best": True}
LAST = {"eval_fn": None, "eval_every": None, "patience": None, "keep_best": False}


def run(state=None, step=STEP, **changes):
    return fit(linen_state() if state is None else state, step, (X, Y), **(SETTING | changes))


@pytest.fixture(scope="module", params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["steps", "scan"])
def saved(request, tmp_path_factory):
    """A run of 10 steps with a checkpoint of each, and what it returned."""
    folder = tmp_path_factory.mktemp("saved")
    setting = {"scan": request.param, "epochs": 2}
    return folder, run(checkpoint_dir=folder, save_every=1, keep=None, **setting), setting | {"save_every": 10**6}


def only(source, step, target):
    """A folder with one of the source's checkpoints."""
    shutil.copytree(source / str(step), target / str(step))
    return target


# The first step, an epoch's end, an evaluation, the step after it, and the last but one.
STEPS = [1, 5, 7, 8, 9]


@pytest.mark.parametrize("steps", [STEPS, pytest.param(sorted({*range(1, 11)} - {*STEPS}), marks=pytest.mark.slow)])
def test_a_run_is_resumed_from_every_step(saved, tmp_path, steps):
    folder, whole, setting = saved
    same(run(scan=setting["scan"], epochs=setting["epochs"]), whole)
    assert sorted(int(path.name) for path in folder.iterdir()) == list(range(1, 11))
    for step in steps:
        same(run(checkpoint_dir=only(folder, step, tmp_path / str(step)), **setting), whole)


@pytest.mark.slow
def test_early_stopping_is_resumed(tmp_path):
    """From the first step, and from the last ones, of which one is evaluated."""
    stopping = {"patience": 1, "eval_every": 2, "epochs": 20}
    whole = run(checkpoint_dir=tmp_path / "all", save_every=1, keep=None, **stopping)
    last = max(int(path.name) for path in (tmp_path / "all").iterdir())
    assert int(whole[0].step) < last < 100
    assert last % 2 == 0
    for step in (1, last - 1, last):
        folder = only(tmp_path / "all", step, tmp_path / str(step))
        same(run(checkpoint_dir=folder, save_every=10**6, **stopping), whole)


@pytest.mark.slow
def test_without_keep_best_the_last_state_is_returned_also_after_a_resume(tmp_path):
    losses = iter(range(100))
    evaluated = {"eval_fn": lambda state: {"loss": next(losses)}, "eval_every": 5, "keep_best": False}
    run(checkpoint_dir=tmp_path, epochs=4, **evaluated)
    with pytest.raises(CheckpointError, match="'keep_best': False}, but here it is .*'keep_best': True}"):
        run(checkpoint_dir=tmp_path)
    state, _ = run(checkpoint_dir=tmp_path, **LAST)
    assert int(state.step) == 50


@pytest.mark.slow
def test_other_files_in_the_folder_stay(tmp_path):
    """Also those that are named like a checkpoint."""
    for name in ("1", "007", "99", "latest", "6"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text(name)
    (tmp_path / "8").write_text("mine")
    (tmp_path / ".saving-file").write_text("")
    same(run(checkpoint_dir=tmp_path, keep=1), run())
    for name in ("1", "007", "99", "latest", "6"):
        assert (tmp_path / name / "mine").read_text() == name
    assert {path.name for path in tmp_path.iterdir()} == {"1", "007", "99", "latest", "6", "8", "50"}


@some("scan", [False, True], 0)
def test_sizes_may_be_numpy_s(tmp_path, scan):
    sizes = {name: np.int64(3) for name in ("save_every", "eval_every", "keep", "patience")}
    run(epochs=1, scan=scan, checkpoint_dir=tmp_path, log=tmp_path / "log.jsonl", **sizes)


@pytest.mark.slow
def test_a_run_goes_on_to_more_epochs(tmp_path):
    run(checkpoint_dir=tmp_path, epochs=3)
    same(run(checkpoint_dir=tmp_path, epochs=10), run())


def test_checkpoints_appear_when_they_are_asked_for(tmp_path):
    run(checkpoint_dir=tmp_path, save_every=4, keep=3, epochs=3)
    assert {path.name for path in tmp_path.iterdir()} == {"8", "12", "15"}
    run(checkpoint_dir=tmp_path / "epochs", epochs=3, keep=2)
    assert {path.name for path in (tmp_path / "epochs").iterdir()} == {"10", "15"}


@some("impl", ["philox4x32", "threefry4x32", "rbg"], 0)
def test_every_kind_of_key_is_resumed(tmp_path, impl):
    whole = run(linen_state(impl=impl), epochs=2)
    run(linen_state(impl=impl), epochs=1, checkpoint_dir=tmp_path)
    same(run(linen_state(impl=impl), epochs=2, checkpoint_dir=tmp_path), whole)
    assert str(jax.random.key_impl(whole[0].key)) == impl


def test_a_key_of_another_kind_is_refused(tmp_path):
    """Both have two words, so that nothing but the stored implementation tells them apart."""
    run(linen_state(impl="threefry2x32"), epochs=1, checkpoint_dir=tmp_path)
    other = linen_state().replace(
        key=jax.random.wrap_key_data(jax.random.key_data(linen_state().key), impl="philox4x32")
    )
    with pytest.raises(CheckpointError, match=r"key is threefry2x32 key\[\] there and philox4x32 key\[\] here"):
        run(other, checkpoint_dir=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": lambda: linen_state(5)}, "a run with another root key"),
        ({"batch_size": 10}, "batch_size 8, but here it is 10"),
        ({"state": lambda: linen_state().replace(step=jnp.int32(5))}, "start 0, but here it is 5"),
        ({"state": lambda: linear_state()}, r"is float32\[16\] there and missing here"),
        ({"resume": False}, "write resume=True"),
        ({"epochs": 0}, "is beyond step 0, where epochs=0 ends: write more epochs"),
    ],
)
def test_another_run_s_checkpoint_is_refused(tmp_path, change, message):
    run(epochs=1, checkpoint_dir=tmp_path)
    with pytest.raises(CheckpointError, match=message):
        run(checkpoint_dir=tmp_path, **change | ({"state": change["state"]()} if "state" in change else {}))
    same(run(checkpoint_dir=tmp_path, epochs=2), run(epochs=2))


def damages(folder):
    """Every file of a checkpoint cut short, with one bit turned over, and removed."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        middle = len(content) // 2
        yield path, content[:middle]
        if content:
            yield path, content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
        yield path, None


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(saved, tmp_path):
    folder, whole, setting = saved
    count = 0
    for path, content in damages(folder / "8"):
        if content == path.read_bytes():
            continue
        target = tmp_path / str(count)
        only(folder, 8, only(folder, 7, target))
        damaged = target / path.relative_to(folder)
        damaged.unlink() if content is None else damaged.write_bytes(content)
        go_on = count % 10 == 0
        with pytest.warns(UserWarning, match=rf"8: .*; training resumes from .*{target.name}/7"):
            found = run(checkpoint_dir=target, keep=1, **setting) if go_on else storage.newest(target)
        if go_on:
            same(found, whole)
        else:
            assert found[0] == target / "7"
        assert {path.name for path in target.iterdir()} == {"10" if go_on else "7", "8.broken"}
        count += 1
    assert count > 20


def test_a_run_without_a_whole_checkpoint_does_not_start_anew(tmp_path):
    run(epochs=2, checkpoint_dir=tmp_path)
    for step in (5, 10):
        (tmp_path / str(step) / "run.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole .*give another checkpoint_dir"):
        run(checkpoint_dir=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"5", "10"}


@pytest.mark.slow
def test_what_a_killed_process_left_is_removed(tmp_path):
    run(epochs=2, checkpoint_dir=tmp_path)
    shutil.copytree(tmp_path / "10", tmp_path / ".saving-15")
    (tmp_path / "5").rename(tmp_path / ".saving-removed-5")
    same(run(checkpoint_dir=tmp_path), run())
    assert {path.name for path in tmp_path.iterdir()} == {"40", "45", "50"}


@contextlib.contextmanager
def largest_file(size):
    """Let no file grow beyond a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def wide_state():
    return TrainState.create(params={"w": jax.random.normal(key(3), (6, 20000))}, tx=LINEAR_TX, key=key())


# orbax's writing threads may still report to an event loop that it has closed by then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_named_and_the_checkpoint_before_it_used(tmp_path):
    step, setting = make_train_step(linear_loss), {"batch_size": 8, "progress": False}
    whole = fit(wide_state(), step, X, epochs=4, **setting)
    fit(wide_state(), step, X, epochs=2, checkpoint_dir=tmp_path, **setting)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with largest_file(50_000), pytest.raises(CheckpointError, match=r"step 15 could not be saved .*that of step 10"):
        fit(wide_state(), step, X, epochs=4, checkpoint_dir=tmp_path, **setting)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    same(fit(wide_state(), step, X, epochs=4, checkpoint_dir=tmp_path, **setting), whole)


@pytest.mark.slow
def test_a_folder_that_can_t_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file can't be written to .* give a folder that can"):
        run(checkpoint_dir=tmp_path / "file")
    folder = tmp_path / "folder"

    def take_away(state, record):
        if record["step"] == 10:
            folder.rename(tmp_path / "aside")
            folder.write_text("")

    with pytest.raises(CheckpointError, match="step 10 could not be saved"):
        run(checkpoint_dir=folder, eval_every=5, callbacks=[take_away])
    folder.unlink()
    (tmp_path / "aside").rename(folder)
    same(run(checkpoint_dir=folder, eval_every=5), run(eval_every=5))


def test_a_second_run_in_a_folder_says_so_and_removes_nothing(tmp_path):
    folder, said = tmp_path / "run", []

    def second(state, record):
        (folder / ".saving-99").mkdir()  # what the first may be writing
        with pytest.raises(CheckpointError, match="is in use by another run"):
            run(checkpoint_dir=folder)
        said.append((folder / ".saving-99").exists())
        (folder / ".saving-99").rmdir()

    same(run(checkpoint_dir=folder, epochs=1, eval_every=100, callbacks=[second]), run(epochs=1, eval_every=100))
    assert said == [True]


def test_ctrl_c_saves_and_raises(tmp_path, capsys):
    whole = run()
    with pytest.raises(KeyboardInterrupt, match=r"interrupted at step 18 of 50; .* is saved in .*: make the same call"):
        run(step=interrupting(18), checkpoint_dir=tmp_path, save_every=100)
    assert [path.name for path in tmp_path.iterdir()] == ["18"]
    history = json.loads((tmp_path / "18" / "run.json").read_text())["run"]["history"]
    assert history == {name: values[: len(history[name])] for name, values in whole[1].items()}
    assert len(history["loss"]) == 3
    assert capsys.readouterr() == ("", "")
    same(run(checkpoint_dir=tmp_path), whole)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_without_a_checkpoint_hands_the_state_to_the_callbacks():
    whole, history = run(**LAST)
    calls = []
    with pytest.raises(KeyboardInterrupt, match="at step 18 of 50; .* is saved nowhere: give a checkpoint_dir"):
        run(step=interrupting(18), callbacks=[lambda *call: calls.append(call)], **LAST)
    half, last = calls[-1]
    assert last == {"step": 18, "epoch": 4, "interrupted": True}
    assert [record["step"] for _, record in calls] == [5, 10, 15, 18]
    rest, second = run(half, epochs=7, **LAST)
    equal(rest, whole)
    assert second["loss"][1:] == history["loss"][4:]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["eval_fn", "callback"])
def test_an_interrupt_in_the_user_s_code_saves_and_raises(tmp_path, place):
    calls = []

    def interrupted(*_):
        calls.append(0)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return evaluate(_[0])

    changes = {"eval_fn": interrupted} if place == "eval_fn" else {"callbacks": [interrupted]}
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint_dir=tmp_path, save_every=100, **changes)
    same(run(checkpoint_dir=tmp_path), run())


def test_no_state_with_a_loss_that_is_not_finite_is_saved(tmp_path):
    def loss(params, batch, key):
        return jnp.mean(batch @ params["w"]) + jnp.where(params["w"][0] < -0.45, jnp.nan, 0.0), {}

    state = TrainState.create(params={"w": jnp.zeros(6)}, tx=LINEAR_TX, key=key())
    with pytest.raises(NonFiniteLossError, match="the loss of step 5 is nan"):
        fit(
            state, make_train_step(loss), np.ones((40, 6), np.float32), epochs=9, batch_size=8, progress=False,
            checkpoint_dir=tmp_path, save_every=4,
        )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["4"]


@pytest.mark.slow
def test_other_arrays_that_a_state_may_hold_are_resumed(tmp_path):
    """Keys, empty arrays, and dtypes that NumPy has not."""

    def loss(params, batch, key, noise):
        drawn = jax.random.normal(noise["keys"][1], (6,))
        new = {"keys": jax.vmap(jax.random.fold_in, (0, None))(noise["keys"], 1)}
        return jnp.mean((batch @ (params["w"].astype(jnp.float32) + drawn)) ** 2), {}, {"noise": noise | new}

    def state():
        noise = {"keys": jax.random.split(key(7, "philox4x32"), 3), "none": jnp.zeros((0, 3)), "flag": jnp.array(True)}
        return TrainState.create(
            params={"w": jnp.ones(6, jnp.bfloat16)},
            tx=LINEAR_TX,
            key=key(),
            collections={"noise": noise},
        )

    def train(epochs, **more):
        return fit(state(), make_train_step(loss), X, epochs=epochs, batch_size=8, progress=False, **more)

    train(2, checkpoint_dir=tmp_path, save_every=3)
    same(train(4, checkpoint_dir=tmp_path), train(4))
    shutil.rmtree(tmp_path / "20")
    same(train(4, checkpoint_dir=tmp_path), train(4))


def test_the_record_is_json_and_the_arrays_are_orbax_s(tmp_path):
    import orbax.checkpoint as ocp

    state, history = run(epochs=2, checkpoint_dir=Path(tmp_path), patience=None, keep_best=False)
    record = json.loads((tmp_path / "10" / "run.json").read_text())["run"]
    assert record["history"] == history
    assert record["leaves"]["['state'].key"] == {"shape": [], "dtype": "threefry2x32 key"}
    with ocp.PyTreeCheckpointer() as checkpointer, pytest.warns(UserWarning, match="Sharding info not provided"):
        arrays = checkpointer.restore(tmp_path / "10" / "arrays")
    np.testing.assert_array_equal(arrays["['state'].params['Dense_1']['bias']"], state.params["Dense_1"]["bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"save_every": 5, "checkpoint_dir": None}, "pass a checkpoint_dir"),
        ({"save_every": 0}, "save_every is 0"),
        ({"keep": 0}, "keep is 0"),
    ],
)
def test_sizes_that_do_not_fit(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run(**({"checkpoint_dir": tmp_path} | change))
