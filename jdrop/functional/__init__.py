"""Dropout of activations, as functions of a key."""

from jdrop.functional._attention import dot_product_attention as dot_product_attention
from jdrop.functional._dropout import dropout as dropout
from jdrop.functional._recurrent import variational_mask as variational_mask
from jdrop.functional._recurrent import zoneout as zoneout
