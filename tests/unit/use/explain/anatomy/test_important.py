import numpy as np
import pytest
from tests.unit.use.explain.anatomy.models import make_model, sample_of

from vitreous.training.folder.records import ignore
from vitreous.use.explain.anatomy.figures import important_crop
from vitreous.use.explain.anatomy.important import ImportantPatch, important_patches, patches_by_class
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
    found = patches_by_class(model, sample, most=2, most_images=100, listener=ignore)
    assert sorted(found) == [0, 2, 4]
    for number, patches in found.items():
        own = np.flatnonzero(labels == number)
        values = METHODS[DEFAULT](model, sample.images(own), Target(number)).values.numpy()
        assert patches == important_patches(values, own, most=2)


def test_an_image_with_several_labels_is_explained_for_each():
    model = make_model()
    labels = np.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 0]], dtype=bool)
    found = patches_by_class(model, sample_of(model, labels), most=5, most_images=100, listener=ignore)
    assert {number: sorted(patch.image for patch in patches) for number, patches in found.items()} == {
        0: [0],
        3: [0, 2],
    }
    none = np.zeros((2, 5), dtype=bool)
    assert patches_by_class(model, sample_of(model, none), most=5, most_images=9, listener=ignore) == {}


def test_a_crop_is_the_patch_with_its_neighbors_and_white_outside_the_image():
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    crop = important_crop(picture, ImportantPatch(0, 1, 2, 1.0), side=2)
    assert crop.shape == (6, 6, 3)
    np.testing.assert_array_equal(crop[:4, :4], picture[0:4, 2:6])
    assert (crop[4:] == 255).all()
    assert (crop[:, 4:] == 255).all()
