"""Monte Carlo dropout: stochastic passes as samples of a prediction, and their uncertainty."""

from jdrop._types import Predict as Predict
from jdrop.mc import acquisition as acquisition
from jdrop.mc import calibration as calibration
from jdrop.mc import conformal as conformal
from jdrop.mc import metrics as metrics
from jdrop.mc import plots as plots
from jdrop.mc import uncertainty as uncertainty
from jdrop.mc._batches import mc_dropout_batches as mc_dropout_batches
from jdrop.mc._ensemble import all_masks as all_masks
from jdrop.mc._ensemble import geometric_mean as geometric_mean
from jdrop.mc._prediction import MCPrediction as MCPrediction
from jdrop.mc._prediction import mc_dropout as mc_dropout
from jdrop.mc._propagate import Moments as Moments
from jdrop.mc._propagate import propagate as propagate
from jdrop.mc._sampling import samples as samples
