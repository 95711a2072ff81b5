"""Attention in Flax's modules: Flax's own where nothing is dropped, and else its weights times `keep_mask`."""

import functools
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import array, key
from flax import nnx
from jax import lax
from tiers import some

import jdrop

FNS = {"linen": jdrop.linen.attention_fn, "nnx": jdrop.nnx.attention_fn}
FLAX = {"linen": nn.dot_product_attention, "nnx": nnx.dot_product_attention}
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def operands(batch=(2,), heads=4, groups=4):
    return [array((*batch, n, h, 8), seed=i) for i, (n, h) in enumerate(((5, heads), (7, groups), (7, groups)))]


def weights(q, k, mask=None):
    """NumPy's, of as many heads in both; 0 for a query that sees no key."""
    logits = np.einsum("...qhd,...khd->...hqk", np.asarray(q), np.asarray(k)) / np.sqrt(8)
    p = np.exp(logits) * (1 if mask is None else np.asarray(mask) != 0)
    return p / np.maximum(p.sum(-1, keepdims=True), 1e-30)


@pytest.mark.parametrize("family", FNS)
@some("batch", [(), (2,), (2, 3)], 2)
def test_without_dropout_it_is_flax_s(family, batch):
    q, k, v = operands(batch)
    mask = jnp.tril(jnp.ones((5, 7))).at[:, 0].set(1)
    for arguments in ({}, {"mask": jnp.broadcast_to(mask, (*batch, 1, 5, 7))}, {"bias": array((*batch, 4, 5, 7))}):
        for dropped in ({}, {"dropout_rate": 0.5, "deterministic": True}):
            close(FNS[family](q, k, v, **arguments, **dropped), FLAX[family](q, k, v, **arguments, **dropped))


@pytest.mark.parametrize("family", FNS)
@some("batch", [(), (2,), (2, 3)], 2)
@some("shared", [False, True], 0)
def test_the_mask_is_that_of_keep_mask(family, batch, shared):
    q, k, v = operands(batch)
    seen = jnp.tril(jnp.ones((5, 7))).at[3].set(0)
    dims = tuple(range(len(batch) + 1)) if shared else ()
    kept = np.asarray(jdrop.keep_mask(key(), (*batch, 4, 5, 7), 0.3, broadcast_dims=dims))
    wanted = np.einsum("...hqk,...khd->...qhd", weights(q, k, seen) * kept / 0.7, np.asarray(v))
    dropped = {"dropout_rng": key(), "dropout_rate": 0.3, "broadcast_dropout": shared}
    seen = jnp.broadcast_to(seen, (*batch, 1, 5, 7))
    close(FNS[family](q, k, v, mask=seen, **dropped), wanted)
    algorithm = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)  # that has no name: the weights are made in whole
    close(FNS[family](q, k, v, mask=seen, precision=algorithm, **dropped), wanted)


def test_groups_and_causality_in_nnx():
    q, k, v = operands(heads=4, groups=2)
    whole = [jnp.repeat(x, 2, -2) for x in (k, v)]
    seen = np.tril(np.ones((5, 7)))
    kept = np.asarray(jdrop.keep_mask(key(), (2, 4, 5, 7), 0.3))
    wanted = np.einsum("...hqk,...khd->...qhd", weights(q, whole[0], seen) * kept / 0.7, np.asarray(whole[1]))
    for precision in (None, (lax.Precision.HIGHEST, lax.Precision.HIGHEST)):
        given = {"broadcast_dropout": False, "dropout_rng": key(), "dropout_rate": 0.3, "precision": precision}
        close(FNS["nnx"](q, k, v, is_causal=True, **given), wanted)


@pytest.mark.slow
def test_other_products():
    q, k, v = operands()
    kept = np.asarray(jdrop.keep_mask(key(), (2, 4, 5, 7), 0.3))
    wanted = np.einsum("...hqk,...khd->...qhd", weights(q, k) * kept / 0.7, np.asarray(v))
    given = {"broadcast_dropout": False, "dropout_rng": key(), "dropout_rate": 0.3}
    calls = []

    def einsum(*arguments):
        calls.append(arguments[0])
        return jnp.einsum(*arguments)

    def dot(*arguments, **options):
        calls.append("dot")
        return lax.dot_general(*arguments, **options)

    close(FNS["linen"](q, k, v, **given, qk_attn_weights_einsum=einsum, attn_weights_value_einsum=einsum), wanted)
    close(FNS["linen"](q, k, v, **given, einsum_dot_general=dot), wanted)
    assert len(calls) == 4
    with pytest.raises(ValueError, match="write both"):
        FNS["linen"](q, k, v, qk_attn_weights_einsum=einsum)


