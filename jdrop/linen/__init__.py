"""jdrop for Flax Linen: modules in the place of Flax's own, and models as `predict(key, x)`."""

from jdrop.linen.dropout import Dropout as Dropout
from jdrop.linen.dropout import MissingStreamError as MissingStreamError
from jdrop.linen.model import predictor as predictor
from jdrop.linen.recurrent import RecurrentDropout as RecurrentDropout
from jdrop.linen.recurrent import Zoneout as Zoneout
