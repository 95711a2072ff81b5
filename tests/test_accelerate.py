"""Programs that exist draw jdrop's masks: what they would be with `keep_mask` in the place of JAX's `bernoulli`."""

import functools

import equinox
import flax.linen as nn
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import array, key
from flax import nnx
from jax.sharding import AxisType, PartitionSpec
from tiers import some

import jdrop

X = array((16, 32))


def dropped(k, x, rate=0.3):
    """Hand-written dropout."""
    return jnp.where(jax.random.bernoulli(k, 1 - rate, x.shape), x / (1 - rate), 0)


def kept(k, shape, rate=0.3):
    """`keep_mask` for the probability that a hand-written dropout asks for."""
    return jdrop.keep_mask(k, shape, 1 - np.float32(1 - rate))


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def in_its_place(k, p=0.5, shape=None, mode="low", *, out_sharding=None):
    return jdrop.keep_mask(k, np.shape(p) if shape is None else shape, 1 - jnp.asarray(p, jnp.float32))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        attention = nn.MultiHeadDotProductAttention(4, dropout_rate=0.1, deterministic=False, broadcast_dropout=False)
        x = x + nn.Dropout(0.2, deterministic=False)(attention(x))
        return nn.Dropout(0.1, deterministic=False, broadcast_dims=(1,))(nn.Dense(16)(x)), None


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        block = nn.scan(
            nn.remat(Block), variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True}, length=2
        )
        return block()(x, None)[0]


def of_nnx(k, x):
    return nnx.Dropout(0.3)(x, rngs=nnx.Rngs(dropout=k))


def of_a_loop(k, x):
    def body(carry):
        i, y = carry
        return i + 1, dropped(jax.random.fold_in(k, i), y)

    return jax.lax.while_loop(lambda carry: carry[0] < 3, body, (0, jax.lax.stop_gradient(x)))[1]


@jax.custom_jvp
def _custom(k, x):
    return dropped(k, x)


@_custom.defjvp
def _rule(primals, tangents):
    return _custom(*primals), dropped(primals[0], tangents[1])


PROGRAMS = {
    "by hand": dropped,
    "jitted": jax.jit(dropped),
    "linen": lambda k, x: nn.Dropout(0.3, deterministic=False).apply({}, x, rngs={"dropout": k}),
    "nnx": of_nnx,
    "equinox": lambda k, x: equinox.nn.Dropout(0.3)(x, key=k),
    "haiku": jax.numpy_dtype_promotion("standard")(lambda k, x: haiku.dropout(k, 0.3, x)),
    "scan": lambda k, x: jax.lax.scan(lambda x, k: (dropped(k, x), None), x, jax.random.split(k, 3))[0],
    "while": of_a_loop,
    "cond": lambda k, x: jax.lax.cond(x[0, 0] > 100, lambda: x, lambda: dropped(k, x)),
    "checkpoint": jax.checkpoint(dropped),
    "custom_jvp": _custom,
    "vmap over keys": lambda k, x: jax.vmap(dropped, (0, None))(jax.random.split(k, 3), x).sum(0),
    "vmap over keys and inputs": lambda k, x: jax.vmap(dropped)(jax.random.split(k, 16), x),
    "vmap over rates": lambda k, x: jax.vmap(dropped, (None, None, 0))(k, x, jnp.array([0.1, 0.5])).sum(0),
    "vmap over keys and rates": lambda k, x: jax.vmap(dropped)(jax.random.split(k, 2), x[:2], jnp.array([0.1, 0.5])),
    "a probability for each column": lambda k, x: dropped(k, x, jnp.linspace(0, 1, 32).at[-1].set(0.5)),
    "a probability of the input": lambda k, x: dropped(k, x, jnp.abs(x).max() / 3),
    "a legacy key": lambda k, x: dropped(jax.random.key_data(k), x),
    "float16": lambda k, x: jnp.where(jax.random.bernoulli(k, jnp.float16(0.7), x.shape), x, 0),
}


@some("name", PROGRAMS, 6)
def test_it_draws_what_keep_mask_draws(name, monkeypatch):
    """The output and the gradient that is taken inside of it."""
    program = PROGRAMS[name]

    def both(k, x):
        return program(k, x), jax.grad(lambda x: (program(k, x) ** 2).sum())(x)

    fast = jdrop.accelerate(both)
    given, before = fast(key(5), X), both(key(5), X)
    assert fast.report.draws
    assert not fast.report.left
    same(both(key(5), X), before)  # the function itself is what it was
    jax.clear_caches()
    monkeypatch.setattr(jax.random, "bernoulli", in_its_place)
    if "jvp" not in name:
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), given, both(key(5), X))
    monkeypatch.undo()
    jax.clear_caches()
    assert not all((a == b).all() for a, b in zip(given, before))


