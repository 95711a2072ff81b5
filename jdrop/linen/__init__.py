"""jdrop for Flax Linen: modules in the place of Flax's own, and models as `predict(key, x)`."""

from jdrop.linen._attention import MultiHeadDotProductAttention as MultiHeadDotProductAttention
from jdrop.linen._attention import SelfAttention as SelfAttention
from jdrop.linen._attention import attention_fn as attention_fn
from jdrop.linen._dropout import Dropout as Dropout
from jdrop.linen._dropout import MissingStreamError as MissingStreamError
from jdrop.linen._model import predictor as predictor
from jdrop.linen._recurrent import RecurrentDropout as RecurrentDropout
from jdrop.linen._recurrent import Zoneout as Zoneout
