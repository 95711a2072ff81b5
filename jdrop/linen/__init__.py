"""jdrop for Flax Linen: modules in the place of Flax's own, and models as `predict(key, x)`."""

from jdrop.linen._dropout import Dropout as Dropout
from jdrop.linen._dropout import MissingStreamError as MissingStreamError
from jdrop.linen._model import predictor as predictor
from jdrop.linen._recurrent import RecurrentDropout as RecurrentDropout
from jdrop.linen._recurrent import Zoneout as Zoneout