@pytest.mark.parametrize("family", FNS)
def test_precision_and_dtype_reach_the_products(family):
    q, k, v = operands()
    for precision in (lax.Precision.HIGHEST, "highest", None):
        f = lambda q, precision=precision: FNS[family](q, k, v, precision=precision).sum()
        text = jax.jit(jax.grad(f)).lower(q).as_text()
        assert text.count("[HIGHEST, HIGHEST]") == (text.count("stablehlo.dot_general") if precision else 0)
    assert FNS[family](q, k, v, dtype=jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.parametrize("family", FNS)
def test_shapes_that_do_not_fit_are_refused(family):
    q, k, v = operands()
    for said, wrong in (
        ("same rank", (q, k[0], v[0])),
        ("batch dims", (q, k[:1], v[:1])),
        ("lengths", (q, k, v[:, 1:])),
        ("depths", (q, k[..., 1:], v)),
    ):
        with pytest.raises(ValueError, match=said):
            FNS[family](*wrong)


LINEN = {"num_heads": 4, "dropout_rate": 0.3}


def flax_layer(shared=False, **given):
    return nn.MultiHeadDotProductAttention(broadcast_dropout=shared, attention_fn=FNS["linen"], **LINEN, **given)


def test_linen_layers_are_flax_s_with_another_mask():
    x, other = array((2, 6, 8)), array((2, 9, 8), seed=2)
    ours = jdrop.linen.MultiHeadDotProductAttention(**LINEN)
    variables = ours.init(key(), x, deterministic=True)
    plain = nn.MultiHeadDotProductAttention(**LINEN)
    jax.tree.map(np.testing.assert_array_equal, variables, plain.init(key(), x, deterministic=True))
    for inputs in ((x,), (x, other)):
        close(ours.apply(variables, *inputs, deterministic=True), plain.apply(variables, *inputs, deterministic=True))
        drawn = [
            layer.apply(variables, *inputs, deterministic=False, rngs={"dropout": key(2)})
            for layer in (ours, flax_layer(), flax_layer(shared=True))
        ]
        close(drawn[0], drawn[1])
        assert not np.allclose(drawn[0], drawn[2], rtol=1e-2)
    one = jdrop.linen.SelfAttention(**LINEN)
    close(
        one.apply(variables, x, deterministic=False, rngs={"dropout": key(2)}),
        ours.apply(variables, x, deterministic=False, rngs={"dropout": key(2)}),
    )


@pytest.mark.slow
def test_sown_weights_come_with_the_same_mask():
    x = array((2, 6, 8))
    layer = jdrop.linen.MultiHeadDotProductAttention(**LINEN, deterministic=False)
    variables = layer.init(key(), x)
    given = {"rngs": {"dropout": key(2)}, "mutable": ["intermediates"]}
    y, none = layer.apply(variables, x, **given)
    sown, seen = layer.apply(variables, x, sow_weights=True, **given)
    close(y, sown)
    assert not none
    close(seen["intermediates"]["attention_weights"][0].sum(-1), 1)


def test_linen_decodes_a_token_at_a_time():
    x = array((2, 6, 8))
    layer = jdrop.linen.MultiHeadDotProductAttention(**LINEN, decode=True)
    variables = layer.init(key(), x, deterministic=True)
    whole = jdrop.linen.MultiHeadDotProductAttention(**LINEN).apply(
        {"params": variables["params"]}, x, mask=nn.make_causal_mask(x[..., 0]), deterministic=True
    )
    cache = variables["cache"]
    for place in range(6):
        token, changed = layer.apply(
            {"params": variables["params"], "cache": cache},
            x[:, place : place + 1],
            deterministic=True,
            mutable=["cache"],
        )
        cache = changed["cache"]
        close(token, whole[:, place : place + 1])


def test_nnx_layers_are_flax_s_with_another_mask():
    x = array((2, 6, 8))
    make = lambda layer, **given: layer(4, 8, dropout_rate=0.3, decode=False, rngs=nnx.Rngs(0, dropout=1), **given)
    ours, plain = make(jdrop.nnx.MultiHeadAttention), make(nnx.MultiHeadAttention)
    close(ours(x, deterministic=True), plain(x, deterministic=True))
    given = {"attention_fn": FNS["nnx"], "broadcast_dropout": False}
    drawn = [layer(x, deterministic=False) for layer in (ours, make(nnx.MultiHeadAttention, **given))]
    close(*drawn)
    assert not np.allclose(drawn[0], make(jdrop.nnx.MultiHeadAttention, broadcast_dropout=True)(x, deterministic=False))
    again = make(jdrop.nnx.MultiHeadAttention)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Flax's sow outside of what catches it
        close(again(x, deterministic=False, sow_weights=True), drawn[0])


def test_predictors_make_attention_stochastic():
    x = array((2, 6, 8))
    layer = jdrop.linen.MultiHeadDotProductAttention(**LINEN, deterministic=True)
    variables = layer.init(key(), x)
    predict = jdrop.linen.predictor(layer, variables)
    model = jdrop.nnx.MultiHeadAttention(4, 8, dropout_rate=0.3, deterministic=True, decode=False, rngs=nnx.Rngs(0))
    for f in (predict, jdrop.nnx.predictor(model)):
        samples = jdrop.mc.samples(f, key(), x, 5)
        assert (np.asarray(samples).std(0) > 0).all()
        close(f(jdrop.fold_in(key(), 3), x), samples[3])
