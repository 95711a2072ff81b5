"""What the articles say of masks, scales and gradients, and the networks of articles 001 and 003, without scales."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.decomposition import PCA

import jdrop
from experiments.articles.systems import parts, row
from experiments.common.claims import Findings, above, below, by_both, claim, differs, exactly, judge
from experiments.common.images import take
from experiments.common.networks import Dense, of_network
from experiments.common.variants import evaluate, nats, train_variants

DROPPED = "Dense_1"  # the layer whose inputs are dropped
ERRORS = [  # m is the mask, of which each element is 1 with probability 1 - p and else 0
    {
        "article": "000",
        "says": "dropout needs a penalty in the loss, mean loss + λ Σ θ²",
        "right": "it needs none, though it can be combined with one; in expectation it is one, in linear regression "
        "E[Σᵢ (yᵢ - Σⱼ wⱼ mᵢⱼ xᵢⱼ / (1 - p))²] = Σᵢ (yᵢ - Σⱼ wⱼ xᵢⱼ)² + p / (1 - p) Σⱼ wⱼ² Σᵢ xᵢⱼ²",
    },
    {
        "article": "003",
        "says": "x = y, y = z and w = (1/p) Σ x y relate training to prediction, with the keep probability p",
        "right": "classic: W (m x) in training and p W x in prediction; inverted: W (m x / p) in training and W x in "
        "prediction",
    },
    {
        "article": "004",
        "says": "in one place the output at test time is multiplied by 1 / (1 - p)",
        "right": "by 1 - p, if training had the bare mask (as the article says elsewhere), since E[m x] = (1 - p) x; "
        "by nothing, if training divided by 1 - p",
    },
]
BARE, CLASSIC = (functools.partial(jdrop.linen.Dropout, scaling=scaling) for scaling in ("none", "classic"))
EPSILON = float(jnp.finfo(jnp.float32).eps)
RIGHT, UNSCALED, WRONG = "weights (1 - p) w", "weights w", "weights w / (1 - p)"  # at prediction


def unscaled(run):
    """50-64-10 with Keras's inverted dropout, and with the article's D(x), which is not scaled."""
    # The article's inputs are 50 numbers: here the first 50 principal components of the images.
    flat = [(images.reshape(len(images), -1), labels) for images, labels in run.images[1:]]
    pca = PCA(50, random_state=0).fit(flat[0][0])
    train, test = ((pca.transform(x).astype(np.float32), labels) for x, labels in flat)
    run = run._replace(images=run.images._replace(train=train, test=test))
    setting, keys, network = run.setting("dense64", validation=0.0), run.keys("dense50"), "50-64-10"
    data = parts(setting, run.images)
    inverted = train_variants(setting, data, keys, {0.0: {"rate": 0.0}, 0.5: {"rate": 0.5}})
    predictions = bare(setting, data, keys)
    networks = {"no dropout": inverted[0.0], "dropout 0.5": inverted[0.5]}
    networks |= {f"D(x), {name}": predictions[name] for name in (UNSCALED, RIGHT)}
    rows = [row("001", network, name, run, setting, trained) for name, trained in networks.items()]
    text = "D(x) without a scale needs the weights (1 - p) w at prediction"
    scaled = by_both(text, f"{UNSCALED} less {RIGHT}", predictions[UNSCALED].test, predictions[RIGHT].test, above)
    claims = [
        *gradients(of_network(inverted[0.5].params, 0), test, jdrop.fold_in(run.root, "gradients")),
        *implicit_penalty(jdrop.fold_in(run.root, "regression")),
        *judge("001", run.seeds, *scaled),
    ]
    return Findings(rows, claims)


def keeping(run):
    """Masks by a keep probability of 0.5, and three ways of relating the weights at prediction."""
    setting, network = run.setting("dense128"), f"{run.inputs}-128-10"
    data, keys = parts(setting, run.images), run.keys("dense128")
    inverted = train_variants(setting, data, keys, {"inverted": {"rate": 0.5}})["inverted"]
    predictions = bare(setting, data, keys)
    right, none, wrong = (predictions[name].test for name in (RIGHT, UNSCALED, WRONG))
    alike = "trained alike, classic and inverted dropout give different networks"
    text = "the weights at prediction are those of training divided by the keep probability"
    claims = [
        only_mask_and_scale(of_network(inverted.params, 0), data.test[0][:1000], keys[0]),
        *(same_function(predictions[UNSCALED].params, data.test[0][:1000], keys[0], rate) for rate in (0.5, 0.3)),
        *judge(
            "003",
            run.seeds,
            *by_both(text, f"{WRONG} less {RIGHT}", wrong, right, below),
            *by_both("the weights must be scaled", f"{UNSCALED} less {RIGHT}", none, right, above),
            *by_both(alike, "classic less inverted", right, inverted.test, differs),
        ),
    ]
    networks = {"inverted": inverted} | {f"bare mask, {name}": trained for name, trained in predictions.items()}
    rows = [row("003", network, name, run, setting, trained) for name, trained in networks.items()]
    return Findings(rows, claims, [lambda ax: draw(ax, networks)])


def bare(setting, data, keys):
    """Networks trained with the bare mask at rate 0.5, as they predict with each of the weights."""
    model = Dense(setting.model.width, BARE)
    trained = train_variants(setting._replace(model=model), data, keys, {"bare": {"rate": 0.5}})["bare"]
    scaled = {
        name: jdrop.scale_weights(trained.params, {DROPPED: 0.5}, inverse=name == WRONG) for name in (RIGHT, WRONG)
    }
    return {RIGHT: evaluate(model, scaled[RIGHT], data), UNSCALED: trained, WRONG: evaluate(model, scaled[WRONG], data)}


def hidden(model, params, x, key=None, rate=None):
    """The logits, and the output of the dropout layer; a deterministic pass without a key."""
    logits, state = model.apply(
        {"params": params},
        x,
        key is None,
        rate=rate,
        rngs=None if key is None else {"dropout": key},
        capture_intermediates=lambda module, _: isinstance(module, jdrop.linen.Dropout),
    )
    return logits, jax.tree.leaves(state["intermediates"])[0]


def only_in_training(run):
    """Dropout is active in training only."""
    model, key = Dense(64), jdrop.fold_in(run.root, "only in training")
    x = run.images.test[0][:100]
    params = model.init(key, x, True)["params"]
    first, second = (
        [model.apply({"params": params}, x, mode, rngs={"dropout": jdrop.fold_in(key, i)}) for mode in (True, False)]
        for i in range(2)
    )
    prediction, training = (float(abs(a - b).max()) for a, b in zip(first, second))
    measured = f"largest difference of logits with two keys, in prediction (in training {training:.2g})"
    holds = exactly(prediction == 0 and training > 0)
    return Findings(claims=[claim("000", "dropout is only active in training", measured, prediction, holds)])


def gradients(params, data, key):
    """The gradient of D(x), and what it lets back into a network."""
    x, rate = jax.random.normal(jdrop.fold_in(key, "x"), (1000, 1000)), 0.5
    gradient = jax.grad(lambda x: jdrop.dropout(key, x, rate, scaling="none").sum())(x)
    error = float(abs(gradient - jdrop.keep_mask(key, x.shape, rate)).max())
    measured = "largest difference from the mask, of 1,000,000 elements"
    yield claim("001", "the gradient of D(x) is 0 or 1", measured, error, exactly(error == 0))

    def loss(kernel, image, label, key):
        units = jax.nn.relu(image @ kernel + params["Dense_0"]["bias"])
        dropped = jdrop.dropout(key, units, rate, scaling="none")
        return -jax.nn.log_softmax(dropped @ params[DROPPED]["kernel"] + params[DROPPED]["bias"])[label]

    keys = jax.random.split(jdrop.fold_in(key, "images"), 100)
    kernel, (images, labels) = params["Dense_0"]["kernel"], take(data, slice(100))
    of_units = jax.vmap(jax.grad(loss), (None, 0, 0, 0))(kernel, images, labels, keys)
    kept = jax.vmap(lambda key: jdrop.keep_mask(key, kernel.shape[1:], rate))(keys)
    largest = abs(of_units).max(1)
    reached = float(jnp.where(kept, 0, largest).max())
    text = "units dropped forward get no gradient backward"
    measured = f"largest gradient of a dropped unit's weights (of a kept one's {float(largest.max()):.2g}), 100 images"
    yield claim("001", text, measured, reached, exactly(reached == 0))


def implicit_penalty(key):
    """The loss that dropout adds in expectation, in linear regression, from every mask of 8 inputs."""
    rate = 0.5
    x, w, y = (jax.random.normal(jdrop.fold_in(key, name), shape) for name, shape in zip("xwy", ((50, 8), 8, 50)))
    masks, weights = jdrop.mc.all_masks(8, rate)
    losses = ((y - (masks[:, None] * x / (1 - rate)) @ w) ** 2).sum(1)
    added = float((weights * losses).sum() - ((y - x @ w) ** 2).sum())
    penalty = float(rate / (1 - rate) * ((x**2).sum(0) * w**2).sum())
    text = "unlike L1 and L2, dropout adds no penalty, in expectation either"
    measured = "expected loss less that without a mask, linear regression"
    yield claim("001", text, measured, added, exactly(abs(added) < 1e-5 * abs(penalty)))
    text = "in linear regression it adds p/(1-p) sum w² x² in expectation"
    error = abs(added / penalty - 1)
    yield claim("001", text, f"relative difference; all {len(masks)} masks", error, exactly(error < 1e-5))


def only_mask_and_scale(params, x, key):
    """A pass in training is the pass in prediction with m * h / (1 - p) in the place of h."""
    model = Dense(len(params["Dense_0"]["bias"]))
    _, units = hidden(model, params, x)
    logits, dropped = hidden(model, params, x, key)
    masked = jnp.where(dropped != 0, units / 0.5, 0)
    expected = masked @ params[DROPPED]["kernel"] + params[DROPPED]["bias"]
    error = max(float(abs(a - b).max() / abs(a).max()) for a, b in ((dropped, masked), (logits, expected)))
    text = "training and prediction differ only by the mask and the scale"
    return claim("003", text, "largest relative difference", error, exactly(error < 10 * EPSILON))


def same_function(params, x, key, rate):
    """Classic and inverted networks with corresponding weights, in training with the same key and in prediction."""
    params = of_network(params, 0)
    width = len(params["Dense_0"]["bias"])
    classic, inverted = Dense(width, CLASSIC), Dense(width)
    scaled = jdrop.scale_weights(params, {DROPPED: rate})
    errors = []
    for of_pass in (key, None):
        a, b = (hidden(model, of, x, of_pass, rate)[0] for model, of in ((classic, params), (inverted, scaled)))
        errors.append(float(abs(a - b).max() / abs(a).max()))
    text = f"classic and inverted scaling give the same network (rate {rate})"
    measured = "largest relative difference of logits, training and prediction"
    return claim("003", text, measured, max(errors), exactly(max(errors) < 10 * EPSILON))


def expectations(run):
    """E[r x] = (1 - p) x, by enumeration; and the scales at test time."""
    x = jax.random.normal(jdrop.fold_in(run.root, "expectations"), 12)
    rates, error, wrong = (0.1, 0.5, 0.9), 0.0, np.inf
    for rate in rates:
        masks, weights = jdrop.mc.all_masks(len(x), rate)
        expected = (weights[:, None] * masks * x).sum(0)
        error = max(error, float(abs(expected / x - (1 - rate)).max()))
        wrong = min(wrong, float(abs(expected / x - 1 / (1 - rate)).min()))
    pair = jnp.array([3.0, -2.0])
    halved = abs(jdrop.dropout(None, pair, 0.5, True, scaling="classic") - jnp.array([1.5, -1.0])).max()
    measured = f"E[r x] / x less {{}}, all {len(masks)} masks of {len(x)} units, rates {rates}: the {{}}"
    return Findings(
        claims=[
            claim(
                "004", "E[r x] = (1 - p) x", measured.format("1 - p", "largest"), error, exactly(error < 10 * EPSILON)
            ),
            claim(
                "004",
                "at test time the output is multiplied by 1 / (1 - p)",
                measured.format("1 / (1 - p)", "smallest"),
                wrong,
                exactly(wrong < 10 * EPSILON),
            ),
            claim(
                "004",
                "classic dropout with rate 0.5 turns [x1, x2] into 0.5 [x1, x2] at test time",
                "largest difference",
                halved,
                exactly(halved == 0),
            ),
        ]
    )


def draw(ax, networks):
    values = [nats(trained.test) for trained in networks.values()]
    ax.barh(list(networks), [value.mean for value in values], xerr=[value.error for value in values], capsize=3)
    ax.invert_yaxis()
    ax.set(xlabel="test NLL (nats)", title="003: weights at prediction")
