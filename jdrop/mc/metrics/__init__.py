"""Scores of probabilities, of uncertainties and of predicted distributions, each one number unless it says otherwise.

All run under `jax.jit`.
"""

from jdrop.mc.metrics._classification import adaptive_ece as adaptive_ece
from jdrop.mc.metrics._classification import brier as brier
from jdrop.mc.metrics._classification import classwise_ece as classwise_ece
from jdrop.mc.metrics._classification import ece as ece
from jdrop.mc.metrics._classification import label_log_likelihood as label_log_likelihood
from jdrop.mc.metrics._classification import mce as mce
from jdrop.mc.metrics._classification import nll as nll
from jdrop.mc.metrics._classification import reliability as reliability
from jdrop.mc.metrics._intervals import interval_coverage as interval_coverage
from jdrop.mc.metrics._intervals import interval_width as interval_width
from jdrop.mc.metrics._regression import crps_ensemble as crps_ensemble
from jdrop.mc.metrics._regression import crps_gaussian as crps_gaussian
from jdrop.mc.metrics._regression import gaussian_log_likelihood as gaussian_log_likelihood
from jdrop.mc.metrics._regression import mixture_log_likelihood as mixture_log_likelihood
from jdrop.mc.metrics._regression import pit_ensemble as pit_ensemble
from jdrop.mc.metrics._regression import pit_gaussian as pit_gaussian
from jdrop.mc.metrics._regression import rmse as rmse
from jdrop.mc.metrics._regression import sharpness as sharpness
from jdrop.mc.metrics._selection import aurc as aurc
from jdrop.mc.metrics._selection import auroc as auroc
from jdrop.mc.metrics._selection import average_precision as average_precision
from jdrop.mc.metrics._selection import risk_coverage as risk_coverage
from jdrop.mc.metrics._selection import selective_accuracy as selective_accuracy
