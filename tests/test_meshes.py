"""`fit` on a mesh is `fit` on one device: the masks to the bit, the numbers to the tolerance of float32."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sharded import LOSS, STEP, X, Y, alike, digests, evaluate, laid_out, make_loss, make_mesh, make_state, train
from tiers import some

from jdrop.training import fit, make_train_step, vmap_seeds
from jdrop.training._data import gather

SHAPES = [(1, 1), (8, 1), (4, 2), (2, 4), (1, 8)]
both = some("scan", [False, True], 0, ids=["steps", "scan"])


@functools.cache
def one_device(**changes):
    return train(eval_fn=evaluate, **changes)


def layout(state):
    return [(leaf.sharding, leaf.shape) for leaf in jax.tree.leaves(state)]


def test_one_device_draws_numpy_s_masks():
    assert one_device()[1]["digest"] == digests()
    assert len(set(digests())) == 4


@both
@some("shape", SHAPES, 2, ids=str)
def test_a_mesh_is_one_device(shape, scan, caplog):
    """Traced and compiled once; the state stays where it was laid out, in the buffers that it had."""
    mesh, traces, seen = make_mesh(shape), [], []

    def counted(*arguments):
        traces.append(0)
        return LOSS(*arguments)

    state = laid_out(make_state(), mesh)
    with jax.log_compiles(), caplog.at_level(logging.WARNING, "jax"):
        run = train(
            state, make_train_step(counted), mesh, scan=scan, eval_fn=evaluate,
            callbacks=[lambda state, record: seen.append((state, layout(state)))],
        )  # fmt: skip
    alike(run, one_device())
    compiled = [record.getMessage().split()[1] for record in caplog.records if record.msg.startswith("Compiling")]
    assert compiled.count("jit(_loop)" if scan else "jit(step)") == 1
    assert len(traces) == 1
    assert len(seen) == 4
    assert all(now == layout(run[0]) for _, now in seen)
    assert run[0].params["first"]["w"].sharding.spec == PartitionSpec(None, "model")
    assert all(leaf.sharding.mesh == mesh for leaf in jax.tree.leaves(run[0]))
    of_params = jax.tree.map(lambda leaf: leaf.sharding, run[0].params)
    assert jax.tree.map(lambda leaf: leaf.sharding, run[0].opt_state[0].trace) == of_params
    for state, _ in seen[:-1]:
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


@pytest.mark.slow
@both
def test_a_state_that_is_laid_out_in_part_stays_so(scan):
    """XLA would rather have the bias where its kernel is."""
    mesh, state = make_mesh((4, 2)), make_state()
    kernel = NamedSharding(mesh, PartitionSpec(None, "model"))
    first = state.params["first"]
    first = first | {"w": jax.device_put(first["w"], kernel)}
    state = state.replace(params=state.params | {"first": first})
    run = train(state, mesh=mesh, scan=scan, eval_fn=evaluate)
    alike(run, one_device())
    for path, leaf in jax.tree_util.tree_leaves_with_path(run[0]):
        is_kernel = "params['first']['w']" in jax.tree_util.keystr(path)
        assert leaf.sharding == (kernel if is_kernel else NamedSharding(mesh, PartitionSpec()))


@pytest.mark.slow
@both
def test_xla_gets_the_batch_as_it_was_asked_for(scan):
    mesh, seen = make_mesh((4, 2)), []

    def loss(params, batch, key):
        jax.debug.inspect_array_sharding(batch[0], callback=seen.append)
        return LOSS(params, batch, key)

    train(step=make_train_step(loss), mesh=mesh, spec=("data",), scan=scan, epochs=1)
    assert seen
    assert all(sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec("data")), 2) for sharding in seen)


@both
@some("in_context", [False, True], 1, ids=["", "set_mesh"])
def test_explicit_axes(scan, in_context):
    mesh = make_mesh((4, 2), kind=AxisType.Explicit)
    seen = []

    def loss(params, batch, key):
        seen.append([jax.typeof(leaf).sharding.spec for leaf in (batch[0], params["first"]["w"])])
        return make_loss(NamedSharding(mesh, PartitionSpec("data", None)))(params, batch, key)

    def training():
        return train(laid_out(make_state(), mesh), make_train_step(loss), mesh, scan=scan)

    if in_context:
        with jax.set_mesh(mesh):
            run = training()
    else:
        run = training()
    alike(run, train())
    assert seen == [[PartitionSpec("data", None), PartitionSpec(None, "model")]]


@some(
    ("shape", "names", "scan"), [((8,), ("seed",), False), ((4, 2), ("seed", "data"), True)], 0, ids=["seeds", "scan"]
)
@pytest.mark.slow
def test_seeds_lie_over_devices(shape, names, scan, tmp_path):
    mesh = make_mesh(shape, names)
    over_seeds = NamedSharding(mesh, PartitionSpec("seed"))
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(make_state, range(8)))
    step, evaluation = vmap_seeds(STEP), vmap_seeds(evaluate)
    for epochs in (2, 4):
        states, history = train(
            jax.device_put(stack, over_seeds), step, mesh, names, scan=scan, epochs=epochs, checkpoint_dir=tmp_path,
            eval_fn=evaluation, patience=50, keep_best=True,
        )  # fmt: skip
    assert all(leaf.sharding == over_seeds for leaf in jax.tree.leaves(states))
    for seed in (0, 3, 7):
        state = jax.tree.map(lambda leaf, seed=seed: leaf[seed], states)
        of_seed = {name: [values[seed] for values in of_epochs] for name, of_epochs in history.items()}
        alike((state, of_seed), train(make_state(seed), eval_fn=evaluate, patience=50, keep_best=True))


@pytest.mark.slow
@both
def test_a_run_goes_on_on_another_mesh(scan, tmp_path):
    for epochs, shape in enumerate([None, (2, 4)], 3):
        mesh = shape and make_mesh(shape)
        state = make_state() if mesh is None else laid_out(make_state(), mesh)
        run = train(state, mesh=mesh, scan=scan, epochs=epochs, eval_fn=evaluate, checkpoint_dir=tmp_path)
        if mesh is not None:
            split = NamedSharding(mesh, PartitionSpec(None, "model"))
            assert run[0].params["first"]["w"].sharding.is_equivalent_to(split, 2)
    alike(run, one_device())


@pytest.mark.slow
@both
def test_doubles_and_longs_and_files(scan, tmp_path):
    """What NumPy makes by default is read as JAX reads it, and memory-mapped arrays as others."""
    mesh, run = make_mesh((4, 2)), train(mesh=make_mesh((4, 2)), scan=scan)
    dtypes = []

    def loss(params, batch, key):
        dtypes.extend(leaf.dtype for leaf in batch)
        return LOSS(params, batch, key)

    data = (X.astype(np.float64), Y.astype(np.int64))
    other = train(step=make_train_step(loss), mesh=mesh, data=data, scan=scan)
    assert dtypes == [np.float32, np.int32]
    for number, array in enumerate(data):
        np.save(tmp_path / f"{number}.npy", array)
    files = [np.load(tmp_path / f"{number}.npy", mmap_mode="r") for number in (0, 1)]
    third = train(mesh=mesh, data=tuple(files), scan=scan)
    for one in (other, third):
        assert one[1] == run[1]
        jax.tree.map(np.testing.assert_array_equal, one[0].params, run[0].params)


@pytest.mark.slow
def test_each_array_of_the_data_has_a_layout_of_its_own():
    mesh = make_mesh((4, 2))
    data = {"x": X, "of": {"y": Y}}
    sharding = {
        "x": NamedSharding(mesh, PartitionSpec("data", "model")),
        "of": NamedSharding(mesh, PartitionSpec(("data", "model"))),
    }
    step = make_train_step(lambda params, batch, key: LOSS(params, (batch["x"], batch["of"]["y"]), key))
    for scan in (False, True):
        run = fit(
            make_state(), step, data, epochs=4, batch_size=16, progress=False, sharding=sharding, scan=scan,
            eval_fn=evaluate,
        )  # fmt: skip
        alike(run, one_device())


class Recorder:
    """An array that remembers which rows of it were read."""

    def __init__(self, array):
        self.array, self.shape, self.rows = array, array.shape, []

    def __getitem__(self, rows):
        self.rows += rows.tolist()
        return self.array[rows]


@pytest.mark.parametrize(("shape", "spec"), [((8, 1), ("data",)), ((2, 4), ("data", "model")), ((4, 2), (None,))])
def test_a_batch_lies_where_it_should_and_no_row_is_read_twice(shape, spec):
    array, mesh = np.arange(40.0 * 8).reshape(40, 8).astype(np.float32), make_mesh(shape)
    sharding, rows = NamedSharding(mesh, PartitionSpec(*spec)), np.array([3, 1, 7, 0, 39, 4, 20, 5])
    recorder = Recorder(array)
    batch = gather(recorder, rows, sharding)
    assert batch.sharding == sharding
    for shard in batch.addressable_shards:
        np.testing.assert_array_equal(np.asarray(shard.data), array[rows][shard.index])
    assert sorted(recorder.rows) == sorted(rows.tolist())


@pytest.mark.parametrize(
    ("sharding", "message"),
    [
        (PartitionSpec("data"), r"sharding is P.*write sharding=NamedSharding\(mesh"),
        (jax.sharding.SingleDeviceSharding(jax.devices()[0]), r"sharding is SingleDeviceSharding"),
        (
            tuple(NamedSharding(make_mesh(shape), PartitionSpec("data")) for shape in ((8, 1), (4, 2))),
            "sharding is .*over the devices of all processes",
        ),
    ],
)
def test_a_sharding_of_another_kind(sharding, message):
    with pytest.raises(TypeError, match=message):
        fit(make_state(), STEP, (X, Y), epochs=1, batch_size=16, sharding=sharding, progress=False)


def test_a_batch_that_does_not_fit_the_mesh():
    with pytest.raises(ValueError, match=r"partitioned 8 times, but the dimension size is 12"):
        train(mesh=make_mesh((8, 1)), batch_size=12)
