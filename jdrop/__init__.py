"""Dropout for JAX and Flax: exact, reproducible, and with its uncertainty."""

from jdrop import linen as linen
from jdrop import mc as mc
from jdrop import nnx as nnx
from jdrop import training as training
from jdrop.functional.elementwise import dropout as dropout
from jdrop.functional.penalties import l1 as l1
from jdrop.functional.penalties import l2 as l2
from jdrop.functional.penalties import max_norm as max_norm
from jdrop.functional.recurrent import variational_mask as variational_mask
from jdrop.functional.recurrent import zoneout as zoneout
from jdrop.functional.scaling import scale_weights as scale_weights
from jdrop.keys import fold_in as fold_in
from jdrop.masks import keep_mask as keep_mask
from jdrop.mc import MCPrediction as MCPrediction
from jdrop.mc import mc_dropout as mc_dropout
