"""Active learning: which unlabelled examples to have labelled next, by Monte Carlo samples.

Every uncertainty of `jdrop.mc.uncertainty` is a score, with class probabilities of shape (num_samples, ..., classes):
``mutual_information`` is BALD (Houlsby et al. 2011), ``predictive_entropy`` maximum entropy, ``variation_ratio`` the
votes against the modal class, and ``1 - max_probability`` least confidence. The higher a score, the more a label is
wanted; `top_k` takes the highest. Here is what is no uncertainty: a score by standard deviations, the random one that
all must beat, and batches.
"""

from jdrop.mc.acquisition._batch_bald import batch_bald as batch_bald
from jdrop.mc.acquisition._scores import mean_std as mean_std
from jdrop.mc.acquisition._scores import random as random
from jdrop.mc.acquisition._scores import top_k as top_k
