"""Dropout for JAX and Flax: exact, reproducible, and with its uncertainty."""

from jdrop import functional as functional
from jdrop import linen as linen
from jdrop import masks as masks
from jdrop import mc as mc
from jdrop import nnx as nnx
from jdrop import training as training
from jdrop import weights as weights
from jdrop._accelerate import accelerate as accelerate
from jdrop._keys import fold_in as fold_in
from jdrop.functional import dot_product_attention as dot_product_attention
from jdrop.functional import dropout as dropout
from jdrop.functional import variational_mask as variational_mask
from jdrop.functional import zoneout as zoneout
from jdrop.masks import keep_mask as keep_mask
from jdrop.mc import MCPrediction as MCPrediction
from jdrop.mc import mc_dropout as mc_dropout
from jdrop.weights import l1 as l1
from jdrop.weights import l2 as l2
from jdrop.weights import max_norm as max_norm
from jdrop.weights import scale_weights as scale_weights
