"""Recurrent dropout and zoneout against loops over time in NumPy, in Linen and NNX."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import array, key
from flax import nnx
from tiers import some

import jdrop

BATCH, TIME, INPUTS, UNITS = 3, 5, 4, 6
X = array((BATCH, TIME, INPUTS))
RNGS = {"dropout": key(1)}
DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.complex64)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(p, state, x, read):
    """One step of a GRU in NumPy; `read` is what its matrices see of h."""
    (h,) = state
    r = sigmoid(x @ p["ir"]["kernel"] + p["ir"]["bias"] + read @ p["hr"]["kernel"])
    z = sigmoid(x @ p["iz"]["kernel"] + p["iz"]["bias"] + read @ p["hz"]["kernel"])
    n = np.tanh(x @ p["in"]["kernel"] + p["in"]["bias"] + r * (read @ p["hn"]["kernel"] + p["hn"]["bias"]))
    return ((1 - z) * n + z * h,)


def lstm(p, state, x, read):
    c, _ = state
    i, f, g, o = (x @ p["i" + n]["kernel"] + read @ p["h" + n]["kernel"] + p["h" + n]["bias"] for n in "ifgo")
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)


def simple(p, state, x, read):
    (h,) = state
    return (np.tanh(x @ p["i"]["kernel"] + p["i"]["bias"] + read @ p["h"]["kernel"] + h),)


CELLS = {
    "gru": (nn.GRUCell(UNITS), gru, 1),
    "lstm": (nn.LSTMCell(UNITS), lstm, 2),
    "optimized lstm": (nn.OptimizedLSTMCell(UNITS), lstm, 2),
    "residual": (nn.SimpleCell(UNITS, residual=True), simple, 1),
}
every_cell = some("kind", CELLS, 0, 1)


def masks(carry, name, shape, rate, fresh):
    """The masks of all steps, from the keys in the first carry."""
    first = carry.keys[name][0]
    return [np.asarray(jdrop.keep_mask(jdrop.fold_in(first, t) if fresh else first, shape, rate)) for t in range(TIME)]


def parameters(cell):
    return nn.RNN(cell).init(key(3), X)["params"]["cell"]


def first_carry(cell, rngs=RNGS):
    """The carry that `nn.RNN(cell)` begins with: the module's stream in that place."""
    return nn.RNN(cell).apply({}, X, method=lambda rnn, x: rnn.cell.initialize_carry(key(), x[:, 0].shape), rngs=rngs)


