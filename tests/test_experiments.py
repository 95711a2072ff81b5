"""The experiments as a user runs them: as commands."""

import csv
import gzip
import shutil
import struct
import tracemalloc
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from commands import refused, run

from experiments.__main__ import main
from experiments.common import idx as idx_files
from experiments.common import images, networks, ratios, tables, timing
from experiments.crash_test import kill
from experiments.existing_models import main as existing
from experiments.speed import gpu, peers
from experiments.speed import main as speed
from experiments.uncertainty import main as uncertainty
from experiments.uncertainty import passes


def test_help_lists_the_experiments():
    result = run("--help")
    assert result.returncode == 0
    for name in ("active_learning", "articles", "crash_test", "digits", "existing_models", "meshes", "mnist", "speed"):
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize("name", ["nope", "common", "digit", "__main__"])
def test_an_unknown_name_exits_with_2_and_the_list(name):
    status, said = refused(name)
    assert status == 2
    assert f"no experiment {name!r}" in said
    assert "\n  digits " in said


def test_one_topic_of_uncertainty(tmp_path, monkeypatch):
    asked = []
    topics = {name: lambda root, out, quick, name=name: asked.append((name, out)) for name in uncertainty.TOPICS}
    monkeypatch.setattr(uncertainty, "TOPICS", topics)
    assert main(["uncertainty", "--topic", "regression", "--out", str(tmp_path)]) == 0
    assert asked == [("regression", tmp_path)]


@pytest.mark.slow
def test_the_network_whose_passes_are_timed_has_a_prefix_without_dropout():
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1))
    cases = passes.jax_cases(jax.random.key(1), networks.Convolutional, x, 50)
    prediction = cases[passes.OURS].function(*cases[passes.OURS].arguments)
    mean, variance = cases[passes.FLAX].function()
    assert prediction.mean.shape == mean.shape == (2, 10)
    # Both estimate one mean: 5 standard errors of the difference, over 20 numbers, fail once in 80,000.
    assert (np.abs(prediction.mean - mean) < 5 * np.sqrt((prediction.variance + variance) / 50)).all()


def test_estimates_and_tables(tmp_path):
    assert str(tables.Estimate(0.00061, 0.00004)) == "0.00061 ± 0.00004"
    assert str(tables.Estimate(2.0, 0.0)) == "2.0000 ± 0.0000"
    value = tables.estimate([1.0, 2.0, 4.0])
    assert value.mean == pytest.approx(7 / 3)
    assert value.error == pytest.approx(np.std([1, 2, 4], ddof=1) / np.sqrt(3))
    text = tables.save_table([{"a": "x", "b": value}], tmp_path, "t")
    assert text.splitlines()[2] == "| x | 2.3333 ± 0.8819 |"
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == "a,b,b standard error"
    text = tables.save_table([{"a": "|x|", "b": value}, {"a": "y", "b": "-"}], tmp_path, "t")
    assert text.splitlines()[2].startswith(r"| \|x\| | 2.3333")
    assert (tmp_path / "t.csv").read_text().splitlines()[2] == "y,-,-"


@pytest.mark.slow
def test_an_idx_file_takes_no_more_memory_than_its_header_says(tmp_path):
    """Of up to a gigabyte of zeros behind a header that says three: in one gzip member, in many, in a sparse file."""
    header, million = idx(np.zeros(0))[:4] + struct.pack(">I", 3), bytes(1 << 20)
    member = gzip.compress(million)
    with (tmp_path / "one.gz").open("wb") as file, gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as zipped:
        zipped.write(header)
        for _ in range(256):
            zipped.write(million)
    (tmp_path / "many.gz").write_bytes(gzip.compress(header) + member * 1024)
    with (tmp_path / "sparse").open("wb") as file:
        file.write(header)
        file.truncate(1 << 30)
    for name in ("one.gz", "many.gz", "sparse"):
        tracemalloc.start()
        with pytest.raises(ValueError, match="holds .* elements, but its shape"):
            idx_files.read_idx(tmp_path / name, (3,))
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
        tracemalloc.stop()


def test_labels_of_more_classes_than_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "FILES", {name: (5, *shape[1:]) for name, shape in images.FILES.items()})
    for name, shape in images.FILES.items():
        (tmp_path / name).write_bytes(idx(np.full(shape, 9)))
    assert images.load_mnist(tmp_path).train[1].tolist() == [9] * 5
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([1, 2, 10, 3, 4])))
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte has the label 10, but MNIST has 10 classes"):
        images.load_mnist(tmp_path)


