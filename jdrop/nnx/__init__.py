"""jdrop for Flax NNX: modules in the place of Flax's own, and models as pure functions."""

from jdrop.nnx._attention import MultiHeadAttention as MultiHeadAttention
from jdrop.nnx._attention import attention_fn as attention_fn
from jdrop.nnx._dropout import Dropout as Dropout
from jdrop.nnx._family import AlphaDropout as AlphaDropout
from jdrop.nnx._family import ChannelDropout as ChannelDropout
from jdrop.nnx._family import DropBlock as DropBlock
from jdrop.nnx._family import DropPath as DropPath
from jdrop.nnx._family import FeatureAlphaDropout as FeatureAlphaDropout
from jdrop.nnx._family import GaussianDropout as GaussianDropout
from jdrop.nnx._family import GaussianNoise as GaussianNoise
from jdrop.nnx._family import PatchDropout as PatchDropout
from jdrop.nnx._learned import ConcreteDropout as ConcreteDropout
from jdrop.nnx._learned import Masksembles as Masksembles
from jdrop.nnx._learned import VariationalDropout as VariationalDropout
from jdrop.nnx._model import model_loss as model_loss
from jdrop.nnx._model import predictor as predictor
from jdrop.nnx._model import train_parts as train_parts
from jdrop.nnx._model import update_model as update_model
from jdrop.nnx._recurrent import RecurrentDropout as RecurrentDropout
from jdrop.nnx._recurrent import Zoneout as Zoneout
from jdrop.nnx._text import EmbeddingDropout as EmbeddingDropout
from jdrop.nnx._text import TokenDropout as TokenDropout
from jdrop.nnx._text import WordDropout as WordDropout
from jdrop.nnx._wrappers import DropConnect as DropConnect
from jdrop.nnx._wrappers import Mixout as Mixout
from jdrop.nnx._wrappers import MultiSampleDropout as MultiSampleDropout
