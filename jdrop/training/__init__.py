"""Training steps that thread keys: a run is (seed, code, data)."""

from jdrop.training.loop import NonFiniteLossError as NonFiniteLossError
from jdrop.training.loop import fit as fit
from jdrop.training.state import TrainState as TrainState
from jdrop.training.step import make_eval_step as make_eval_step
from jdrop.training.step import make_train_step as make_train_step
