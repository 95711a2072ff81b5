"""jdrop for Flax Linen: modules in the place of Flax's own, and models as `predict(key, x)`."""

from jdrop.linen._attention import MultiHeadDotProductAttention as MultiHeadDotProductAttention
from jdrop.linen._attention import SelfAttention as SelfAttention
from jdrop.linen._attention import attention_fn as attention_fn
from jdrop.linen._dropout import Dropout as Dropout
from jdrop.linen._dropout import MissingStreamError as MissingStreamError
from jdrop.linen._family import AlphaDropout as AlphaDropout
from jdrop.linen._family import ChannelDropout as ChannelDropout
from jdrop.linen._family import DropBlock as DropBlock
from jdrop.linen._family import DropPath as DropPath
from jdrop.linen._family import FeatureAlphaDropout as FeatureAlphaDropout
from jdrop.linen._family import GaussianDropout as GaussianDropout
from jdrop.linen._family import GaussianNoise as GaussianNoise
from jdrop.linen._family import PatchDropout as PatchDropout
from jdrop.linen._learned import ConcreteDropout as ConcreteDropout
from jdrop.linen._learned import Masksembles as Masksembles
from jdrop.linen._learned import VariationalDropout as VariationalDropout
from jdrop.linen._model import predictor as predictor
from jdrop.linen._recurrent import RecurrentDropout as RecurrentDropout
from jdrop.linen._recurrent import Zoneout as Zoneout
from jdrop.linen._text import EmbeddingDropout as EmbeddingDropout
from jdrop.linen._text import TokenDropout as TokenDropout
from jdrop.linen._text import WordDropout as WordDropout
from jdrop.linen._wrappers import DropConnect as DropConnect
from jdrop.linen._wrappers import Mixout as Mixout
from jdrop.linen._wrappers import MultiSampleDropout as MultiSampleDropout
