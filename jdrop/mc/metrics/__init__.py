"""Scores of probabilities, of uncertainties and of predicted distributions, each one number unless it says otherwise.

All run under `jax.jit` but `auroc` and `aupr`, which call scikit-learn.
"""

from jdrop.mc.metrics.classification import adaptive_ece as adaptive_ece
from jdrop.mc.metrics.classification import brier as brier
from jdrop.mc.metrics.classification import classwise_ece as classwise_ece
from jdrop.mc.metrics.classification import ece as ece
from jdrop.mc.metrics.classification import mce as mce
from jdrop.mc.metrics.classification import nll as nll
from jdrop.mc.metrics.classification import reliability as reliability
from jdrop.mc.metrics.regression import crps_ensemble as crps_ensemble
from jdrop.mc.metrics.regression import crps_gaussian as crps_gaussian
from jdrop.mc.metrics.regression import interval_coverage as interval_coverage
from jdrop.mc.metrics.regression import interval_width as interval_width
from jdrop.mc.metrics.regression import log_likelihood as log_likelihood
from jdrop.mc.metrics.regression import pit_ensemble as pit_ensemble
from jdrop.mc.metrics.regression import pit_gaussian as pit_gaussian
from jdrop.mc.metrics.regression import rmse as rmse
from jdrop.mc.metrics.regression import sharpness as sharpness
from jdrop.mc.metrics.selection import aupr as aupr
from jdrop.mc.metrics.selection import aurc as aurc
from jdrop.mc.metrics.selection import auroc as auroc
from jdrop.mc.metrics.selection import risk_coverage as risk_coverage
from jdrop.mc.metrics.selection import selective_accuracy as selective_accuracy
