"""The networks of the source articles with and without their dropout: what all of them share."""

from pathlib import Path
from typing import NamedTuple

import jax

from experiments.common.fitting import network_keys
from experiments.common.images import Images, take
from experiments.common.networks import NETWORKS
from experiments.common.variants import Parts, nats, percent


class Run(NamedTuple):
    """What every part of the experiment is given: images, a root key, the folder for tables, the number of seeds."""

    images: Images
    root: jax.Array
    out: Path
    seeds: int
    quick: bool

    def keys(self, *path):
        """A key for each seed."""
        return network_keys(self.root, self.seeds, *path)

    @property
    def inputs(self):
        return self.images.train[0][0].size

    def setting(self, network, **changes):
        return NETWORKS[network]._replace(**changes | ({"epochs": 1} if self.quick else {}))


def parts(setting, images) -> Parts:
    """The training examples, the last ones of which a setting may keep for validation, and the test examples."""
    count = round((1 - setting.validation) * len(images.train[1]))
    return Parts(take(images.train, slice(count)), take(images.train, slice(count, None)), images.test)


def row(article, network, variant, run, setting, trained) -> dict:
    """A row of the table of systems."""
    parts = {"train": trained.train, "validation": trained.validation, "test": trained.test}
    return (
        {"article": article, "network": network, "variant": variant, "data": run.images.name}
        | {"epochs": setting.epochs, "seeds": run.seeds}
        | {f"{name} error %": percent(part) if part else "-" for name, part in parts.items()}
        | {"test NLL": nats(trained.test)}
    )
