"""Images of different sizes -> logits, several images in one sequence. Dehghani et al. 2023, NaViT (2307.06304)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.errors import ConfigError, ShapeError
from vitreous.model.relation import Relation
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Logits

Image = Float[Tensor, "channels _height _width"]
"""One normalised image, of a size of its own."""

Embedded = tuple[Float[Tensor, "1 _tokens embed_dim"], Sequence[Relation] | None]
"""One image's tokens, and what each block's attention takes beside them."""


def forward_packed(model: VisionTransformer, images: Sequence[Image], *, max_tokens: int | None = None) -> Logits:
    """Score images of different sizes, none of them resized, cropped or padded.

    Args:
        model: Built with `dynamic_img_size`, so that its positions follow each image's own grid.
        images: Each tiled by patches.
        max_tokens: Longest sequence; the images are packed into as many as `pack` needs. None makes one of all.

    Returns:
        One row per image, in order: what the model gives for each by itself. In training, dropped paths are drawn per
        sequence, not per image.

    Raises:
        ConfigError: A model of one size, one that merges tokens, or an image of more than `max_tokens`.
        ShapeError: No image, several in one tensor, or one that the model cannot take.

    Source:
        Dehghani et al. 2023, section 2.1 (2307.06304): attention and pooling masked by image. Here attention runs over
        each image's own stretch of the sequence, `Relation.lengths`, so that nothing is computed to be masked, and
        positions are resized as the model does, where theirs are factorised per axis.
    """
    if not model.config.dynamic_img_size:
        raise ConfigError(
            "model.dynamic_img_size=False: takes images of {}x{} px alone; build the model with "
            "dynamic_img_size=True".format(*model.config.img_size)
        )
    if not len(images):
        raise ShapeError("0 images: there is nothing to pack; give at least one")
    for image in images:
        if image.ndim != 3:
            raise ShapeError(f"an image of {image.ndim} dimensions: must be [channels, height, width]; unbind batches")
    embedded = [model.embed(image[None]) for image in images]
    lengths = [tokens.shape[1] for tokens, _ in embedded]
    sequences = [list(range(len(images)))] if max_tokens is None else pack(lengths, max_tokens)
    pooled: dict[int, Tensor] = {}
    for numbers in sequences:
        encoded = encode_packed(model, [embedded[number] for number in numbers])
        pooled |= {number: model.pool(tokens) for number, tokens in zip(numbers, encoded, strict=True)}
    features = torch.cat([pooled[number] for number in range(len(images))])
    return model.head(model.fc_norm(features))


def encode_packed(model: VisionTransformer, embedded: Sequence[Embedded]) -> tuple[Tensor, ...]:
    """Run the encoder once over several images.

    Args:
        model: Its encoder is used alone.
        embedded: For each image, of batch 1, what `model.embed` gives.

    Returns:
        Each image's tokens in context, `[1, tokens, embed_dim]`, prefix first.

    Raises:
        ConfigError: A model that merges tokens.
    """
    sequence = torch.cat([tokens for tokens, _ in embedded], dim=1)
    lengths = tuple(tokens.shape[1] for tokens, _ in embedded)
    per_image = [relations or [Relation()] * len(model.encoder.blocks) for _, relations in embedded]
    relations = [_joined(of_block, lengths) for of_block in zip(*per_image, strict=True)]
    return model.encoder(sequence, relations).split(lengths, dim=1)


def pack(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Token counts of images -> numbers of the images that share a sequence, by first-fit decreasing.

    Args:
        lengths: Tokens of each image, prefix included.
        max_tokens: Most tokens in a sequence.

    Returns:
        Each image once. Never more than 11/9 as many sequences as the best packing, plus one (Dósa 2007).

    Raises:
        ConfigError: An image that no sequence can hold.
    """
    longest = max(lengths, default=0)
    if longest > max_tokens:
        raise ConfigError(
            f"max_tokens={max_tokens}: image {list(lengths).index(longest)} has {longest} tokens; "
            f"use {longest} or more, or smaller images"
        )
    sequences: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        fitting = next((at for at, free in enumerate(room) if free >= lengths[number]), None)
        if fitting is None:
            sequences.append([])
            room.append(max_tokens)
            fitting = -1
        sequences[fitting].append(number)
        room[fitting] -= lengths[number]
    return sequences


def _joined(relations: Sequence[Relation], lengths: tuple[int, ...]) -> Relation:
    """The images' rotations one after the other; each as long as its image's tokens."""
    cosines = [relation.cos for relation in relations if relation.cos is not None]
    sines = [relation.sin for relation in relations if relation.sin is not None]
    if not cosines:
        return Relation(lengths=lengths)
    return Relation(torch.cat(cosines, dim=2), torch.cat(sines, dim=2), lengths=lengths)
