"""Penalties on trees of weights, their constraint and their scaling."""

from jdrop.weights._drop_connect import drop_connect as drop_connect
from jdrop.weights._drop_connect import drop_connect_moments as drop_connect_moments
from jdrop.weights._drop_connect import mixout as mixout
from jdrop.weights._max_norm import max_norm as max_norm
from jdrop.weights._penalties import l1 as l1
from jdrop.weights._penalties import l2 as l2
from jdrop.weights._scaling import scale_weights as scale_weights
