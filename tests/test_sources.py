"""Data that are batches already, or examples behind an index: trained on, stopped and resumed."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import X, equal, linear_loss, linear_state, same
from tiers import some

from jdrop.training import fit, make_train_step, vmap_seeds

STEP = make_train_step(linear_loss)
BATCHES = [X[i : i + 8] for i in range(0, 40, 8)]


def run(data, **options):
    return fit(linear_state(), STEP, data, **({"epochs": 3, "progress": False} | options))


def by_hand(batches, steps):
    """The state after steps that read these batches one after the other."""
    state = linear_state()
    for batch in itertools.islice(itertools.cycle(batches), steps):
        state, _ = STEP(state, batch)
    return state


class Loader:
    """Something that makes batches anew each time, as a DataLoader does."""

    def __init__(self, batches=BATCHES):
        self.batches, self.passes = batches, 0

    def __iter__(self):
        self.passes += 1
        return iter(self.batches)


class Rows:
    """Examples behind an index, as a PyTorch Dataset has them."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        if not 0 <= i < len(self.rows):
            raise IndexError
        return self.rows[i]


class Stop(Exception):
    pass


def stopped(at, data, folder, **options):
    """A run that ends in an error after some steps, each of which was saved."""
    steps = itertools.count()

    def step(state, batch):
        if next(steps) == at:
            raise Stop
        return STEP(state, batch)

    fit(
        linear_state(), step, data, epochs=3, progress=False, checkpoint_dir=folder, save_every=1, **options
    )  # fmt: skip


@pytest.mark.parametrize("data", [BATCHES, Loader()], ids=["list", "loader"])
def test_batches_are_read_in_their_order(data):
    state, history = run(data)
    equal(state, by_hand(BATCHES, 15))
    assert len(history["loss"]) == 3


def test_an_epoch_may_be_some_of_the_batches():
    """It goes on in the next where it was, and begins again at the end."""
    state, history = run(Loader(), epochs=4, steps_per_epoch=3)
    equal(state, by_hand(BATCHES, 12))
    assert len(history["loss"]) == 4


@some(("at", "options"), [(1, {}), (7, {}), (5, {"steps_per_epoch": 4})], 2)
def test_a_loader_is_resumed(tmp_path, at, options):
    whole = run(Loader(), **options)
    assert int(whole[0].step) == 3 * options.get("steps_per_epoch", 5)

    with pytest.raises(Stop):
        stopped(at, Loader(), tmp_path, **options)
    same(run(Loader(), checkpoint_dir=tmp_path, save_every=1, **options), whole)


def test_examples_behind_an_index_are_those_of_an_array():
    same(run(Rows(X), batch_size=8), run(X, batch_size=8))


