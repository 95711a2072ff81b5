"""Split-conformal prediction: sets and intervals that cover the truth with a chosen probability, whatever the model.

A quantile is taken of the scores of n held-out examples, then it bounds the scores of new ones. If the n + 1 examples
are exchangeable (drawn independently from one distribution, say), the truth of a new one is covered with a probability
of at least ``1 - alpha``, over the draw of all of them.
"""

from jdrop.mc.conformal._intervals import residual_intervals as residual_intervals
from jdrop.mc.conformal._intervals import residual_quantile as residual_quantile
from jdrop.mc.conformal._sets import aps_quantile as aps_quantile
from jdrop.mc.conformal._sets import aps_sets as aps_sets
from jdrop.mc.conformal._sets import lac_quantile as lac_quantile
from jdrop.mc.conformal._sets import lac_sets as lac_sets