def as_numpy(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def loop(step, p, parts, x_masks, h_masks, zone=None):
    """The outputs of a NumPy loop over time; `zone[t][i]` tells which units of part i take the new value."""
    p, state, outputs = as_numpy(p), (np.zeros((BATCH, UNITS)),) * parts, []
    for t in range(TIME):
        new = step(p, state, np.asarray(X[:, t], np.float64) * x_masks[t], state[-1] * h_masks[t])
        if zone is not None:
            new = tuple(np.where(take, a, b) for take, a, b in zip(zone[t], new, state))
        state = new
        outputs.append(state[-1])
    return np.stack(outputs, 1)


ONES = [np.ones(())] * TIME


@every_cell
@some(
    ("fresh", "rate", "recurrent_rate"),
    [(True, 0.25, 0.5), (False, 0.25, 0.5), (False, 0.0, 0.5), (True, 0.5, 0.0), (False, 0.5, None)],
    0,
)
def test_recurrent_dropout_is_the_loop_over_time(kind, fresh, rate, recurrent_rate):
    cell, step, parts = CELLS[kind]
    p = parameters(cell)
    wrapped = jdrop.linen.RecurrentDropout(cell, rate, recurrent_rate, fresh=fresh, deterministic=False)
    carry, recurrent_rate = first_carry(wrapped), rate if recurrent_rate is None else recurrent_rate
    x_masks = [mask / (1 - rate) for mask in masks(carry, "inputs", (BATCH, INPUTS), rate, fresh)]
    h_masks = [m / (1 - recurrent_rate) for m in masks(carry, "recurrent", (BATCH, UNITS), recurrent_rate, fresh)]
    y = nn.RNN(wrapped).apply({"params": {"cell": p}}, X, rngs=RNGS)
    np.testing.assert_allclose(y, loop(step, p, parts, x_masks, h_masks), rtol=1e-5, atol=1e-5)


@every_cell
def test_zoneout_is_the_loop_over_time(kind):
    cell, step, parts = CELLS[kind]
    p, rates = parameters(cell), (0.5, 0.25)[-parts:]
    wrapped = jdrop.linen.Zoneout(cell, rates, deterministic=False)
    carry = first_carry(wrapped)
    zone = list(zip(*(masks(carry, f"part{i}", (BATCH, UNITS), r, True) for i, r in enumerate(rates))))
    y = nn.RNN(wrapped).apply({"params": {"cell": p}}, X, rngs=RNGS)
    np.testing.assert_allclose(y, loop(step, p, parts, ONES, ONES, zone), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_zoneout_around_recurrent_dropout_does_both():
    cell, step, parts = CELLS["lstm"]
    p = parameters(cell)
    inner = jdrop.linen.RecurrentDropout(cell, 0.5, deterministic=False)
    wrapped = jdrop.linen.Zoneout(inner, 0.25, deterministic=False)
    carry = first_carry(wrapped)
    zone = list(zip(*(masks(carry, f"part{i}", (BATCH, UNITS), 0.25, True) for i in range(2))))
    x_masks = [2.0 * mask for mask in masks(carry.cell, "inputs", (BATCH, INPUTS), 0.5, False)]
    h_masks = [2.0 * mask for mask in masks(carry.cell, "recurrent", (BATCH, UNITS), 0.5, False)]
    y = nn.RNN(wrapped).apply({"params": {"cell": p}}, X, rngs=RNGS)
    np.testing.assert_allclose(y, loop(step, p, parts, x_masks, h_masks, zone), rtol=1e-5, atol=1e-5)
    with pytest.raises(TypeError, match=r"write Zoneout\(RecurrentDropout\(cell"):
        nn.RNN(jdrop.linen.RecurrentDropout(wrapped, 0.5, deterministic=False)).init({"params": key(), **RNGS}, X)
    with pytest.raises(TypeError, match="Zoneout is around a Zoneout"):
        jdrop.nnx.Zoneout(nnx_rnn(WRAPS[1]).cell, 0.5)


class Seen(nn.RNNCellBase):
    """A cell whose output holds what it was given: its masks, where inputs and state are ones."""

    def initialize_carry(self, rng, input_shape):
        return jnp.ones(input_shape), jnp.ones(input_shape)

    @property
    def num_feature_axes(self):
        return 1

    def __call__(self, carry, inputs):
        return (carry[0], jnp.ones_like(carry[1])), jnp.stack([inputs, carry[1]], -1)


@some("split", [{}, {"dropout": True}, {"dropout": False}], 0, 1)
@some("fresh", [False, True], 0)
def test_masks_are_constant_or_fresh_however_the_streams_are_split(fresh, split):
    cell = jdrop.linen.RecurrentDropout(Seen(), 0.5, fresh=fresh, deterministic=False)
    rnn = nn.RNN(cell, split_rngs={"params": False, **split})
    seen = np.asarray(rnn.apply({}, jnp.ones((4, 3, 50)), rngs=RNGS))
    assert set(seen.ravel()) == {0.0, 2.0}
    for of_one in (seen[..., 0], seen[..., 1]):
        steps = of_one.swapaxes(0, 1)
        assert all((a == b).all() != fresh for a, b in itertools.combinations(steps, 2))
        assert (steps[0, 0] != steps[0, 1]).any()
    assert (seen[..., 0] != seen[..., 1]).any()
    again = rnn.apply({}, jnp.ones((4, 3, 50)), rngs={"dropout": key(2)})
    assert (again != seen).any()


@some("fresh", [False, True], 0)
def test_a_returned_carry_goes_on_with_its_masks_or_with_new_ones(fresh):
    rnn = nn.RNN(jdrop.linen.RecurrentDropout(Seen(), 0.5, fresh=fresh, deterministic=False))
    x = jnp.ones((4, 3, 50))
    carry, before = rnn.apply({}, x, rngs=RNGS, seq_lengths=jnp.array([1, 3, 2, 2]), return_carry=True)
    after = rnn.apply({}, x, initial_carry=carry)
    for i, j in itertools.product(range(3), range(3)):
        assert (before[:, i] == after[:, j]).all() != fresh


def test_a_second_call_of_one_module_has_masks_of_its_own():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            rnn = nn.RNN(jdrop.linen.RecurrentDropout(Seen(), 0.5, deterministic=False))
            return rnn(x), rnn(x)

    a, b = Twice().apply({}, jnp.ones((4, 3, 50)), rngs=RNGS)
    assert (a != b).any()


@every_cell
def test_evaluation_is_the_cell_and_zoneout_s_expectation(kind):
    cell, step, parts = CELLS[kind]
    p = parameters(cell)
    variables = {"params": {"cell": p}}
    plain = nn.RNN(cell).apply(variables, X)
    dropped = nn.RNN(jdrop.linen.RecurrentDropout(cell, 0.5, deterministic=True)).apply(variables, X)
    np.testing.assert_array_equal(dropped, plain)
    still = nn.RNN(jdrop.linen.Zoneout(cell, 0.0, deterministic=False)).apply(variables, X)
    np.testing.assert_array_equal(still, plain)
    y = nn.RNN(jdrop.linen.Zoneout(cell, 0.25, deterministic=True)).apply(variables, X)

    def mixed(p, state, x, read):
        return tuple(0.75 * a + 0.25 * b for a, b in zip(step(p, state, x, read), state))

    np.testing.assert_allclose(y, loop(mixed, p, parts, ONES, ONES), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 1.0])
def test_zoneout_s_evaluation_is_the_mean_over_all_masks(rate):
    new, previous = np.asarray(array((4,))), np.asarray(array((4,), seed=5))
    mean = 0.0
    for take in itertools.product((False, True), repeat=4):
        mean += np.prod(np.where(take, 1 - rate, rate)) * np.where(take, new, previous)
    np.testing.assert_allclose(jdrop.zoneout(None, new, previous, rate, True), mean, rtol=1e-6)


# The functions keep the house's contract.


@some("dtype", DTYPES, 1)
@some("rate", [0.0, 0.3, 1.0], 1)
def test_zoneout_chooses_by_the_mask(rate, dtype):
    new, previous = array((5, 40), dtype), array((5, 40), dtype, seed=7)
    kept = np.asarray(jdrop.keep_mask(key(2), new.shape, rate))
    wanted = np.where(kept, new, previous)
    for given in (rate, jnp.float32(rate), np.full((5, 1), rate, np.float32)):
        for call in (jdrop.zoneout, jax.jit(jdrop.zoneout)):
            y = call(key(2), new, previous, given)
            assert y.dtype == dtype
            np.testing.assert_array_equal(y, wanted)
            for flag in (True, jnp.array(True)):
                if call is jdrop.zoneout or not isinstance(flag, bool):
                    y = call(key(2), new, previous, given, flag)
                    assert y.dtype == dtype
                    # In bfloat16's own precision: the oracle is NumPy's in complex128.
                    wide = np.asarray(new, np.complex128) * (1 - rate) + np.asarray(previous, np.complex128) * rate
                    eps = float(jnp.finfo(dtype).eps)
                    np.testing.assert_allclose(np.asarray(y, np.complex128), wide, rtol=2 * eps, atol=2 * eps)


def test_zoneout_in_double_precision():
    with jax.enable_x64(True):
        new, previous = jnp.float64([1 + 2**-40]), jnp.float64([3.0])
        y = jdrop.zoneout(None, new, previous, 0.25, True)
        assert y.dtype == jnp.float64
        np.testing.assert_allclose(y, 0.75 * (1 + 2**-40) + 0.75, rtol=1e-15)


def test_zoneout_s_gradient_goes_where_the_value_came_from():
    new, previous = array((5, 40)), array((5, 40), seed=7)
    kept = np.asarray(jdrop.keep_mask(key(2), new.shape, 0.3))
    total = lambda *args: jdrop.zoneout(key(2), *args).sum()
    for rate, flag, share in ((0.3, False, kept), (0.3, True, np.float32(0.7)), (0.0, False, 1), (1.0, False, 0)):
        for wrap in (lambda f: f, jax.jit, jax.checkpoint):
            by_new, by_previous = jax.grad(wrap(lambda a, b: total(a, b, rate, flag)), (0, 1))(new, previous)
            np.testing.assert_allclose(by_new, np.broadcast_to(share, new.shape), rtol=1e-6)
            np.testing.assert_allclose(by_previous, np.broadcast_to(1 - share, new.shape), rtol=1e-6)
    assert jax.grad(lambda rate: total(new, previous, rate, True))(0.3) == 0


@some("bad", [np.nan, np.inf, -np.inf], 0)
def test_what_is_not_taken_leaks_nowhere(bad):
    kept = jdrop.keep_mask(key(2), (5, 40), 0.3)
    new, previous = jnp.where(kept, 1.0, bad), jnp.where(kept, bad, 1.0)
    for rate in (0.3, jnp.float32(0.3)):
        total = jax.jit(lambda a, b: jdrop.zoneout(key(2), a, b, rate, jnp.array(False)).sum())
        assert total(new, previous) == 200
        by_new, by_previous = jax.grad(total, (0, 1))(new, previous)
        np.testing.assert_array_equal(by_new, kept)
        np.testing.assert_array_equal(by_previous, ~kept)


def test_zoneout_is_nested_and_exact_under_transformations():
    new, previous = jnp.ones((3, 50)), jnp.zeros((3, 50))
    low, high = (np.asarray(jdrop.zoneout(key(2), new, previous, rate)) for rate in (0.3, 0.6))
    assert (high <= low).all()
    keys = jax.random.split(key(4), 3)
    each = np.stack([jdrop.zoneout(k, a, b, 0.3) for k, a, b in zip(keys, new, previous)])
    np.testing.assert_array_equal(jax.vmap(lambda k, a, b: jdrop.zoneout(k, a, b, 0.3))(keys, new, previous), each)
    _, scanned = jax.lax.scan(lambda c, kab: (c, jdrop.zoneout(*kab, 0.3)), 0, (keys, new, previous))
    np.testing.assert_array_equal(scanned, each)


def test_a_loop_over_time_keeps_no_masks_for_the_backward_pass():
    def last(h):
        step = lambda h, t: (jdrop.zoneout(jdrop.fold_in(key(), t), 2 * h, h, 0.5), None)
        return jax.lax.scan(step, h, jnp.arange(7))[0].sum()

    _, pullback = jax.vjp(last, jnp.ones((4, 33)))
    assert not [leaf.shape for leaf in jax.tree.leaves(pullback) if leaf.shape == (7, 4, 33)]


def test_traced_rates_that_are_invalid_give_nan():
    for rate in (-0.1, 1.1, np.nan):
        for flag in (False, True):
            y = jax.jit(lambda r: jdrop.zoneout(key(), jnp.ones(3), jnp.ones(3), r, flag))(rate)
            assert np.isnan(y).all()
            assert np.isnan(jax.jit(lambda r: jdrop.variational_mask(key(), (3,), r, flag))(rate)).all()


@some("dtype", DTYPES, 1)
def test_variational_mask_is_dropout_of_ones(dtype):
    kept = np.asarray(jdrop.keep_mask(key(2), (5, 40), 0.25))
    for rate in (0.25, jnp.float32(0.25)):
        mask = jdrop.variational_mask(key(2), (5, 40), rate, dtype=dtype)
        assert mask.dtype == dtype
        np.testing.assert_array_equal(mask, jnp.asarray(kept / np.float32(0.75)).astype(dtype))
        np.testing.assert_array_equal(jdrop.variational_mask(key(2), (5, 40), rate, True, dtype=dtype), 1)
    classic = jdrop.variational_mask(key(2), (5, 40), 0.25, dtype=dtype, scaling="classic")
    np.testing.assert_array_equal(classic, kept)
    np.testing.assert_array_equal(jdrop.variational_mask(None, (5,), 1.0), 0)


def test_errors_of_the_functions():
    ones = jnp.ones(3)
    with pytest.raises(TypeError, match="new has dtype int32"):
        jdrop.zoneout(key(), jnp.arange(3), ones, 0.5)
    with pytest.raises(ValueError, match=r"new is float32\[3\] and previous is float16\[3\]"):
        jdrop.zoneout(key(), ones, ones.astype(jnp.float16), 0.5)
    with pytest.raises(ValueError, match=r"new is float32\[3\] and previous is float32\[1\]"):
        jdrop.zoneout(key(), ones, ones[:1], 0.5)
    with pytest.raises(TypeError, match="key=None"):
        jdrop.zoneout(None, ones, ones, 0.5)
    with pytest.raises(ValueError, match=r"rate is 1.5"):
        jdrop.zoneout(key(), ones, ones, 1.5)
    with pytest.raises(TypeError, match=r"dtype is int32.*write dtype=jnp.float32"):
        jdrop.variational_mask(key(), (3,), 0.5, dtype=jnp.int32)
    with pytest.raises(ValueError, match=r"scaling is 'twice'"):
        jdrop.variational_mask(key(), (3,), 0.5, scaling="twice")


# The wrappers in both frameworks.


def nnx_cell(kind, p):
    """Flax NNX's cell with the parameters of Linen's."""
    rngs = nnx.Rngs(0)
    if kind == "lstm":
        cell = nnx.LSTMCell(INPUTS, UNITS, rngs=rngs)
        layers = {name: (getattr(cell, "if_" if name == "if" else name), p[name]) for name in p}
    elif kind == "residual":
        cell = nnx.SimpleCell(INPUTS, UNITS, residual=True, rngs=rngs)
        layers = {"i": (cell.dense_i, p["i"]), "h": (cell.dense_h, p["h"])}
    else:
        cell = nnx.GRUCell(INPUTS, UNITS, rngs=rngs)
        stack = lambda side, what: jnp.concatenate([p[side + gate][what] for gate in "rzn"], -1)
        layers = {
            "i": (cell.dense_i, {"kernel": stack("i", "kernel"), "bias": stack("i", "bias")}),
            "h": (cell.dense_h, {"kernel": stack("h", "kernel")}),
        }
    for layer, arrays in layers.values():
        for name, value in arrays.items():
            getattr(layer, name)[...] = value
    return cell


@pytest.mark.slow
@some("kind", ["gru", "lstm", "residual"], 1)
@some("fresh", [False, True], 0)
def test_both_frameworks_agree(kind, fresh):
    cell, _, _ = CELLS[kind]
    p, rngs = parameters(cell), nnx.Rngs(0)
    pairs = [
        (
            jdrop.linen.RecurrentDropout(cell, 0.25, 0.5, fresh=fresh, deterministic=False),
            jdrop.nnx.RecurrentDropout(nnx_cell(kind, p), 0.25, 0.5, fresh=fresh, rngs=rngs),
        ),
        (
            jdrop.linen.Zoneout(cell, 0.5, deterministic=False),
            jdrop.nnx.Zoneout(nnx_cell(kind, p), 0.5, rngs=rngs),
        ),
    ]
    for ours, theirs in pairs:
        carry = first_carry(ours)
        same = nn.RNN(ours).apply({"params": {"cell": p}}, X, initial_carry=carry)
        np.testing.assert_allclose(nnx.RNN(theirs)(X, initial_carry=carry), same, rtol=1e-5, atol=1e-6)
        assert (nnx.RNN(theirs)(X) != same).any()
        theirs.eval()
        plain = nnx.RNN(nnx_cell(kind, p))(X)
        if isinstance(theirs, jdrop.nnx.RecurrentDropout):
            np.testing.assert_array_equal(nnx.RNN(theirs)(X), plain)


def nnx_rnn(wrap, **kwargs):
    rngs = nnx.Rngs(0)
    return nnx.RNN(wrap(nnx.GRUCell(INPUTS, UNITS, rngs=rngs), 0.5, rngs=rngs, **kwargs))


WRAPS = [
    lambda cell, rate, **kwargs: jdrop.nnx.RecurrentDropout(cell, rate, **kwargs),
    lambda cell, rate, **kwargs: jdrop.nnx.Zoneout(cell, rate, **kwargs),
    lambda cell, rate, **kwargs: jdrop.nnx.Zoneout(jdrop.nnx.RecurrentDropout(cell, rate, **kwargs), rate, **kwargs),
]


@some("wrap", WRAPS, 0, ids=["dropout", "zoneout", "both"])
def test_nnx_streams_and_modes(wrap):
    first, second = nnx_rnn(wrap), nnx_rnn(wrap)
    one = first(X)
    np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(second, X), one, rtol=1e-5, atol=1e-6)
    assert (first(X) != one).any()
    assert (second(X) != one).any()
    first.eval()
    step = np.asarray(first.cell.rngs.count[...])
    np.testing.assert_array_equal(first(X), first(X))
    assert first.cell.rngs.count[...] == step
    first.train()
    lengths = jnp.array([5, 2, 3])
    carry, y = first(X, seq_lengths=lengths, return_carry=True)
    state = carry.cell.cell if isinstance(carry.cell, tuple) else carry.cell
    np.testing.assert_array_equal(state, y[jnp.arange(BATCH), lengths - 1])
    first(X, initial_carry=carry)


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [False, True])
def test_an_nnx_cell_stepped_by_hand(fresh):
    rngs = nnx.Rngs(0)
    cell = jdrop.nnx.RecurrentDropout(nnx.LSTMCell(INPUTS, UNITS, rngs=rngs), 0.5, fresh=fresh, rngs=rngs)
    carry = first = cell.initialize_carry((BATCH, INPUTS), rngs)
    outputs = []
    for t in range(TIME):
        carry, y = cell(carry, X[:, t])
        outputs.append(y)
    p = {
        n: {"kernel": getattr(cell.cell, "if_" if n == "if" else n).kernel[...]}
        for n in map("".join, itertools.product("ih", "ifgo"))
    }
    for n in "ifgo":
        p["h" + n]["bias"] = getattr(cell.cell, "h" + n).bias[...]
    x_masks = [2 * mask for mask in masks(first, "inputs", (BATCH, INPUTS), 0.5, fresh)]
    h_masks = [2 * mask for mask in masks(first, "recurrent", (BATCH, UNITS), 0.5, fresh)]
    np.testing.assert_allclose(np.stack(outputs, 1), loop(lstm, p, 2, x_masks, h_masks), rtol=1e-5, atol=1e-5)
    _, scanned = jax.lax.scan(cell, first, X.swapaxes(0, 1))
    np.testing.assert_allclose(scanned.swapaxes(0, 1), np.stack(outputs, 1), rtol=1e-5, atol=1e-6)


