"""Penalties on trees of weights, their constraint and their scaling."""

from jdrop.weights._max_norm import max_norm as max_norm
from jdrop.weights._penalties import l1 as l1
from jdrop.weights._penalties import l2 as l2
from jdrop.weights._scaling import scale_weights as scale_weights
