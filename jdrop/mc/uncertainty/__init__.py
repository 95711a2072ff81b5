"""How uncertain the samples of a prediction are, and of what kind: pure functions, which run under `jax.jit`."""

from jdrop.mc.uncertainty.classification import entropy as entropy
from jdrop.mc.uncertainty.classification import expected_entropy as expected_entropy
from jdrop.mc.uncertainty.classification import label_log_likelihood as label_log_likelihood
from jdrop.mc.uncertainty.classification import margin as margin
from jdrop.mc.uncertainty.classification import max_probability as max_probability
from jdrop.mc.uncertainty.classification import mutual_information as mutual_information
from jdrop.mc.uncertainty.classification import predictive_entropy as predictive_entropy
from jdrop.mc.uncertainty.classification import variation_ratio as variation_ratio
from jdrop.mc.uncertainty.classification import vote_disagreement as vote_disagreement
from jdrop.mc.uncertainty.regression import aleatoric_variance as aleatoric_variance
from jdrop.mc.uncertainty.regression import central_interval as central_interval
from jdrop.mc.uncertainty.regression import epistemic_variance as epistemic_variance
from jdrop.mc.uncertainty.regression import mixture_log_likelihood as mixture_log_likelihood
from jdrop.mc.uncertainty.regression import predictive_mean as predictive_mean
from jdrop.mc.uncertainty.regression import prior_tau as prior_tau
from jdrop.mc.uncertainty.regression import quantiles as quantiles
from jdrop.mc.uncertainty.regression import total_variance as total_variance
