"""How uncertain the samples of a prediction are, and of what kind: pure functions, which run under `jax.jit`."""

from jdrop.mc.uncertainty._classification import entropy as entropy
from jdrop.mc.uncertainty._classification import expected_entropy as expected_entropy
from jdrop.mc.uncertainty._classification import margin as margin
from jdrop.mc.uncertainty._classification import max_probability as max_probability
from jdrop.mc.uncertainty._classification import mutual_information as mutual_information
from jdrop.mc.uncertainty._classification import predictive_entropy as predictive_entropy
from jdrop.mc.uncertainty._classification import variation_ratio as variation_ratio
from jdrop.mc.uncertainty._classification import vote_disagreement as vote_disagreement
from jdrop.mc.uncertainty._regression import aleatoric_variance as aleatoric_variance
from jdrop.mc.uncertainty._regression import central_interval as central_interval
from jdrop.mc.uncertainty._regression import epistemic_variance as epistemic_variance
from jdrop.mc.uncertainty._regression import predictive_mean as predictive_mean
from jdrop.mc.uncertainty._regression import quantiles as quantiles
from jdrop.mc.uncertainty._regression import total_variance as total_variance
