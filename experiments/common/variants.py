"""Variants of one network, trained for every seed in one program, and what they say of images."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from experiments.common.images import take
from experiments.common.networks import Outcome, of_network, outcome, train
from experiments.common.tables import estimate

TRAIN_EXAMPLES = 10_000  # of the training images, on which the training error is measured


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


def percent(outcome):
    """The error, in per cent."""
    return estimate(100 * outcome.wrong.mean(1))


def nats(outcome):
    """The mean negative log-likelihood."""
    return estimate(outcome.nll.mean(1))
