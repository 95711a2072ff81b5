"""Article 004: dropout against L1, L2, max-norm, augmented data and early stopping, and each of them with dropout.

Srivastava et al. 2014 publish for all of MNIST and 784-1024-1024-2048-10 test errors of 1.62 % with L2, 1.60 with L1
and L2, 1.35 with max-norm, 1.25 with dropout and L2, 1.05 with dropout and max-norm.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.claims import Findings, below, by_both, judge
from experiments.common.images import take
from experiments.common.tables import save_table
from experiments.common.variants import Parts, nats, percent, train_variants

RATE = 0.5
PLAIN = {"l1": 0.0, "l2": 0.0, "max_norm": np.inf}
STRENGTHS = {  # of which the best on validation images is chosen, for each rate
    "L1": ("l1", (1e-5, 3e-5, 1e-4, 3e-4)),
    "L2": ("l2", (1e-4, 3e-4, 1e-3, 3e-3)),
    "max-norm": ("max_norm", (1.0, 1.5, 2.0, 3.0)),
}
DEGREES, SHIFT = 15, 1 / 14  # the largest rotation, and the largest shift as a fraction of the image's side


def regularizers(run):
    """Dropout 0.5 beside regularizers, of which each has the best strength on validation images, on few images."""
    available = 4 * len(run.images.train[1]) // 5
    size, epochs, patience = (200, 1, 1) if run.quick else (min(5000, available), 40, 5)
    validation = take(run.images.train, slice(available, None))
    data = Parts(take(run.images.train, slice(size)), validation, run.images.test)
    setting, keys = run.setting("dense128")._replace(epochs=epochs), run.keys("regularizers")
    plain = {("none", "-", rate): PLAIN | {"rate": rate} for rate in (0.0, RATE)}
    penalised = {
        (name, strength, rate): PLAIN | {option: strength, "rate": rate}
        for name, (option, strengths) in STRENGTHS.items()
        for strength in strengths
        for rate in (0.0, RATE)
    }
    networks = train_variants(setting, data, keys, plain | penalised)
    for name, options in (
        ("augmented data", {"augment": augment}),
        ("early stopping", {"patience": patience, "validation": validation}),
    ):
        rates = {(name, "-", rate): {"rate": rate} for rate in (0.0, RATE)}
        networks |= train_variants(setting, data, keys, rates, **options)
    chosen = {}
    for name, rate in dict.fromkeys((name, rate) for name, _, rate in networks):
        of_method = [key for key in networks if key[::2] == (name, rate)]
        chosen[name, rate] = min(of_method, key=lambda key: networks[key].validation.nll.mean())
    table = [
        {"regularizer": name, "strength": strength, "rate of dropout": rate}
        | {"chosen": "yes" if (name, strength, rate) in chosen.values() else "no"}
        | {"train error %": percent(trained.train), "validation NLL": nats(trained.validation)}
        | {"test error %": percent(trained.test), "test NLL": nats(trained.test)}
        for (name, strength, rate), trained in networks.items()
    ]
    preface = f"{run.inputs}-128-10 on {size} images of {run.images.name}, {run.seeds} seeds, {epochs} epochs"
    print(save_table(table, run.out, "regularizers", preface))

    names = list(dict.fromkeys(name for name, _ in chosen))
    chosen = {of: networks[key].test for of, key in chosen.items()}
    rows = []
    for name in names:
        if name != "none":
            text = f"dropout 0.5 generalises better than {name}"
            rows += by_both(text, f"dropout less {name}", chosen["none", RATE], chosen[name, 0.0], below)
        text, both = f"dropout 0.5 helps beside {name}", f"{name} with dropout"
        if name == "none":
            text, both = f"dropout 0.5 helps with {size} images", "dropout"
        rows += by_both(text, f"{both} less {name}", chosen[name, RATE], chosen[name, 0.0], below)
    tests = {of: percent(outcome) for of, outcome in chosen.items()}
    return Findings(claims=judge("004", run.seeds, *rows), panels=[lambda ax: draw(ax, names, tests, size)])


def augment(key, images):
    """Images shifted by up to 1/14 of their side (2 pixels of 28) and rotated by up to 15 degrees, at random."""
    count, height, width, _ = images.shape
    limits = jnp.array([jnp.deg2rad(DEGREES), SHIFT * height, SHIFT * width])
    angle, *shift = (jax.random.uniform(key, (count, 3), minval=-1, maxval=1) * limits).T
    center = jnp.array([(height - 1) / 2, (width - 1) / 2])
    rows, columns = jnp.meshgrid(jnp.arange(height) - center[0], jnp.arange(width) - center[1], indexing="ij")

    def one(image, angle, down, right):
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        places = [cos * rows - sin * columns + center[0] - down, sin * rows + cos * columns + center[1] - right]
        return jax.scipy.ndimage.map_coordinates(image[..., 0], places, order=1)[..., None]

    return jax.vmap(one)(images, angle, *shift)


def draw(ax, names, tests, size):
    for shift, rate, label in ((-0.12, 0.0, "alone"), (0.12, RATE, "with dropout 0.5")):
        mean, error = np.array([tests[name, rate] for name in names]).T
        ax.errorbar(mean, np.arange(len(names)) + shift, xerr=error, fmt="o", capsize=3, label=label)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="test error (%)", title=f"004: regularizers, {size} images")
    ax.legend()
