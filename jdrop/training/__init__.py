"""Training that can be repeated to the bit: a run is (seed, code, data)."""

from jdrop.training.checkpoint import CheckpointError as CheckpointError
from jdrop.training.log import tensorboard as tensorboard
from jdrop.training.loop import fit as fit
from jdrop.training.records import NonFiniteLossError as NonFiniteLossError
from jdrop.training.seeds import vmap_seeds as vmap_seeds
from jdrop.training.state import TrainState as TrainState
from jdrop.training.step import make_eval_step as make_eval_step
from jdrop.training.step import make_train_step as make_train_step
