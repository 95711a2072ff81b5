"""Where a bar of progress is shown."""

import builtins

import jax
import jax.numpy as jnp
import pytest
from runs import STEP, X, Y, linen_state

import jdrop
from jdrop.training import fit, tensorboard


def shown(capsys):
    fit(linen_state(), STEP, (X, Y), epochs=1, batch_size=8)
    jdrop.mc.mc_dropout_batches(lambda k, x: jdrop.dropout(k, x, 0.5), jax.random.key(0), [jnp.ones(9)] * 2, 5)
    return capsys.readouterr()


def test_a_notebook_without_ipywidgets_shows_bars(capsys, monkeypatch, recwarn):
    """As text on standard error; rich alone would warn, and draw nothing."""
    monkeypatch.setattr(builtins, "get_ipython", type("ZMQInteractiveShell", (), {}), raising=False)
    out, err = shown(capsys)
    assert out == ""
    assert "epoch 1/1" in err
    assert "Monte Carlo" in err
    assert "2/2" in err or "100%" in err
    assert not recwarn.list


def test_a_file_gets_no_bar_of_batches(capsys):
    _, err = shown(capsys)
    assert "Monte Carlo" not in err


@pytest.mark.slow
def test_of_several_processes_the_first_writes_for_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    write = tensorboard(tmp_path / "run")
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    write(None, {"step": 1, "loss": 0.5})
    assert not (tmp_path / "run").exists()
