import pytest

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.model.config.presets import SIZES, Size, config_for, parse_name


def test_name_specifies_size_patch_and_image():
    parsed = parse_name("vit_micro_patch4_28")
    assert (parsed.size, parsed.patch_size, parsed.img_size) == (SIZES["micro"], 4, 28)


@pytest.mark.parametrize(("name", "patch_size"), [("vit_small", None), ("vit_small_patch14", 14)])
def test_name_may_leave_out_patch_and_image(name, patch_size):
    parsed = parse_name(name)
    assert (parsed.size, parsed.patch_size, parsed.img_size) == (Size(384, 12, 6), patch_size, None)


@pytest.mark.parametrize("size", SIZES)
def test_heads_of_every_size_have_a_usual_width(size):
    config = config_for(f"vit_{size}", img_size=(24, 40), patch_size=4, num_classes=7)
    assert config.embed_dim // config.num_heads in (16, 24, 32, 64, 72, 80, 88, 104)
    assert config.img_size == (24, 40)


def test_arguments_override_the_name():
    config = config_for("vit_tiny_patch16_224", img_size=96, patch_size=8, in_chans=1)
    assert (config.img_size, config.patch_size, config.in_chans) == ((96, 96), 8, 1)


def test_argument_of_zero_does_not_fall_back_to_the_name():
    with pytest.raises(ConfigError) as caught:
        config_for("vit_tiny_patch16_224", patch_size=0)
    assert str(caught.value) == "model.patch_size=0: must be from 1 to 2,147,483,647; 16 is usual, 4 for small images"


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("vit_smal_patch16_224", "did you mean vit_small_patch16_224?"),
        ("vit_hug_patch14_518", "did you mean vit_huge_patch14_518?"),
        ("vit_bas", "did you mean vit_base?"),
        ("vit-small", "did you mean vit_small?"),
        ("ViT-Base-Patch16-224", "did you mean vit_base_patch16_224?"),
        ("vit_large_patch_224", "did you mean vit_large_patch16_224?"),
        ("vit_giant_patch14_dinov4", "did you mean vit_giant_patch14_dinov2?"),
        ("deit_bse_patch16_384", "did you mean deit_base_patch16_384?"),
    ],
)
def test_unknown_name_suggests_the_nearest_one(name, way_out):
    with pytest.raises(UnknownNameError) as caught:
        parse_name(name)
    assert str(caught.value) == f"model={name}: no such model; {way_out}"


def test_name_that_resembles_no_other_lists_families():
    with pytest.raises(
        UnknownNameError, match=r"^model=resnet50: no such model; use a name such as vit_small_patch16_224; "
    ):
        parse_name("resnet50")


def test_tag_of_weights_does_not_change_the_model():
    assert parse_name("vit_micro_patch4_28.mine") == parse_name("vit_micro_patch4_28")


@pytest.mark.parametrize("name", ["vit_giant_patch16", "vit_so400m_patch16_256", "vit_wee_patch8_64"])
def test_size_may_have_another_mlp_ratio(name):
    parsed = parse_name(name)
    config = config_for(name, img_size=32, patch_size=8)
    assert config.mlp_ratio == parsed.size.mlp_ratio != 4
    assert parsed.changes == {}


def test_missing_size_is_an_error_that_says_how_to_give_it():
    with pytest.raises(ConfigError) as caught:
        config_for("vit_micro", patch_size=4)
    assert str(caught.value) == (
        "model=vit_micro: does not specify the image size; pass img_size and patch_size, or put them into the name, "
        "e.g. vit_micro_patch16_224"
    )
    with pytest.raises(ConfigError, match=r"e\.g\. vit_micro_patch16_224$"):
        config_for("vit_micro.augreg")
    with pytest.raises(ConfigError, match="model=vit_mini: does not specify the patch size; "):
        config_for("vit_mini", img_size=28)


def test_impossible_patch_size_in_a_name_is_a_config_error():
    with pytest.raises(ConfigError) as caught:
        config_for("vit_base_patch15_224")
    assert "model.patch_size=15: does not divide data.img_size=224" in str(caught.value)
