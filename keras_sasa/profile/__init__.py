"""Parameters, FLOPs and time of a model, layer by layer.

    python -m keras_sasa.profile MODEL [--csv FILE] [--picture FILE]
    python -m keras_sasa.profile [--csv FILE]

The first is for a saved model. The second prints what Ramachandran et al., 2019
(https://arxiv.org/abs/1906.05909) report for their networks beside what is
counted here.

What is counted, for inference on one image:

- A multiply and an add count two, as in the paper.
- A product of vectors of width n counts 2n; convolutions, dense layers and
  projections are made of those. Borders count as full windows.
- Batch normalization counts two for each element (group normalization, which
  takes its means from the image, five), a bias, an activation
  (softmax included) or each term added in a merge one. Pooling counts one for
  each element of a window.
- Moving data (padding, reshaping, concatenation) and dropout count nothing.

There are two totals. `flops` takes the equations at their word, pixel by
pixel, which is what fits the paper's numbers: k*k products q.r of the width d
of a head, and in the attention stem a value matrix mixed for every pixel.
`flops_separable` is for the same result with shared work done once: q.r as 2k
products of width d/2 (a row and a column embedding), with the two additions
that put them into every logit, and one mixed matrix for each place in a block
of the stem.
"""

from keras_sasa.profile.counting import Profile, Row, profile
from keras_sasa.profile.picture import plot_profile

__all__ = ["Profile", "Row", "plot_profile", "profile"]