def test_a_stack_of_states_sees_each_batch():
    """Every seed trains as it does alone on the same batches."""
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(linear_state, range(3)))
    state, _ = fit(stack, vmap_seeds(STEP), Loader(), epochs=2, progress=False)
    for seed in range(3):
        alone, _ = fit(linear_state(seed), STEP, Loader(), epochs=2, progress=False)
        np.testing.assert_allclose(state.params["w"][seed], alone.params["w"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16", "int64", ">f4"])
def test_data_of_any_numbers(dtype):
    """Batches keep their type; the loss makes of them what it needs."""
    data, seen = np.arange(40 * 6).reshape(40, 6).astype(jnp.dtype(dtype)), []

    def loss(params, batch, key):
        seen.append(batch.dtype)
        return (batch.astype(jnp.float32) @ params["w"]).mean(), {}

    step = make_train_step(loss)
    results = [
        fit(linear_state(), step, source, epochs=1, progress=False, **options)
        for source, options in ((data, {"batch_size": 40}), ([data], {}), (Rows(data), {"batch_size": 40}))
    ]
    wanted = -0.1 * data.astype(np.float64).mean(0)
    for state, _ in results:
        np.testing.assert_allclose(state.params["w"], wanted, rtol=1e-3)
    assert {str(each) for each in seen} == {{"int64": "int32", ">f4": "float32"}.get(dtype, dtype)}


@pytest.mark.parametrize(
    ("data", "options", "names"),
    [
        (None, {"batch_size": 8}, "data is None"),
        (3, {"batch_size": 8}, "data is 3"),
        ("x.npy", {"batch_size": 8}, "data is 'x.npy'"),
        (lambda: X, {"batch_size": 8}, "data is <function"),
        (X, {}, "batch_size is None"),
        ({"x": X}, {}, "batch_size is None"),
        ((X, X), {}, "batch_size is None"),
        (Loader(), {"batch_size": 8}, "data is a Loader, which makes batches"),
        (iter(BATCHES), {}, "can be read once only"),
        ((batch for batch in BATCHES), {"steps_per_epoch": 5}, "can be read once only"),
        ([], {}, "no batches"),
        (Loader([]), {}, "no batches"),
        (X, {"batch_size": 8, "steps_per_epoch": 3}, "steps_per_epoch is for data that are batches"),
        (Loader(), {"steps_per_epoch": 0}, "steps_per_epoch"),
        (Loader(), {"steps_per_epoch": "three"}, "steps_per_epoch"),
        (Loader(), {"scan": True}, "scan=True"),
        (object(), {}, "data is a object|data is an object|batch_size is None"),
    ],
)
def test_what_is_no_data_is_said(data, options, names):
    with pytest.raises((TypeError, ValueError), match=names):
        run(data, **options)


def test_batches_that_end_early_are_said():
    class Shrinking(Loader):
        def __iter__(self):
            self.passes += 1
            return iter(self.batches[: 5 if self.passes < 3 else 2])

        def __len__(self):
            return 5

    with pytest.raises(ValueError, match="data ended before the 5 batches of an epoch"):
        run(Shrinking())


def test_arrays_that_are_lists_of_rows_or_masked():
    masked = np.ma.masked_array(X, X > 0)
    with pytest.raises((TypeError, ValueError), match="data .*mask"):
        run(masked, batch_size=8)
    with pytest.raises((TypeError, ValueError), match="data .*mask"):
        run([masked[:8]])


# Libraries of loaders.


@pytest.mark.slow
def test_a_pytorch_dataloader_and_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    x = torch.tensor(X)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=8)
    step = make_train_step(lambda params, batch, key: linear_loss(params, batch[0], key))

    def train(data, **options):
        return fit(linear_state(), step, data, epochs=3, progress=False, **options)

    whole = train([(batch,) for batch in BATCHES])
    same(train(loader), whole)
    train(loader, checkpoint_dir=tmp_path, save_every=1, callbacks=[])
    same(train(loader, checkpoint_dir=tmp_path), whole)
    same(train((x,), batch_size=8), train((X,), batch_size=8))
    dataset = torch.utils.data.TensorDataset(x)
    same(train(dataset, batch_size=8), train((X,), batch_size=8))


def grain_dataset():
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(X).shuffle(seed=3).map(lambda row: row * 2).batch(8)


@pytest.mark.slow
@pytest.mark.parametrize("at", [7])
def test_a_grain_iterator_goes_on_where_its_state_was(tmp_path, at):
    """The iterator of a new process is set to the state that the checkpoint has."""

    def iterator():
        return iter(grain_dataset().repeat().to_iter_dataset())

    whole = run(iterator(), steps_per_epoch=5)
    equal(whole[0], by_hand(list(itertools.islice(iterator(), 15)), 15))
    with pytest.raises(Stop):
        stopped(at, iterator(), tmp_path, steps_per_epoch=5)
    same(run(iterator(), steps_per_epoch=5, checkpoint_dir=tmp_path, save_every=1), whole)


@pytest.mark.slow
@pytest.mark.parametrize("at", [6])
def test_a_grain_dataset_and_its_loader_are_batches(tmp_path, at):
    grain = pytest.importorskip("grain")

    def loader():
        sampler = grain.samplers.IndexSampler(num_records=40, shuffle=True, seed=0, num_epochs=1)
        return grain.DataLoader(data_source=X, sampler=sampler, operations=[grain.transforms.Batch(8)])

    for number, make in enumerate((lambda: grain_dataset().to_iter_dataset(), loader)):
        whole = run(make())
        equal(whole[0], by_hand(list(make()), 15))
        folder = tmp_path / str(number)
        with pytest.raises(Stop):
            stopped(at, make(), folder)
        same(run(make(), checkpoint_dir=folder, save_every=1), whole)


def test_a_grain_source_is_examples_behind_an_index():
    grain = pytest.importorskip("grain")
    same(run(grain.MapDataset.source(X), batch_size=8), run(X, batch_size=8))