def test_the_mask_and_the_probability_by_hand():
    fast = jdrop.accelerate(lambda k: jax.random.bernoulli(k, 0.7, (40, 50)))
    same(fast(key(2)), jdrop.keep_mask(key(2), (40, 50), 1 - np.float32(0.7)))
    for p, all_of in ((0.0, False), (1.0, True), (1.5, True), (-1.0, False), (float("nan"), False)):
        drawn = jdrop.accelerate(lambda k, p: jax.random.bernoulli(k, p, (40,)))(key(), jnp.float32(p))
        assert (drawn == all_of).all()


@pytest.mark.slow
def test_a_language_model_s_block_scanned_and_rematerialised():
    """The backward pass draws the masks of the forward pass: the gradient is that of the program with jdrop's masks."""
    x = array((2, 8, 16))
    model = Scanned()
    variables = model.init({"params": key(1), "dropout": key(2)}, x)

    @jax.jit
    def step(variables, k):
        return jax.value_and_grad(lambda v: (model.apply(v, x, rngs={"dropout": k}) ** 2).mean())(variables)

    fast = jdrop.accelerate(step)
    loss, gradient = fast(variables, key(3))
    places = [(draw.shape, draw.times) for draw in fast.report.draws]
    assert set(places) == {((2, 4, 8, 8), 2), ((2, 8, 16), 2), ((2, 1, 16), 2)}
    assert any(
        "MultiHeadDotProductAttention_0" in draw.place or "SelfAttention_0" in draw.place for draw in fast.report.draws
    )
    tangent = jax.tree.map(jnp.ones_like, variables)
    ahead, behind = (
        fast(jax.tree.map(lambda v, t, e=e: v + e * t, variables, tangent), key(3))[0] for e in (2e-3, -2e-3)
    )
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, tangent)))
    np.testing.assert_allclose((ahead - behind) / 4e-3, slope, rtol=2e-2)
    assert loss != step(variables, key(3))[0]


def test_inside_of_shard_map():
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    specs = (PartitionSpec(), PartitionSpec("d"))

    def part(k, x):
        return dropped(jax.random.fold_in(k, jax.lax.axis_index("d")), x)

    f = jax.jit(jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=specs[1]))
    fast = jdrop.accelerate(f)
    result = fast(key(), X)
    if fast.report.left:
        pytest.fail(str(fast.report))
    wanted = [jnp.where(kept(jax.random.fold_in(key(), i), (2, 32)), X[2 * i : 2 * i + 2] / 0.7, 0) for i in range(8)]
    np.testing.assert_allclose(result, jnp.concatenate(wanted), rtol=1e-6)


def test_what_is_no_dropout_is_left_alone_and_named():
    def f(k, x):
        noise = jax.random.normal(k, x.shape)
        return noise + jax.random.bernoulli(k, 0.5, x.shape, mode="high").astype(x.dtype)

    fast = jdrop.accelerate(f)
    same(fast(key(), X), f(key(), X))
    assert not fast.report.draws
    assert [draw.why.split(",")[0] for draw in fast.report.left] == [
        "random numbers that are no Bernoulli draw",
        "mode='high'",
    ]
    assert "2 left as they were" in str(fast.report)
    assert "test_accelerate.py" in str(fast.report)


def test_draws_of_one_place_are_counted():
    layer = equinox.nn.Dropout(0.3)

    @jax.jit
    def f(k, x):
        for i in range(3):
            x = jax.lax.scan(lambda x, k: (layer(x, key=k), None), x, jax.random.split(jax.random.fold_in(k, i), 2))[0]
        return x

    fast = jdrop.accelerate(f)
    fast(key(), X)
    fast(key(), X)
    assert [(draw.shape, draw.times) for draw in fast.report.draws] == [((16, 32), 6)]
    assert "1 drawn by jdrop\n  (16, 32) 6 times, eqx.nn.Dropout _dropout.py:" in str(fast.report)


def test_a_jitted_function_is_traced_once_and_donates():
    traces = []

    @functools.partial(jax.jit, donate_argnums=0, static_argnums=2)
    def step(x, k, name):
        traces.append(name)
        return dropped(k, x)

    fast = jdrop.accelerate(step)
    for i in range(3):
        x = X + 0
        fast(x, key(i), "a")
        assert x.is_deleted()
    assert traces == ["a"]
    fast(X + 0, key(), "b")
    assert traces == ["a", "b"]
    assert len(fast.report.draws) == 1


