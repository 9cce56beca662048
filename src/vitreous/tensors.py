"""Nouns for tensors -> types: `Images -> Tokens -> Features -> Logits -> Loss`.

The tests check them at run time (jaxtyping with beartype); outside the tests they cost nothing.
"""

from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]
"""Normalised images, ready for a model."""

Pixels = UInt8[Tensor, "batch channels height width"]
"""Decoded images as stored: 0 is black, 255 is white."""

Varied = Float[Tensor, "batch channels height width"]
"""Augmented images, still in 0..255; fractions are possible."""

PerImage = Float[Tensor, "batch"]
"""A number for each image."""

Tokens = Float[Tensor, "batch tokens embed_dim"]
"""A sequence of embeddings; prefix tokens (class token, registers) first, then patches row by row."""

FirstTokens = Float[Tensor, "batch first embed_dim"]
"""Of a sequence as many tokens, from the first, as somebody will read; or all of them."""

Features = Float[Tensor, "batch embed_dim"]
"""One vector per image, pooled from its tokens."""

Logits = Float[Tensor, "batch classes"]
"""Unnormalised log-probabilities."""

Probabilities = Float[Tensor, "batch classes"]
"""Rows that sum to one."""

Labels = Int64[Tensor, "batch"]
"""Class indices."""

Mask = Bool[Tensor, "batch tokens"]
"""True where a token takes part."""

Loss = Float[Tensor, ""]
"""One number to minimise."""