def test_the_input_may_be_the_very_array_of_the_state():
    """Layers that read the input are told from those that read h."""
    cell, x = nn.GRUCell(UNITS), array((BATCH, UNITS))
    p = cell.init(key(3), x, x)["params"]
    wrapped = jdrop.linen.RecurrentDropout(cell, 0.0, 0.5, deterministic=False)
    carry = wrapped.apply({}, key(), x.shape, method="initialize_carry", rngs=RNGS)._replace(cell=x)
    _, y = wrapped.apply({"params": p}, carry, x)
    _, same = wrapped.apply({"params": p}, carry, x + 0)
    np.testing.assert_array_equal(y, same)


class Net(nn.Module):
    wrap: str

    @nn.compact
    def __call__(self, x, train=False):
        cell = nn.GRUCell(UNITS)
        if "recurrent" in self.wrap:
            cell = jdrop.linen.RecurrentDropout(cell, 0.5, deterministic=not train)
        if "zoneout" in self.wrap:
            cell = jdrop.linen.Zoneout(cell, 0.5, deterministic=not train)
        return nn.RNN(cell)(x)


@some("wrap", ["recurrent", "zoneout", "recurrent zoneout"], 0)
def test_linen_wrappers_keep_the_parameters_in_their_place_and_compile(wrap):
    variables = Net("").init(key(3), X)
    jax.tree.map(np.testing.assert_array_equal, Net(wrap).init(key(3), X), variables)
    call = lambda k, x: Net(wrap).apply(variables, x, True, rngs={"dropout": k})
    compiled = jax.jit(call)
    np.testing.assert_allclose(compiled(key(1), X), call(key(1), X), rtol=1e-5, atol=1e-6)
    keys = jax.random.split(key(5), 3)
    each = np.stack([compiled(k, X) for k in keys])
    np.testing.assert_allclose(jax.vmap(call, (0, None))(keys, X), each, rtol=1e-5, atol=1e-6)
    assert (each[0] != each[1]).any()
    gradient = lambda f: jax.jit(jax.grad(lambda x: f(key(1), x).sum()))(X)
    np.testing.assert_allclose(gradient(jax.checkpoint(call)), gradient(call), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_linen_zoneout_of_sequences_of_other_lengths_and_of_none():
    lengths = jnp.array([5, 2, 3])
    rnn = nn.RNN(jdrop.linen.Zoneout(nn.GRUCell(UNITS), 0.5, deterministic=False))
    carry, y = rnn.init_with_output({"params": key(), **RNGS}, X, seq_lengths=lengths, return_carry=True)[0]
    np.testing.assert_array_equal(carry.cell, y[jnp.arange(BATCH), lengths - 1])
    assert rnn.init_with_output({"params": key(), **RNGS}, X[:0])[0].shape == (0, TIME, UNITS)


@pytest.mark.slow
def test_bidirectional_directions_have_masks_of_their_own():
    wrap = lambda: nn.RNN(jdrop.linen.RecurrentDropout(Seen(), 0.5, deterministic=False))
    seen = nn.Bidirectional(wrap(), wrap()).apply({}, jnp.ones((4, 3, 50)), rngs=RNGS, seq_lengths=jnp.full(4, 3))
    forward, backward = np.split(np.asarray(seen), 2, -1) if seen.shape[-1] == 4 else (seen[..., :2], seen[..., 2:])
    assert (forward != backward).any()


@some("framework", ["linen", "nnx"], 1)
@some("wrap", range(3), 2, ids=["dropout", "zoneout", "both"])
def test_predictors_draw_once_a_sample(framework, wrap):
    if framework == "linen":
        model = Net(("recurrent", "zoneout", "recurrent zoneout")[wrap])
        variables = model.init(key(3), X)
        predict, plain = jdrop.linen.predictor(model, variables), model.apply(variables, X)
    else:
        model = nnx_rnn(WRAPS[wrap])
        model.eval()
        predict, plain = jdrop.nnx.predictor(model), model(X)
    samples = np.asarray(jdrop.mc.samples(predict, key(1), X, 3))
    assert all((samples[i] != samples[j]).any() for i, j in itertools.combinations(range(3), 2))
    assert (samples != plain).any()
    np.testing.assert_array_equal(jdrop.mc.samples(predict, key(1), X, 3), samples)


class SeenNNX(nnx.RNNCellBase):
    num_feature_axes = 1

    def initialize_carry(self, input_shape, rngs=None, carry_init=None):
        return jnp.ones(input_shape), jnp.ones(input_shape)

    def __call__(self, carry, inputs):
        return (carry[0], jnp.ones_like(carry[1])), jnp.stack([inputs, carry[1]], -1)


@some("framework", ["linen", "nnx"], 0)
@some("fresh", [False, True], 0)
def test_a_sample_s_masks_are_constant_over_time(framework, fresh):
    if framework == "linen":
        cell = jdrop.linen.RecurrentDropout(Seen(), 0.5, fresh=fresh, deterministic=True)
        predict = jdrop.linen.predictor(nn.RNN(cell), {})
    else:
        cell = jdrop.nnx.RecurrentDropout(SeenNNX(), 0.5, fresh=fresh, deterministic=True, rngs=nnx.Rngs(0))
        predict = jdrop.nnx.predictor(nnx.RNN(cell))
    samples = np.asarray(jdrop.mc.samples(predict, key(1), jnp.ones((4, 3, 50)), 2))
    assert set(samples.ravel()) == {0.0, 2.0}
    assert (samples[:, :, 0] == samples[:, :, 1]).all() != fresh
    assert (samples[0] != samples[1]).any()


@some("fresh", [False, True])
def test_key_reuse_is_clean_through_a_loop_over_time(fresh):
    cell = jdrop.linen.RecurrentDropout(nn.GRUCell(UNITS), 0.5, fresh=fresh, deterministic=False)
    cell = jdrop.linen.Zoneout(cell, 0.5, deterministic=False)
    with jax.debug_key_reuse(True):
        variables = nn.RNN(cell).init({"params": key(), "dropout": key(1)}, X)
        for rng in (key(2), key(3)):
            jax.jit(nn.RNN(cell).apply)(variables, X, rngs={"dropout": rng})


class Stack(nn.RNNCellBase):
    """Two cells as one."""

    @nn.compact
    def __call__(self, carry, x):
        first, x = nn.LSTMCell(UNITS, name="first")(carry[0], x)
        second, x = nn.GRUCell(UNITS, name="second")(carry[1], x)
        return (first, second), x

    @nn.nowrap
    def initialize_carry(self, rng, shape):
        state = jnp.zeros((*shape[:-1], UNITS))
        return (state, state), state

    num_feature_axes = 1


def test_a_carry_of_several_cells_is_refused():
    cell = jdrop.linen.RecurrentDropout(Stack(), 0.5, deterministic=False)
    with pytest.raises(TypeError, match=r"parts within parts.*wrap each of the inner cells by itself"):
        nn.RNN(cell).init({"params": key(), **RNGS}, X)


def test_errors_of_the_wrappers():
    ours, gru = jdrop.linen, nn.GRUCell(UNITS)
    rngs = {"params": key(), **RNGS}
    for cell in (ours.RecurrentDropout(gru, 0.5, deterministic=False), ours.Zoneout(gru, 0.5, deterministic=False)):
        with pytest.raises(ours.MissingStreamError, match=r"'dropout'.*rngs=\{'dropout': key\}"):
            nn.RNN(cell).apply({}, X)
        carry = cell.initialize_carry(key(), (BATCH, INPUTS))
        with pytest.raises(ours.MissingStreamError, match="method='initialize_carry'"):
            cell.init(rngs, carry, X[:, 0])
        with pytest.raises(TypeError, match=r"carry\._replace\(cell=state\)"):
            cell.init(rngs, carry.cell, X[:, 0])
    drop, zone = (
        nn.RNN(c).apply({}, X, method=lambda m, x: m.cell.initialize_carry(key(), x[:, 0].shape), rngs=RNGS)
        for c in (ours.RecurrentDropout(gru, 0.5), ours.Zoneout(gru, 0.5))
    )
    with pytest.raises(TypeError, match="RecurrentDropout did not make"):
        ours.RecurrentDropout(gru, 0.5, deterministic=False).init(rngs, zone, X[:, 0])
    with pytest.raises(TypeError, match="Zoneout did not make"):
        ours.Zoneout(gru, 0.5, deterministic=False).init(rngs, drop, X[:, 0])
    with pytest.raises(ValueError, match='"deterministic" must be passed'):
        nn.RNN(ours.RecurrentDropout(gru, 0.5)).init(rngs, X)
    with pytest.raises(ValueError, match=r"rate holds 2 rates, but the cell's carry has 1 parts"):
        nn.RNN(ours.Zoneout(gru, (0.5, 0.05), deterministic=False)).init(rngs, X)
    with pytest.raises(ValueError, match="put jit or remat around Zoneout"):
        nn.RNN(ours.Zoneout(Seen(), 0.5, deterministic=False)).init(rngs, jnp.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="rate is 1.5"):
        nn.RNN(ours.RecurrentDropout(gru, 0.5, 1.5, deterministic=False)).init(rngs, X)

    class Bare(nn.GRUCell):
        def __call__(self, carry, inputs):
            return carry, carry

    with pytest.raises(ValueError, match="found no layer in Bare.*recurrent_rate=0.0"):
        nn.RNN(ours.RecurrentDropout(Bare(UNITS), 0.5, deterministic=False)).init(rngs, X)


def test_errors_of_the_nnx_wrappers():
    ours, gru = jdrop.nnx, nnx.GRUCell(INPUTS, UNITS, rngs=nnx.Rngs(0))
    for cell in (ours.RecurrentDropout(gru, 0.5), ours.Zoneout(gru, 0.5)):
        with pytest.raises(ValueError, match=r"had no `rngs`.*rngs=nnx.Rngs\(dropout=0\)"):
            nnx.RNN(cell)(X)
        with pytest.raises(TypeError, match=r"carry\._replace\(cell=state\)"):
            cell(jnp.ones((BATCH, UNITS)), X[:, 0])
        cell.deterministic = None
        with pytest.raises(ValueError, match="No `deterministic` argument was provided"):
            nnx.RNN(cell)(X)
    with pytest.raises(ValueError, match="random stream 'dropout'"):
        ours.Zoneout(gru, 0.5, rngs=nnx.Rngs(params=0))
    with pytest.raises(TypeError, match="rngs must be"):
        ours.RecurrentDropout(gru, 0.5, rngs=3)

    class Bare(nnx.GRUCell):
        def __call__(self, carry, inputs):
            return carry, carry

    with pytest.raises(ValueError, match="found no layer in Bare"):
        nnx.RNN(ours.RecurrentDropout(Bare(INPUTS, UNITS, rngs=nnx.Rngs(0)), 0.5, rngs=nnx.Rngs(0)))(X)
