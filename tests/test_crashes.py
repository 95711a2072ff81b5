"""A process killed at any operation on files loses no checkpoint, and the next start trips over nothing.

Before each operation that the library or orbax asks of the file system, the folder is copied: the copy is what a
process killed there leaves. From each different copy the same call is made again.
"""

import contextlib
import io
import os
import shutil
import threading
import warnings

import pytest
from runs import STEP, X, Y, equal, evaluate, linen_state

from jdrop.training import _storage as storage
from jdrop.training import fit

OPERATIONS = [(os, name) for name in ("mkdir", "rename", "replace", "remove", "unlink", "rmdir", "fsync", "open")]
OPERATIONS += [(io, "open")]  # that of pathlib
SETTING = {"epochs": 3, "batch_size": 8, "eval_fn": evaluate, "eval_every": 7, "progress": False}
SETTING |= {"patience": 100, "keep_best": True}


def run(folder, keep=1, save_every=None):
    return fit(linen_state(), STEP, (X, Y), checkpoint_dir=folder, keep=keep, save_every=save_every, **SETTING)


def same(one, other):
    equal(one[0], other[0])
    assert one[1] == other[1]


def names(folder):
    return {path.name for path in folder.iterdir()}


def content(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@contextlib.contextmanager
def copies(monkeypatch, folder, target):
    """A list of copies of the folder, one for each of the different states that the context's operations find."""
    found, lock, copying = [], threading.RLock(), False

    def copy():
        new = target / str(len(found))
        # A file may go while it is copied, since tensorstore writes from threads of its own.
        with contextlib.suppress(shutil.Error):
            shutil.copytree(folder, new)
        if found and content(new) == content(found[-1]):
            shutil.rmtree(new)
        else:
            found.append(new)

    def after_a_copy(operation):
        def wrapped(*args, **kwargs):
            nonlocal copying
            with lock:
                if not copying:
                    copying = True
                    copy()
                    copying = False
            return operation(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        for module, name in OPERATIONS:
            patch.setattr(module, name, after_a_copy(getattr(module, name)))
        yield found


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The checkpoints of all three epochs, and what the run returned."""
    folder = tmp_path_factory.mktemp("saved")
    return folder, run(folder, keep=None)


@pytest.mark.slow
def test_a_kill_at_any_moment_of_a_run(saved, tmp_path, monkeypatch):
    """One checkpoint is kept, so that a removal before its time would leave none."""
    folder, whole = tmp_path / "run", saved[1]
    folder.mkdir()
    with copies(monkeypatch, folder, tmp_path) as found:
        same(run(folder), whole)
    newest, seen = 0, set()
    for copy in found:
        seen |= names(copy)
        assert max(storage.checkpoint_steps(copy), default=0) >= newest
        newest = max(storage.checkpoint_steps(copy), default=0)
        same(run(copy, save_every=15), whole)
        # Between the last save and its removal, nothing more is saved and so nothing more removed.
        assert names(copy) - ({"10"} if newest == 15 else set()) == {"15"}
    saving = {".saving-probe", ".saving-5", ".saving-10", ".saving-15", ".saving-removed-5", ".saving-removed-10"}
    assert seen == {"5", "10", "15"} | saving
    assert len(found) > 50


@pytest.mark.slow
def test_a_kill_at_any_moment_of_a_start_that_clears_up(saved, tmp_path, monkeypatch):
    (source, whole), folder = saved, tmp_path / "run"
    for name, left in {"5": ".saving-removed-5", "10": "10", "15": ".saving-15"}.items():
        shutil.copytree(source / name, folder / left)
    (folder / ".saving-probe").mkdir()
    with copies(monkeypatch, folder, tmp_path) as found:
        storage.prepare(folder)
        assert storage.newest(folder)[0].name == "10"
    for copy in found:
        same(run(copy, save_every=15), whole)
        assert names(copy) == {"15"}
    assert len(found) > 20


@pytest.mark.slow
def test_a_kill_at_any_moment_of_setting_damaged_checkpoints_aside(saved, tmp_path, monkeypatch):
    """Two are damaged, and one of that name was set aside before."""
    (source, whole), folder = saved, tmp_path / "run"
    shutil.copytree(source, folder)
    shutil.copytree(source / "15", folder / "15.broken")
    for step in ("10", "15"):
        (folder / step / "run.json").write_text("{}")
    with copies(monkeypatch, folder, tmp_path) as found, pytest.warns(UserWarning, match="training resumes from .*/5"):
        assert storage.newest(folder)[0].name == "5"
    for copy in found:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            same(run(copy, save_every=15), whole)
        (warning,) = caught
        assert "is set aside" in str(warning.message)
        assert names(copy) == {"15", "10.broken", "15.broken"}
    assert len(found) > 20
