"""Parameters, FLOPs and time of a model, layer by layer.

    python -m keras_sasa.profile MODEL [--csv FILE] [--picture FILE]
    python -m keras_sasa.profile [--csv FILE]

The first command profiles a saved model. The second prints the numbers that
Ramachandran et al., 2019 (https://arxiv.org/abs/1906.05909) report for their
networks, next to our counts.

FLOPs are counted for inference on one image:

- A multiplication and an addition count as two, as in the paper.
- A product of vectors of width n counts as 2n, also inside convolutions, dense
  layers and projections. Windows at borders count in full.
- Batch normalization counts as two per element; group normalization, which
  computes means of the image, as five. A bias, an activation (including
  softmax) and each term added in a merge count as one per element. Pooling
  counts as one per element of a window.
- Moving data (padding, reshaping, concatenation) and dropout are free.

There are two totals. `flops` follows the equations literally, pixel by pixel,
which fits the paper's numbers: k*k products q.r of the width d of a head, and a
value matrix mixed for each pixel in the attention stem. `flops_separable`
counts the same result with shared work done once: q.r as 2k products of width
d/2 (a row and a column embedding) plus the two additions that put them into
each logit, and a matrix mixed once for each place in a block of the stem.
"""

from keras_sasa.profile.picture import plot_profile
from keras_sasa.profile.profiling import profile
from keras_sasa.profile.report import Profile, Row

__all__ = ["Profile", "Row", "plot_profile", "profile"]
