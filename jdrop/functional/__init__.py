"""Dropout of activations, as functions of a key."""

from jdrop.functional._alpha import alpha_dropout as alpha_dropout
from jdrop.functional._alpha import feature_alpha_dropout as feature_alpha_dropout
from jdrop.functional._attention import dot_product_attention as dot_product_attention
from jdrop.functional._drop_block import drop_block as drop_block
from jdrop.functional._dropout import dropout as dropout
from jdrop.functional._gaussian import gaussian_dropout as gaussian_dropout
from jdrop.functional._gaussian import gaussian_noise as gaussian_noise
from jdrop.functional._learned import concrete_dropout as concrete_dropout
from jdrop.functional._learned import concrete_regularizer as concrete_regularizer
from jdrop.functional._learned import prune as prune
from jdrop.functional._learned import variational_dropout as variational_dropout
from jdrop.functional._learned import variational_kl as variational_kl
from jdrop.functional._masksembles import masksembles as masksembles
from jdrop.functional._masksembles import masksembles_masks as masksembles_masks
from jdrop.functional._patch_dropout import patch_dropout as patch_dropout
from jdrop.functional._recurrent import variational_mask as variational_mask
from jdrop.functional._recurrent import zoneout as zoneout
from jdrop.functional._samples import multi_sample_dropout as multi_sample_dropout
from jdrop.functional._samples import r_drop as r_drop
from jdrop.functional._structured import channel_dropout as channel_dropout
from jdrop.functional._structured import drop_path as drop_path
from jdrop.functional._structured import linear_depth_rates as linear_depth_rates
from jdrop.functional._text import embedding_dropout as embedding_dropout
from jdrop.functional._text import token_dropout as token_dropout
from jdrop.functional._text import word_dropout as word_dropout
