"""The networks of the source articles with and without their dropout: what all of them share."""

from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

import jdrop
from experiments.common.images import Images, take
from experiments.common.networks import NETWORKS, Outcome, of_network, outcome, train
from experiments.common.tables import estimate

TRAIN_EXAMPLES = 10_000  # of the training images, on which the training error is measured


class Run(NamedTuple):
    """What every part of the experiment is given: images, a root key, the folder for tables, the number of seeds."""

    images: Images
    root: jax.Array
    out: Path
    seeds: int
    quick: bool

    def keys(self, *path):
        """A key for each seed."""
        return jax.vmap(lambda seed: jdrop.fold_in(self.root, *path, seed))(jnp.arange(self.seeds))

    @property
    def inputs(self):
        return self.images.train[0][0].size

    def setting(self, network, **changes):
        return NETWORKS[network]._replace(**changes | ({"epochs": 1} if self.quick else {}))


class Trained(NamedTuple):
    """The networks of all seeds, and what they say of training, validation and test images."""

    model: nn.Module
    params: dict
    train: Outcome
    validation: Outcome | None
    test: Outcome


class Parts(NamedTuple):
    """Pairs of images and labels; the validation part may be empty."""

    train: tuple
    validation: tuple
    test: tuple


def parts(setting, images) -> Parts:
    """The training examples, the last ones of which a setting may keep for validation, and the test examples."""
    count = round((1 - setting.validation) * len(images.train[1]))
    return Parts(take(images.train, slice(count)), take(images.train, slice(count, None)), images.test)


def train_variants(setting, data, keys, variants, **options) -> dict[str, Trained]:
    """Train a network for each key and each of the variants, {name: {option: number}}, all in one program.

    The variants of a seed share their key: first weights, order of the data and masks.
    """
    names = {name: None for variant in variants.values() for name in variant}
    numbers = {name: jnp.repeat(jnp.array([of[name] for of in variants.values()]), len(keys)) for name in names}
    params = train(setting, data.train, keys[jnp.tile(jnp.arange(len(keys)), len(variants))], **numbers, **options)
    return {
        name: evaluate(setting.model, of_network(params, slice(i * len(keys), (i + 1) * len(keys))), data)
        for i, name in enumerate(variants)
    }


def evaluate(model, params, data) -> Trained:
    seen = data._replace(train=take(data.train, slice(TRAIN_EXAMPLES)))
    return Trained(model, params, *(outcome(model, params, part) if len(part[1]) else None for part in seen))


def row(article, network, variant, run, setting, trained) -> dict:
    """A row of the table of systems."""
    parts = {"train": trained.train, "validation": trained.validation, "test": trained.test}
    return (
        {"article": article, "network": network, "variant": variant, "data": run.images.name}
        | {"epochs": setting.epochs, "seeds": run.seeds}
        | {f"{name} error %": percent(part) if part else "-" for name, part in parts.items()}
        | {"test NLL": nats(trained.test)}
    )


def percent(outcome):
    """The error, in per cent."""
    return estimate(100 * outcome.wrong.mean(1))


def nats(outcome):
    """The mean negative log-likelihood."""
    return estimate(outcome.nll.mean(1))
