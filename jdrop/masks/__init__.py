"""The stream: how (PRNG implementation, key, shape, rate) becomes a mask.

Stream version 2. Every element e of a mask has a 32-bit uniform U(e) that depends on the key and
the shape alone, and the element is kept iff ``U(e) >= T`` with ``T = round(rate * 2**32)``, ties to
even, for the rate as a float32 (as a float64 where `jax_enable_x64` is on). So masks of one key
are nested in the rate, and the drop probability is T / 2**32 exactly.

**Layout.** With ``broadcast_dims``, the shape has 1 on those axes and the mask is broadcast along
them afterwards. A mask is drawn as a matrix. Its columns are the last axis, of n elements (a scalar
is a row of one), and its rows are all other axes together, R of them in row-major order. Words serve
32 rows at a time, so that R rows take ``B(R, n) = 32 ceil(R / 32) n`` bits; where ``B(R, n) - R n``
is more than an eighth of that, rows are cut in pieces: of the widths w = n and then w = 128, 64, 32,
16, 8, 4, 2, 1 (those below n) the first is taken for which with ``p = ceil(n / w)`` pieces a row
``B(R p, w) - R n`` is at most an eighth of ``B(R p, w)``, or else w = 1. Element c of row i then is in
row ``r = i p + c // w`` and column ``c % w`` of the matrix (that is row i and column c where p = 1). A
matrix has at most 2**32 rows and 2**27 columns. So no more than one bit in eight is wasted, or for
fewer than 217 elements no more than the 31 other bits of a word.

**Words.** Element (r, c) of the matrix is served by word row ``q = r // 32``, column c and lane
``r % 32``. These have 16 words w[0] ... w[15] of 32 random bits. Bit 31 - i of U(e) is bit ``lane`` of
w[i] for i = 0 ... 14, and the low 17 bits of U(e) are the high 17 bits of w[15], shared by the 32
elements of a word.

**Generators** (Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405; k[...] are the key's
own words, t = 2**31):

=============  =======================  ============================  =====================
key            generator                counter of block j            words of block j
=============  =======================  ============================  =====================
threefry2x32   threefry2x32, 13 rounds  (t | j << 27 | c, q)          w[2j], w[2j + 1]
threefry4x32   threefry4x32, 13 rounds  (q, t | c, t | j, 0)          w[4j] ... w[4j + 3]
philox4x32     philox4x32, 7 rounds     (q, t | c, t | j, 0)          w[4j] ... w[4j + 3]
=============  =======================  ============================  =====================

These are the fewest rounds (threefry4x32: one more) that Salmon et al. found to pass BigCrush.
The bit t keeps the counters apart from those that JAX uses for split, fold_in and random bits
of the same key. Other implementations (rbg, unsafe_rbg, ...) take their words from
``jax.random.bits`` and promise nothing.

**Dependence.** Elements of different words are independent. Two elements of one word
share the low 17 bits of U. Write T = 2**17 h + l and f = l / 2**17, and let s be the shared bits:
given s, the two are independent, each dropped with probability (h + [s < l]) / 2**15, so the
covariance is that of the indicator with itself, f (1 - f) / 2**30 <= 2**-32. At drop probability q
the correlation is at most 2**-32 / (q (1 - q)): 3e-9 at rate 0.1, and 5e-8 at rate 0.005. It is zero
for every rate that is a multiple of 2**-15. With n own bits instead of 15 the bound is 2**-2(n + 1).

**Tiles.** A word's counter is its place, so any block of rows and columns can be drawn alone: a shard
on any axis, or a block of queries and keys of an attention mask. A block that does not start and end
at a multiple of 32 rows draws up to one word row more than it has. Only a mask cut in pieces, which
has fewer than 217 rows, is drawn an element at a time where it is split.

**Platforms.** On a CPU, XLA draws the words in a loop and opens them where they are used. On a GPU
and a TPU, `jdrop.dropout` of one rate is one kernel that reads x and writes y. What it does not serve
is XLA's, two kernels on a GPU, on a TPU a loop and the opened mask in memory: complex numbers and
doubles, shared axes, arrays of rates, other generators; on a TPU also float16, philox4x32, vectors
whose length is no multiple of 1024, and masks of few rows with three axes and more. Several devices each
run the kernel on their own shard, inside of ``jax.shard_map``, under explicit axes, and on GPUs also
under automatic ones; on TPUs XLA draws under automatic axes. Everywhere the bits are the same.
"""

from jdrop.masks._keep_mask import STREAM_VERSION as STREAM_VERSION
from jdrop.masks._keep_mask import keep_mask as keep_mask
