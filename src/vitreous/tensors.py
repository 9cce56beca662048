"""Nouns for tensors -> types: `Images -> Tokens -> Features -> Logits -> Loss`.

The tests check shapes and dtypes at run time (jaxtyping with beartype); outside the tests the types cost nothing.
"""

from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

Pixels = UInt8[Tensor, "batch channels height width"]
"""Decoded images, `[batch, channels, height, width]`, from 0 (black) to 255 (white)."""

Varied = Float[Tensor, "batch channels height width"]
"""Augmented images, `[batch, channels, height, width]`, still from 0 to 255 but with fractions."""

Images = Float[Tensor, "batch channels height width"]
"""Normalized images, `[batch, channels, height, width]`, the input of a model; mean near 0, deviation near 1."""

Tokens = Float[Tensor, "batch tokens embed_dim"]
"""Embeddings, `[batch, tokens, embed_dim]`: prefix tokens (class token, registers) first, then patches row by row."""

PatchTokens = Float[Tensor, "batch patches embed_dim"]
"""Embeddings of the patches only, `[batch, patches, embed_dim]`, row by row."""

Patches = Float[Tensor, "batch patches values"]
"""Pixel values of the patches of images, `[batch, patches, values]`, row by row; those of a patch by channel first."""

Kept = Int64[Tensor, "batch kept"]
"""For each image, the numbers of the patches that it keeps, in ascending order; patches are counted row by row."""

FirstTokens = Float[Tensor, "batch first embed_dim"]
"""The first tokens of each sequence (all of them by default), `[batch, first, embed_dim]`."""

Features = Float[Tensor, "batch embed_dim"]
"""One embedding per image, `[batch, embed_dim]`, pooled from its tokens."""

Logits = Float[Tensor, "batch classes"]
"""Unnormalized log-probabilities, `[batch, classes]`, any real numbers."""

Probabilities = Float[Tensor, "batch classes"]
"""Class probabilities, `[batch, classes]`, from 0 to 1; each row sums to 1."""

Labels = Int64[Tensor, "batch"]
"""Class indices, `[batch]`, from 0 to the number of classes minus 1."""

LabelSets = Float[Tensor, "batch classes"]
"""Labels of images that may have several or none, `[batch, classes]`: 1 for each label of an image, else 0."""

Targets = Labels | LabelSets
"""The true labels of a batch: one class per image, or the labels of each image."""

StoredLabels = Labels | Bool[Tensor, "batch classes"]
"""The true labels of a data set: class indices; or a truth value per image and class, one byte each."""

PerImage = Float[Tensor, "batch"]
"""One number per image, `[batch]`."""

Truths = Bool[Tensor, "batch"]
"""One truth value per image, `[batch]`."""

Loss = Float[Tensor, ""]
"""The scalar to minimize."""
