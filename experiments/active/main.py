"""The loop of rounds and its report."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

import jdrop
from experiments.common.devices import cores, use_all_cores
from experiments.common.fitting import network_keys
from experiments.common.images import load_images, take
from experiments.common.networks import of_network
from experiments.common.plotting import plt, save
from experiments.common.provenance import made_by
from experiments.common.tables import estimate, save_table

NEEDS_DATA = True
REPEATS, START, BATCH, ROUNDS, STEPS, CANDIDATES, PASSES, CONFIGURATIONS = 3, 20, 10, 98, 300, 500, 50, 1000
SCORES = {
    "BALD": jdrop.mc.uncertainty.mutual_information,
    "variation ratio": jdrop.mc.uncertainty.variation_ratio,
    "max entropy": jdrop.mc.uncertainty.predictive_entropy,
    "mean std": jdrop.mc.acquisition.mean_std,
}
METHODS, QUICK = (*SCORES, "BatchBALD", "random"), ("BALD", "BatchBALD", "random")
PUBLISHED = {  # labels to an error of 10 and of 5 %
    "BALD": (145, 335), "variation ratio": (120, 295), "max entropy": (165, 355), "mean std": (230, 695),
    "random": (255, 835),
}  # fmt: skip


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        for channels, size, stride in ((16, 5, 3), (32, 3, 2)):
            x = nn.relu(nn.Dense(channels)(patches(x, size, stride)))
        x = jdrop.linen.Dropout(0.25)(x.reshape(len(x), -1), deterministic)
        x = jdrop.linen.Dropout(0.5)(nn.relu(nn.Dense(128)(x)), deterministic)
        return nn.Dense(10)(x)


def patches(x, size, stride):
    """The patches that a convolution sees: a product follows, which on a CPU is faster in a loop than a convolution."""
    height, width = (-(-(side - size + 1) // stride) for side in x.shape[1:3])
    starts = [(row, column) for row in range(size) for column in range(size)]
    ends = stride * (height - 1) + 1, stride * (width - 1) + 1
    return jnp.concatenate([x[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i, j in starts], -1)


MODEL = Network()


def add_options(parser):
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of ten labels each (default: %(default)s)")


def run(args):
    use_all_cores()
    images = load_images(args.data_dir)
    if images.train[0].shape[1] < 28:  # scikit-learn's digits of 8x8 pixels, too small for the network
        images = images._replace(train=enlarged(images.train), test=enlarged(images.test))
    rounds, repeats, methods, steps = (1, 2, QUICK, 30) if args.quick else (args.rounds, REPEATS, METHODS, STEPS)
    test = take(images.test, slice(300 if args.quick else None))
    data = jax.tree.map(jnp.asarray, images.train)
    root = jdrop.fold_in(jax.random.key(args.seed), "active")
    keys = network_keys(root, repeats, "repeat")
    size = START + rounds * BATCH
    first = jnp.stack([balanced(key, data[1]) for key in keys])
    labelled = jnp.zeros((len(methods), repeats, size), jnp.int32).at[:, :, :START].set(first)
    errors = []
    counts = START + BATCH * np.arange(rounds + 1)
    for number, count in enumerate(counts):
        of_round = jax.vmap(lambda key, number=number: jdrop.fold_in(key, "round", number))(keys)
        # From the devices to none, since a choice is the work of one.
        params, wrong = jax.device_get(learn(of_round, labelled, count, data, test, steps))
        errors.append(100 * wrong)
        if number < rounds:
            for i, method in enumerate(methods):
                of_method = of_network(params, i)
                picks = choose(method, of_round, of_method, labelled[i], count, data[0])
                labelled = labelled.at[i, :, count : count + BATCH].set(picks)
        if number % 10 == 0:
            shown = (f"{method} {error.mean():.1f} %" for method, error in zip(methods, errors[-1]))
            print(f"{count} labels: {', '.join(shown)}", flush=True)
    errors = dict(zip(methods, np.stack(errors, 1)))

    preface = f"{made_by()} {images.name}, {repeats} repeats; test error in %, ± is a standard error over repeats."
    table = [
        {"labels": int(count)} | {method: estimate(errors[method][i]) for method in methods}
        for i, count in enumerate(counts)
    ]
    save_table(table, args.out, "active", preface)
    print(save_table([labels_to(method, errors[method], counts) for method in methods], args.out, "labels", preface))
    draw(args.out / "active.png", table)
    print(f"wrote active.csv, active.md, labels.csv, labels.md and active.png in {args.out}")


def enlarged(data):
    """Images whose pixels are each a square of three."""
    return data[0].repeat(3, 1).repeat(3, 2), data[1]


def balanced(key, labels):
    """The rows of two images of each class, chosen at random."""
    order = jax.random.permutation(jdrop.fold_in(key, "start"), len(labels))
    return jnp.concatenate([order[labels[order] == label][: START // 10] for label in range(10)])


@jax.jit
def learn(keys, labelled, count, data, test, steps):
    """The networks of all methods and repeats, trained on their first `count` labels, and their test errors."""

    def of_run(key, rows):
        params = fit(key, rows, count, data, steps)
        return params, (MODEL.apply({"params": params}, test[0], True).argmax(-1) != test[1]).mean()

    runs, methods = jax.vmap(jax.vmap(of_run), (None, 0)), PartitionSpec("device")
    specs = {"in_specs": (PartitionSpec(), methods), "out_specs": methods}
    return jax.shard_map(runs, mesh=cores(len(labelled)), check_vma=False, **specs)(keys, labelled)


@functools.partial(jax.jit, static_argnums=0)
def choose(method, keys, params, labelled, count, images):
    """The rows of the images that a method wants labelled next, for each repeat."""

    def of_run(key, params, rows):
        # Those that are labelled come last.
        chance = jax.random.uniform(jdrop.fold_in(key, "candidates"), (len(images),))
        taken = jnp.where(jnp.arange(len(rows)) < count, rows, len(images))
        candidates = jax.lax.top_k(-chance.at[taken].set(2, mode="drop"), CANDIDATES)[1]
        return candidates[pick(method, key, params, images[candidates])]

    return jax.lax.map(lambda run: of_run(*run), (keys, params, labelled))


def fit(key, rows, count, data, steps):
    tx = optax.adam(1e-3)

    def loss_fn(params, key, x, y):
        logits = MODEL.apply({"params": params}, x, False, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def step(number, carry):
        params, state = carry
        of_step = jdrop.fold_in(key, "step", number)
        batch = rows[jax.random.randint(jdrop.fold_in(of_step, "batch"), (64,), 0, count)]
        gradients = jax.grad(loss_fn)(params, jdrop.fold_in(of_step, "dropout"), data[0][batch], data[1][batch])
        updates, state = tx.update(gradients, state)
        return optax.apply_updates(params, updates), state

    params = MODEL.init(jdrop.fold_in(key, "init"), data[0][:1], True)["params"]
    return jax.lax.fori_loop(0, steps + count // 2, step, (params, tx.init(params)))[0]


def pick(method, key, params, x):
    """The rows of `x` to have labelled."""
    acquisition = jdrop.mc.acquisition
    if method == "random":
        return acquisition.top_k(acquisition.random(jdrop.fold_in(key, method), len(x)), BATCH)
    predict = jdrop.linen.predictor(MODEL, {"params": params})
    together = method == "BatchBALD"
    logits = jdrop.mc.samples(predict, jdrop.fold_in(key, "passes"), x, PASSES, consistent=together)
    p = jax.nn.softmax(logits)
    if together:
        return acquisition.batch_bald(jdrop.fold_in(key, method), p, BATCH, CONFIGURATIONS)[0]
    return acquisition.top_k(SCORES[method](p), BATCH)


def labels_to(method, errors, counts) -> dict:
    """The labels at which a method's error first reaches a bound, over repeats that all reach it."""
    row = {"acquisition": method}
    for bound, published in zip((10, 5), PUBLISHED.get(method, ("-", "-"))):
        reached = np.stack(errors) <= bound
        all_reach = reached.any(0).all()
        row[f"labels to {bound} %"] = estimate(counts[reached.argmax(0)]) if all_reach else f"more than {counts[-1]}"
        row[f"published, {bound} %"] = published
    return row | {f"error % at {counts[-1]}": estimate(errors[-1])}


def draw(path, table):
    figure, axis = plt.subplots(figsize=(8.5, 5.5), layout="constrained")
    counts, (_, *methods) = [row["labels"] for row in table], table[0]
    for method in methods:
        mean, error = np.array([row[method] for row in table]).T
        line = axis.plot(counts, mean, label=method)[0]
        axis.fill_between(counts, mean - error, mean + error, color=line.get_color(), alpha=0.2, lw=0)
    for bound in (5, 10):
        axis.axhline(bound, color="black", ls=":", lw=1)
    axis.set(xlabel="labelled images", ylabel="test error, %", yscale="log")
    axis.set_yticks([3, 5, 10, 20, 50], ["3", "5", "10", "20", "50"])
    axis.minorticks_off()
    axis.set_title("Active learning on MNIST; bands are standard errors over repeats")
    axis.legend()
    axis.grid(alpha=0.3)
    save(figure, path)