def test_a_block_is_for_what_was_jitted_before_too_and_ends():
    """Each block anew, with all functions that it calls: none stays slow, and none stays fast outside."""
    f, layer = jax.jit(dropped), equinox.nn.Dropout(0.5)
    before = f(key(), X)
    for _ in range(2):
        with jdrop.accelerate() as report:
            inside = f(key(), X)
            other = layer(X, key=key(1))
            assert len(report.draws) == 2
        np.testing.assert_allclose(inside, jnp.where(kept(key(), X.shape), X / 0.7, 0), rtol=1e-6)
        same(other, jnp.where(kept(key(1), X.shape, 0.5), X / 0.5, 0))
        same(f(key(), X), before)
        assert [draw.line.split(":")[0] for draw in report.draws] == ["test_accelerate.py", "_dropout.py"]
        assert not report.left
    with pytest.raises(KeyError), jdrop.accelerate() as report:
        raise KeyError
    same(f(key(), X), before)
    again = jdrop.accelerate()
    with again, again:
        pass
    same(f(key(), X), before)


def test_a_block_names_what_it_left():
    with jdrop.accelerate() as report:
        jax.random.uniform(key(), (3,))
        jax.random.bernoulli(key(), 0.5, (5,), mode="high")
    assert not report.draws
    assert [draw.shape for draw in report.left] == [(3,), (5,)]


@pytest.mark.parametrize("block", [False, True], ids=["function", "block"])
def test_an_nnx_train_step_changes_its_model_in_place(block):
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.layer, self.dropout = nnx.Linear(32, 1, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.layer(self.dropout(x))

    model = Model(nnx.Rngs(0))
    k, kernel = model.dropout.rngs.key.get_value(), model.layer.kernel.get_value()

    @nnx.jit
    def step(model, x):
        gradients = nnx.grad(lambda model: model(x).sum())(model)
        model.layer.kernel[...] += gradients["layer"]["kernel"][...]

    if block:
        with jdrop.accelerate() as report:
            step(model, X)
    else:
        fast = jdrop.accelerate(step)
        fast(model, X)
        report = fast.report
    mask = jdrop.keep_mask(jax.random.fold_in(k, 0), X.shape, 0.5)
    wanted = kernel + jnp.where(mask, X * 2, 0).sum(0)[:, None]
    np.testing.assert_allclose(model.layer.kernel[...], wanted, rtol=1e-5, atol=1e-5)
    assert [draw.times for draw in report.draws] == [None if block else 1]


def test_numbers_of_python_are_traced_once():
    traces = []

    @jax.jit
    def step(k, x, rate):
        traces.append(rate)
        return dropped(k, x, rate)

    fast = jdrop.accelerate(step)
    for rate in (0.1, 0.2, 0.3):
        fast(key(), X, rate)
    assert len(traces) == 1
    assert [draw.times for draw in fast.report.draws] == [1]


def test_a_probability_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)|\(2,\).*\(3,\)"), jdrop.accelerate():
        jax.random.bernoulli(key(), jnp.full((3,), 0.5), (2,))


def test_under_other_transforms():
    fast = jdrop.accelerate(dropped)
    same(jax.jit(fast)(key(), X), fast(key(), X))
    wanted = jnp.where(kept(key(), X.shape), 1 / jnp.float32(0.7), 0)
    np.testing.assert_allclose(jax.grad(lambda x: fast(key(), x).sum())(X), wanted, rtol=1e-6)
    keys = jax.random.split(key(), 3)
    same(jax.vmap(fast, (0, None))(keys, X), jnp.stack([fast(k, X) for k in keys]))


def test_arguments_of_any_kind():
    fast = jdrop.accelerate(
        lambda k, batch, rate=0.3, *, flag: {"y": dropped(k, batch["x"], rate), "flag": jnp.array(flag)}
    )
    given = fast(key(), {"x": np.asarray(X)}, 0.5, flag=True)
    same(given["y"], jnp.where(kept(key(), X.shape, 0.5), X / 0.5, 0))
    assert given["flag"]
    with pytest.raises(TypeError, match="function is 3, but a function is needed"):
        jdrop.accelerate(3)
    with pytest.raises(TypeError, match="was given no function to call"):
        jdrop.accelerate()(key())