def test_an_output_that_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "it").write_text("kept")
    monkeypatch.setenv("JDROP_DATA", "")
    status, said = refused("mnist", "--out", str(tmp_path / "it"))
    assert status == 2
    assert f"--out is {tmp_path / 'it'}, which is a file: name a folder" in said
    status, said = refused("mnist")
    assert status == 1
    assert "no folder was named" in said


def idx(array) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def test_idx_files_gzipped_or_not(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for name, content in (("plain", idx(array)), ("zipped.gz", gzip.compress(idx(array)))):
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(
            idx_files.read_idx(idx_files.find_idx(tmp_path, name.removesuffix(".gz")), (2, 3, 4)), array
        )
    assert idx_files.find_idx(tmp_path, "absent") is None


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
        idx_files.read_idx(tmp_path / "it", (2,))
    (tmp_path / "it.gz").write_bytes(gzip.compress(content)[:-3])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        idx_files.read_idx(tmp_path / "it.gz", (2,))


@pytest.mark.parametrize("experiment", ["mnist", "articles"])
def test_an_experiment_says_which_files_it_misses(tmp_path, monkeypatch, experiment):
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"")
    monkeypatch.setenv("JDROP_DATA", "elsewhere")
    given = refused(experiment, "--data-dir", str(tmp_path))
    monkeypatch.setenv("JDROP_DATA", str(tmp_path))
    for status, said in (given, refused(experiment)):
        assert status == 1
        assert f"looked in {tmp_path}" in said
        for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"):
            assert f"{name}  (missing)" in said
        assert "t10k-labels-idx1-ubyte\n" in said
        assert "--data-dir or the environment variable JDROP_DATA" in said


def test_the_pooling_of_mnist_is_flax_s():
    x = jax.random.normal(jax.random.key(0), (3, 8, 6, 5))

    def flax(x):
        return nn.max_pool(x, (2, 2), (2, 2))

    np.testing.assert_array_equal(networks.max_pool(x), flax(x))
    np.testing.assert_array_equal(*(jax.grad(lambda x, f=f: (f(x) ** 2).sum())(x) for f in (networks.max_pool, flax)))


class Scripted:
    """A clock that every call of a case named `name` advances by the next of its `seconds`."""

    def __init__(self, **seconds):
        self.now, self.order, self.seconds = 0.0, [], {name: iter(values) for name, values in seconds.items()}

    def __call__(self):
        return self.now

    def case(self, name):
        def call():
            self.now += next(self.seconds[name])
            self.order.append(name)

        return timing.Case(call)


def test_a_time_is_the_best_of_its_calls():
    clock = Scripted(a=[3.0, 1.0, 2.0, 0.5])
    assert timing.best_of(clock.case("a"), 3, clock=clock) == 1.0
    clock = Scripted(a=[3.0, 1.0, 0.5, 2.0])
    assert timing.best_of(clock.case("a"), 2, queued=2, clock=clock) == 1.25


def test_a_result_is_waited_for_once_after_the_queued_calls():
    waited = []
    assert timing.best_of(timing.Case(lambda x: x + 1, (1,), waited.append), 2, queued=5) >= 0
    assert waited == [2, 2]


def test_times_are_the_medians_of_interleaved_blocks():
    # The first call compiles; the second says how many calls make a block: at least three, here five of `b`.
    clock = Scripted(a=[99, 4, *(6, 5, 6), *(1, 2, 3), *(8, 9, 7)], b=[99, 2, *[3] * 5, *(4, 4, 4, 4, 1), *[2] * 5])
    times = timing.measure({name: clock.case(name) for name in "ab"}, blocks=3, seconds=10, clock=clock)
    assert times == {"a": 5, "b": 2}
    assert "".join(clock.order) == "aabb" + 3 * ("aaa" + "bbbbb")


