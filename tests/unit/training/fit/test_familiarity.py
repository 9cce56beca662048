"""Scores of unfamiliar images: the formulas of the papers, percentiles, and the file that keeps them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from vitreous.errors import DamagedFileError
from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.tensor_file import open_tensor_file, write_tensor_file
from vitreous.training.fit.familiarity import (
    FLAGGED,
    SCORES,
    Familiarity,
    head_inputs,
    read_familiarity,
    unit_length,
    write_familiarity,
)

WIDTH = 16


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(features: Tensor) -> np.ndarray:
    """Return features of length 1 in float64, without code of ours."""
    values = features.numpy().astype(np.float64)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def rounded(features: Tensor) -> np.ndarray:
    """Return what is left of training features after they were stored: length 1, float16, length 1 again."""
    return unit(torch.from_numpy(unit(features)).half())


def known_from(features: Tensor, groups: Tensor, **changes: Any) -> Familiarity:
    return Familiarity(unit_length(features).half(), groups, is_multilabel=False, **changes)


@pytest.fixture
def model() -> VisionTransformer:
    config = ModelConfig(
        img_size=(8, 12), patch_size=4, in_chans=3, num_classes=3, embed_dim=WIDTH, depth=1, num_heads=2
    )
    return build_model(config, generator=torch.Generator().manual_seed(1)).eval()


@pytest.fixture
def familiarity() -> Familiarity:
    groups = torch.arange(30) % 3
    values = torch.arange(25.0, dtype=torch.float64)
    return known_from(normal(30, WIDTH), groups, shrinkage=0.2, known=values, score="energy")


# Formulas.


def test_energy_is_minus_the_logarithm_of_the_sum_of_exponentials_in_liu_2020() -> None:
    logits = 30 * normal(7, 5, seed=1)
    found = known_from(normal(4, WIDTH), torch.zeros(4).long()).scores("energy", normal(7, WIDTH), logits)
    np.testing.assert_allclose(found, -logsumexp(logits.double().numpy(), axis=1), rtol=1e-12)


def test_energy_with_several_labels_is_the_sum_over_labels_in_wang_2021() -> None:
    logits = 30 * normal(7, 5, seed=1)
    known = Familiarity(normal(4, WIDTH).half(), torch.zeros(4).long(), is_multilabel=True)
    naive = [-sum(np.logaddexp(0.0, logit) for logit in row) for row in logits.double().tolist()]
    np.testing.assert_allclose(known.scores("energy", normal(7, WIDTH), logits), naive, rtol=1e-8)


@pytest.mark.parametrize(("num", "k"), [(4, 1), (200, 1), (400, 2), (2000, 10)])
def test_neighbors_is_the_distance_to_the_kth_neighbor_of_scikit_learn(num: int, k: int) -> None:
    train, images = normal(num, WIDTH), normal(9, WIDTH, seed=1)
    peer = NearestNeighbors(n_neighbors=k).fit(rounded(train))
    naive = peer.kneighbors(unit(images))[0][:, -1]
    found = known_from(train, torch.zeros(num).long()).scores("neighbors", images, torch.zeros(9, 3))
    np.testing.assert_allclose(found, naive, rtol=1e-6)


@pytest.mark.parametrize("num", [12, 90])
def test_mahalanobis_is_the_distance_of_mueller_and_hein_2025_with_the_covariance_of_scikit_learn(num: int) -> None:
    train, groups, images = 3 + normal(num, WIDTH), torch.arange(num) % 3, normal(9, WIDTH, seed=1)
    values, numbers = rounded(train), groups.numpy()
    means = np.stack([values[numbers == group].mean(axis=0) for group in range(3)])
    peer = LedoitWolf(assume_centered=True).fit(values - means[numbers])
    inverse = np.linalg.inv(peer.covariance_)
    naive = [min(np.sqrt((x - mean) @ inverse @ (x - mean)) for mean in means) for x in unit(images)]
    known = known_from(train, groups, shrinkage=float(peer.shrinkage_))
    np.testing.assert_allclose(known.scores("mahalanobis", images, torch.zeros(9, 3)), naive, rtol=1e-5)
    np.testing.assert_allclose(known.centered[0], values - means[numbers], atol=1e-12)


@pytest.mark.parametrize("name", ["neighbors", "mahalanobis"])
def test_the_length_of_features_does_not_matter(name: str, familiarity: Familiarity) -> None:
    images = normal(9, WIDTH, seed=1)
    scores = familiarity.scores(name, images, torch.zeros(9, 3))
    lengths = 0.1 + 50 * torch.rand(9, 1, generator=torch.Generator().manual_seed(3))
    np.testing.assert_allclose(familiarity.scores(name, images * lengths, torch.zeros(9, 3)), scores, rtol=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_an_image_far_from_the_training_images_has_a_larger_score(name: str) -> None:
    train = torch.eye(WIDTH)[:1] + 0.1 * normal(60, WIDTH)
    near, far = torch.eye(WIDTH)[:1], -torch.eye(WIDTH)[:1]
    known = known_from(train, torch.arange(60) % 2, shrinkage=0.1)
    logits = torch.tensor([[9.0, 0.0], [0.1, 0.0]])
    found = known.scores(name, torch.cat([near, far]), logits)
    assert found[0] < found[1]


@pytest.mark.parametrize("name", SCORES)
def test_constant_features_and_features_that_are_not_finite_give_finite_scores(name: str) -> None:
    known = known_from(torch.ones(8, WIDTH), torch.zeros(8).long())
    images = torch.ones(4, WIDTH)
    images[1], images[2, 3], images[3, 5] = 0.0, torch.nan, torch.inf
    assert known.scores(name, images, torch.full((4, 3), torch.inf)).isfinite().all()


@pytest.mark.parametrize("name", SCORES)
def test_the_score_of_an_image_does_not_depend_on_its_batch(name: str, familiarity: Familiarity) -> None:
    features, logits = normal(70, WIDTH, seed=1), normal(70, 3, seed=2)
    together = replace(familiarity, score=name, known=familiarity.scores(name, features[:40], logits[:40]))
    expected = together.unfamiliar(features, logits)
    one_by_one = [together.unfamiliar(features[n : n + 1], logits[n : n + 1])[0] for n in range(70)]
    np.testing.assert_array_equal(expected, one_by_one)


# Percentiles.


def at(familiarity: Familiarity, *energies: float) -> list[float]:
    """Return the percentiles of images with these energies."""
    logits = -torch.tensor(energies)[:, None]
    return familiarity.unfamiliar(torch.ones(len(energies), WIDTH), logits).tolist()


def test_percentile_is_the_rank_among_the_validation_images(familiarity: Familiarity) -> None:
    assert at(familiarity, 0.0, 12.0, 24.0) == [round(rank / 26, 4) for rank in (1, 13, 25)]
    assert at(familiarity, 12.5) == [round(13.5 / 26, 4)]
    assert at(familiarity, -1e9, 1e9) == [round(1 / 26, 4), round(25 / 26, 4)]


def test_equal_scores_share_their_mean_percentile_and_only_larger_ones_exceed_it() -> None:
    known = known_from(normal(4, WIDTH), torch.zeros(4).long(), score="energy", known=torch.full((39,), 2.0).double())
    assert at(known, 2.0, 2.1) == [0.5, 0.975]


def test_19_validation_images_are_enough_to_flag_and_18_are_not() -> None:
    for num, can_flag in ((18, False), (19, True)):
        known = known_from(normal(4, WIDTH), torch.zeros(4).long(), score="energy", known=torch.arange(num).double())
        assert (at(known, 1e9)[0] >= FLAGGED) == can_flag


def test_about_5_percent_of_images_like_the_validation_images_are_flagged() -> None:
    random, shares = np.random.default_rng(0), []
    for _ in range(300):
        draws = torch.from_numpy(random.normal(size=140))
        known = known_from(torch.ones(4, WIDTH), torch.zeros(4).long(), score="energy", known=draws[:100])
        shares.append(np.mean(np.array(at(known, *draws[100:].tolist())) >= FLAGGED))
    standard_error = np.std(shares) / np.sqrt(len(shares))
    assert abs(np.mean(shares) - 0.05) < 0.01 + 3 * standard_error


# Features of a model.


@pytest.mark.parametrize("pool", ["token", "mean", "max", "token_mean", "map", "sequence"])
def test_head_inputs_are_what_the_head_reads_and_their_logits_those_of_the_model(pool: str) -> None:
    config = ModelConfig(
        img_size=(8, 12), patch_size=4, in_chans=1, num_classes=3, embed_dim=WIDTH, depth=1, num_heads=2, pool=pool
    )  # type: ignore[arg-type]
    model = build_model(config, generator=torch.Generator().manual_seed(1)).eval()
    seen: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = normal(5, 1, 8, 12)
    features, logits = head_inputs(model, images.split(2))
    torch.testing.assert_close(features, torch.cat(seen))
    torch.testing.assert_close(logits, model(images))
    assert features.shape == (5, model.num_features)


# The file.


def test_what_is_read_is_what_was_written(tmp_path: Path, familiarity: Familiarity, model: VisionTransformer) -> None:
    path = tmp_path / "familiarity.safetensors"
    write_familiarity(path, familiarity, model)
    found = read_familiarity(path, model)
    assert found is not None
    features, logits = normal(9, WIDTH, seed=1), normal(9, 3, seed=2)
    np.testing.assert_array_equal(found.unfamiliar(features, logits), familiarity.unfamiliar(features, logits))
    for name in SCORES:
        torch.testing.assert_close(
            found.scores(name, features, logits), familiarity.scores(name, features, logits), rtol=0, atol=0
        )


def test_without_the_file_nothing_is_known(tmp_path: Path, model: VisionTransformer) -> None:
    assert read_familiarity(tmp_path / "familiarity.safetensors", model) is None


Alter = Callable[[dict[str, Tensor], dict[str, Any]], None]
DAMAGES: dict[str, Alter] = {
    "features of another width": lambda t, d: t.update(features=t["features"][:, :7].contiguous()),
    "features without an axis": lambda t, d: t.update(features=t["features"][0].clone()),
    "features that are missing": lambda t, d: t.__delitem__("features"),
    "features that are not numbers": lambda t, d: t["features"][3].fill_(torch.nan),
    "no features": lambda t, d: t.update(features=t["features"][:0].clone(), groups=t["groups"][:0].clone()),
    "too many features": lambda t, d: t.update(features=torch.ones(2001, WIDTH), groups=torch.zeros(2001)),
    "fewer classes than features": lambda t, d: t.update(groups=t["groups"][:9].clone()),
    "classes in two axes": lambda t, d: t.update(groups=t["groups"].view(5, 6).clone()),
    "too few validation images": lambda t, d: t.update(known=t["known"][:5].clone()),
    "validation images that are not numbers": lambda t, d: t["known"][3].fill_(torch.inf),
    "validation images in two axes": lambda t, d: t.update(known=t["known"].view(5, 5).clone()),
    "an unknown score": lambda t, d: d.update(score="entropy"),
    "a score that is not text": lambda t, d: d.update(score=["energy"]),
    "a shrinkage above 1": lambda t, d: d.update(shrinkage=1.5),
    "a shrinkage that is text": lambda t, d: d.update(shrinkage="0.2"),
    "an unknown key": lambda t, d: d.update(threshold=3),
    "a missing key": lambda t, d: d.__delitem__("is_multilabel"),
    "other weights": lambda t, d: d.update(weights="00"),
    "no weights": lambda t, d: d.__delitem__("weights"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_altered_file_is_refused_and_without_it_the_model_can_be_used(
    tmp_path: Path, damage: str, familiarity: Familiarity, model: VisionTransformer
) -> None:
    path = tmp_path / "familiarity.safetensors"
    write_familiarity(path, familiarity, model)
    with open_tensor_file(path, way_out="") as file:
        tensors, described = file.read_all(), json.loads(file.metadata["familiarity"])
    DAMAGES[damage](tensors, described)
    write_tensor_file(path, tensors, {"familiarity": json.dumps(described)})
    with pytest.raises(DamagedFileError) as caught:
        read_familiarity(path, model)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(
        "; move it to another folder; images are then not compared with the training images"
    )
    path.unlink()
    assert read_familiarity(path, model) is None


@pytest.mark.parametrize("metadata", [{}, {"familiarity": "{"}, {"familiarity": "[]"}])
def test_a_file_without_a_readable_description_is_refused(
    tmp_path: Path, metadata: dict[str, str], familiarity: Familiarity, model: VisionTransformer
) -> None:
    path = tmp_path / "familiarity.safetensors"
    write_tensor_file(path, {"features": familiarity.features}, metadata)
    with pytest.raises(DamagedFileError, match="move it to another folder"):
        read_familiarity(path, model)


def test_the_file_of_other_weights_is_refused(
    tmp_path: Path, familiarity: Familiarity, model: VisionTransformer
) -> None:
    path = tmp_path / "familiarity.safetensors"
    write_familiarity(path, familiarity, model)
    with torch.no_grad():
        next(model.encoder.parameters()).add_(1e-3)
    with pytest.raises(DamagedFileError) as caught:
        read_familiarity(path, model)
    assert str(caught.value) == (
        f"{path}: was altered, or belongs to other weights; move it to another folder; images are then not compared "
        "with the training images"
    )
