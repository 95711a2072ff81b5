"""Several processes that train together are one process: the masks to the bit, the numbers to float32's tolerance."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sharded import X, Y, alike, digests, evaluate, laid_out, make_mesh, make_state, train

TESTS = Path(__file__).parent
DEADLOCK = 300  # seconds, where some 30 are needed


def together(folder, *parts):
    """Two processes with two devices each do the parts; what each printed, and the results {part: of each process}."""
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", Y)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    variables = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", TESTS / "process.py", str(index), "2", port, folder, *parts],
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        printed = [process.communicate(timeout=DEADLOCK) for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
        pytest.fail(f"a deadlock: {[process.communicate() for process in processes]}")
    assert [process.returncode for process in processes] == [0, 0], printed
    files = {part: [folder / f"{part}-{index}.json" for index in range(2)] for part in parts}
    return printed, {part: [json.loads(file.read_text()) for file in of_part] for part, of_part in files.items()}


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    parts = ("batches", "split", "split_scan", "own_rows", "no_room", "another_state", "no_sharding")
    printed, results = together(tmp_path, *parts)
    one, four = train(eval_fn=evaluate), train(mesh=make_mesh((4, 1)), eval_fn=evaluate)
    assert one[1]["digest"] == digests()
    for part in ("batches", "split", "split_scan"):
        assert results[part][0] == results[part][1]
        for other in (one, four):
            alike(results[part][0], other)
    alike(results["own_rows"][1], train(epochs=1))

    # Only the first process shows progress, and writes.
    assert ["epoch 4/4" in errors for _, errors in printed] == [True, False]
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [4, 8, 12, 16]
    assert {path.name for path in (tmp_path / "batches").iterdir()} == {"8", "12", "16"}

    for error, reason in zip(results["no_room"], ("Not a directory", "the first process has the reason")):
        assert "the checkpoint of step 8 could not be saved" in error
        assert reason in error

    for error in results["another_state"]:
        assert "not the same in all processes: make the state from the same key" in error
    for error in results["no_sharding"]:
        assert "sharding is None, but a NamedSharding of a batch over the devices of all processes" in error


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    options = {"eval_fn": evaluate}
    train(epochs=2, checkpoint_dir=tmp_path / "one", save_every=6, **options)
    (tmp_path / "one" / "8").rename(tmp_path / "aside")
    _, results = together(tmp_path, "going_on", "half", "seeds")
    whole = train(**options)
    alike(results["going_on"][0], whole)
    alike(train(checkpoint_dir=tmp_path / "half", **options), whole)
    for seed in range(4):
        numbers, history = results["seeds"][seed % 2]
        of_seed = {name: [values[seed] for values in of_epochs] for name, of_epochs in history.items()}
        alike(
            ([leaf[seed] for leaf in numbers], of_seed), train(make_state(seed), patience=50, keep_best=True, **options)
        )

    # And back on a mesh of this one process.
    mesh = make_mesh((1, 8))
    alike(train(laid_out(make_state(), mesh), mesh=mesh, checkpoint_dir=tmp_path / "one", **options), whole)


@pytest.mark.slow
def test_ctrl_c_at_different_steps_or_in_one_process_stops_all_at_one_step(tmp_path):
    _, results = together(tmp_path, "interrupted_both", "interrupted_one", "resumed")
    for part, folder, step in (("interrupted_both", "both", 4), ("interrupted_one", "only", 8)):
        assert all(numbers[0] == step for numbers, _ in results[part])
        assert (tmp_path / folder / str(step)).is_dir()
    whole = train(eval_fn=evaluate)
    alike(results["resumed"][0], whole)
    alike(train(eval_fn=evaluate, checkpoint_dir=tmp_path / "both"), whole)
