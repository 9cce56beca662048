import numpy as np
import pytest
from tests.unit.use.explain.anatomy.models import make_model, sample_of

from vitreous.model.parts.stem import ConvStem
from vitreous.model.parts.tokenizer import Tokenizer
from vitreous.training.folder.records import ignore
from vitreous.use.explain.anatomy.image_parts import ImportantPatch, important_patches, patches_by_class
from vitreous.use.explain.methods import DEFAULT, METHODS
from vitreous.use.explain.target import Target


def test_patches_are_ordered_by_their_share_of_the_relevance_of_their_image():
    values = np.array([[[1.0, 3, 0], [0, 0, 0]], [[200, 100, 100], [100, 100, -900]], [[0, 0, 0], [0, 0, 9]]])
    found = important_patches(values, np.array([10, 20, 30]), most=2)
    assert found == [ImportantPatch(30, 1, 2, 1.0), ImportantPatch(10, 0, 1, 0.75)]
    everything = important_patches(values, np.array([10, 20, 30]), most=9)
    assert everything[2].image == 20
    assert everything[2].share == pytest.approx(200 / 600)


def test_an_image_without_relevance_is_no_error():
    assert important_patches(np.zeros((1, 2, 3)), np.array([4]), most=3) == [ImportantPatch(4, 0, 0, 0.0)]


def test_each_class_is_explained_on_its_own_images_with_its_own_score():
    model = make_model()
    labels = np.array([4, 0, 4, 2, 0, 4])
    sample = sample_of(model, labels)
    found = patches_by_class(sample, most=2, most_images=100, listener=ignore)
    assert sorted(found) == [0, 2, 4]
    for number, patches in found.items():
        own = np.flatnonzero(labels == number)
        values = METHODS[DEFAULT](model, sample.images(own), Target(number)).values.numpy()
        assert patches == important_patches(values, own, most=2)


def test_an_image_with_several_labels_is_explained_for_each():
    model = make_model()
    labels = np.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 0]], dtype=bool)
    found = patches_by_class(sample_of(model, labels), most=5, most_images=100, listener=ignore)
    assert {number: sorted(patch.image for patch in patches) for number, patches in found.items()} == {
        0: [0],
        3: [0, 2],
    }
    none = np.zeros((2, 5), dtype=bool)
    assert patches_by_class(sample_of(model, none), most=5, most_images=9, listener=ignore) == {}


def test_a_crop_is_the_patch_with_its_neighbors_outlined_and_white_outside_the_image():
    picture = np.zeros((4, 6, 3), dtype=np.uint8)
    picture[2, 4] = (10, 200, 30)  # the upper left pixel of the patch
    tokenizer = Tokenizer(patch_size=2, in_chans=3, embed_dim=4)
    crop = np.asarray(ImportantPatch(0, 1, 2, 1.0).crop(picture, tokenizer, 90))
    assert crop.shape == (90, 90, 3)
    assert (crop[60:][3:] == 255).all()  # rows below the image
    assert (crop[:, 63:] == 255).all()  # columns to its right
    assert (crop[:30, :60] == 0).all()  # the neighbors above, in the image
    assert (crop[33:44, 33:44] == (10, 200, 30)).all()
    pink = (crop == (255, 45, 149)).all(axis=2)
    rows, columns = np.flatnonzero(pink.any(axis=1)), np.flatnonzero(pink.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (30, 60, 30, 60)


def test_after_a_stem_of_convolutions_the_middle_of_a_crop_is_what_the_token_sees_most():
    picture = np.zeros((32, 48, 3), dtype=np.uint8)
    picture[16:17, 24:25] = (10, 200, 30)  # the center of the token in row 2 and column 3
    crop = np.asarray(ImportantPatch(0, 2, 3, 1.0).crop(picture, ConvStem(patch_size=8, in_chans=3, embed_dim=8), 240))
    rows, columns = np.nonzero((crop == (10, 200, 30)).all(axis=2))
    assert (rows.mean(), columns.mean()) == pytest.approx((124.5, 124.5))  # the middle of the pixel after 120