def test_figures_and_their_summary():
    more, less = ratios.at_least(10, 20), ratios.at_most(6, 3)
    assert [more.met(value) for value in (9.9, 10, 19.9, 20)] == ["no", "yes", "yes", "aim"]
    assert [less.met(value) for value in (6.1, 6, 3.1, 3)] == ["no", "yes", "yes", "aim"]
    assert ratios.at_least(1).met(5) == "yes"
    rows = [ratios.record("faster", value, more, shape=(n,)) for n, value in enumerate((25, 9, 12.34567))]
    rows += [ratios.record("slower", value, less, theirs=("p", 0.0015)) for value in (2, 7)]
    rows.append(ratios.record("faster than q", "not installed"))
    assert rows[2]["figure"] == 12.35
    assert rows[3]["peer ms"] == 1.5
    faster, slower, absent = ratios.summary(rows)
    assert faster == {"what": "faster", "at least": "≥ 10", "aim": "≥ 20"} | {
        "figures": 3, "met": 2, "aim met": 1, "median": 12.35, "worst": 9, "where": "(1,)"
    }  # fmt: skip
    assert (slower["met"], slower["aim met"], slower["worst"], slower["where"]) == (1, 1, 7, "p")
    assert (absent["figures"], absent["worst"]) == (0, "not installed")


def test_a_model_that_exists_must_stay_what_it_was():
    before = {"a": np.ones(3, np.float32)}
    existing.check("m", before, {"a": np.zeros(3, np.float32)})
    for after, message in (
        ({"b": np.ones(3, np.float32)}, "another tree"),
        ({"a": np.ones(4, np.float32)}, r"m: float32 \(3,\) became float32 \(4,\)"),
        ({"a": np.ones(3, np.float16)}, "became float16"),
        ({"a": np.float32([1, np.nan, 1])}, "not finite"),
    ):
        with pytest.raises(AssertionError, match=message):
            existing.check("m", before, after)


@pytest.mark.slow
def test_the_functions_that_speed_compares_drop():
    x = np.ones(4096, np.float32)
    for make in (*peers.OURS.values(), *(peer.make for peer in peers.PEERS if peer.installed)):
        if make is not peers.torch:
            with jax.numpy_dtype_promotion("standard"):  # which some peers need
                y, gradient = jax.jit(speed.forward_backward(make(0.25)))(3 * x, jax.random.key(0), x)
            assert 0.7 < np.mean(y != 0) < 0.8
            np.testing.assert_allclose(gradient, 3 * y, rtol=1e-6)
            np.testing.assert_allclose(y[y != 0], 4 / 3, rtol=1e-6)


@pytest.mark.slow
def test_the_gpu_s_figures_in_small():
    with jax.numpy_dtype_promotion("standard"):  # which Flax's layers need for bfloat16
        rows = list(gpu.gpu(quick=True))
    names = [row["what"] for row in rows]
    assert all(name.endswith("[cpu]") for name in names)  # so that none passes for a GPU's
    assert [row["figure"] for row in rows if row["what"].startswith("masks")] == [1.0] * 3
    for direction in ("forward", "backward"):
        for implementation in ("default", "xla"):
            assert names.count(f"{direction}, {implementation}: times a device copy [cpu]") == 2
            assert names.count(f"{direction}, {implementation}: times faster than flax.linen, rbg key [cpu]") == 2
    for what in (
        "transformer block: times the step without",
        "six rematerialised blocks: memory",
        "Monte Carlo: times a",
    ):
        assert sum(name.startswith(what) for name in names) == 2


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["optimizer"])
def test_crash_test_catches_a_fault(fault, tmp_path):
    result = run("crash_test", "--quick", "--kills", "1", "--fault", fault, "--out", str(tmp_path))
    assert result.returncode == 1, result.stdout + result.stderr
    assert "run 0, steps, best state: state ." in result.stdout
    for name in (".params['Dense_0']['kernel']", ".opt_state", ".collections", "history loss"):
        assert name in result.stdout
    (*_, total) = csv.DictReader((tmp_path / "crash_test.csv").read_text().splitlines())
    assert total["runs that differ"] == "1"
    kept = Path(result.stdout.split("their files are in ")[1].strip())
    assert (kept / "run 0" / "checkpoints").is_dir()
    shutil.rmtree(kept)


@pytest.mark.slow
def test_crash_test_tells_why_a_process_failed(tmp_path):
    with pytest.raises(kill.Failure, match=r"ended with 1: (?s:.*)None is not a valid value"):
        kill.attempt(kill.processes(), tmp_path, ("scan, best state", None, 1, tmp_path, True, None))


def test_the_differences_of_two_runs():
    one = {"state": {"a": "1", "b": "2"}, "history": {"loss": [1.0, float("inf")]}}
    assert kill.differences(one, one) == []
    other = {"state": {"a": "1", "b": "3", "c": "4"}, "history": {"loss": [1.0]}}
    assert kill.differences(one, other) == ["state b", "state c", "history loss"]
