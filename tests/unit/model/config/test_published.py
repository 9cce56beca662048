import pytest

from vitreous.model.config.presets import config_for, parse_name
from vitreous.model.config.published import PUBLISHED, expand
from vitreous.model.cost.count import count_parameters

TIMM = {
    # Number of parameters and classes of each name, counted with timm 1.0.31 on the meta device.
    "vit_tiny_patch16_224": (5_717_416, 1_000),
    "vit_tiny_patch16_384": (5_790_376, 1_000),
    "vit_small_patch16_224": (22_050_664, 1_000),
    "vit_small_patch16_384": (22_196_584, 1_000),
    "vit_base_patch16_224": (86_567_656, 1_000),
    "vit_base_patch16_384": (86_859_496, 1_000),
    "vit_large_patch16_224": (304_326_632, 1_000),
    "vit_large_patch16_384": (304_715_752, 1_000),
    "vit_small_patch32_224": (22_878_952, 1_000),
    "vit_small_patch32_384": (22_915_432, 1_000),
    "vit_base_patch32_224": (88_224_232, 1_000),
    "vit_base_patch32_384": (88_297_192, 1_000),
    "vit_large_patch32_224": (305_510_400, 0),
    "vit_large_patch32_384": (306_632_680, 1_000),
    "vit_small_patch8_224": (21_670_272, 0),
    "vit_base_patch8_224": (86_576_872, 1_000),
    "vit_large_patch14_224": (304_203_752, 1_000),
    "vit_huge_patch14_224": (630_764_800, 0),
    "vit_giant_patch14_224": (1_012_611_432, 1_000),
    "vit_gigantic_patch14_224": (1_844_440_680, 1_000),
    "vit_base_patch16_224_miil": (94_399_957, 11_221),
    "vit_base_patch16_gap_224": (86_566_120, 1_000),
    "vit_huge_patch14_gap_224": (630_762_240, 0),
    "vit_huge_patch16_gap_448": (631_668_480, 0),
    "vit_giant_patch16_gap_224": (1_011_368_576, 0),
    "vit_medium_patch16_gap_256": (38_861_288, 1_000),
    "vit_medium_patch16_gap_384": (39_025_128, 1_000),
    "vit_betwixt_patch16_gap_256": (60_372_840, 1_000),
    "vit_medium_patch16_gap_240": (44_396_589, 11_821),
    "flexivit_small": (22_061_416, 1_000),
    "flexivit_base": (86_589_160, 1_000),
    "flexivit_large": (304_355_304, 1_000),
    "vit_base_patch16_plus_240": (117_557_992, 1_000),
    "vit_base_patch32_plus_256": (119_478_120, 1_000),
    "vit_base_patch16_rpn_224": (86_538_472, 1_000),
    "vit_small_patch16_36x1_224": (64_665_448, 1_000),
    "vit_wee_patch16_reg1_gap_256": (13_422_568, 1_000),
    "vit_little_patch16_reg1_gap_256": (22_515_048, 1_000),
    "vit_medium_patch16_reg1_gap_256": (38_880_232, 1_000),
    "vit_betwixt_patch16_reg1_gap_256": (60_396_520, 1_000),
    "vit_little_patch16_reg4_gap_256": (22_516_008, 1_000),
    "vit_medium_patch16_reg4_gap_256": (38_881_768, 1_000),
    "vit_betwixt_patch16_reg4_gap_256": (60_398_440, 1_000),
    "vit_mediumd_patch16_reg4_gap_256": (64_109_032, 1_000),
    "vit_betwixt_patch16_reg4_gap_384": (60_603_240, 1_000),
    "vit_mediumd_patch16_reg4_gap_384": (64_272_872, 1_000),
    "vit_base_patch16_reg4_gap_256": (86_615_272, 1_000),
    "vit_so150m_patch16_reg4_gap_256": (134_131_560, 1_000),
    "vit_so150m_patch16_reg4_gap_384": (134_418_280, 1_000),
    "vit_so150m_patch16_reg4_map_256": (141_481_064, 1_000),
    "vit_so150m2_patch16_reg1_gap_256": (136_059_560, 1_000),
    "vit_so150m2_patch16_reg1_gap_384": (136_325_800, 1_000),
    "vit_so150m2_patch16_reg1_gap_448": (136_498_856, 1_000),
    "deit_tiny_patch16_224": (5_717_416, 1_000),
    "deit_small_patch16_224": (22_050_664, 1_000),
    "deit_base_patch16_224": (86_567_656, 1_000),
    "deit_base_patch16_384": (86_859_496, 1_000),
    "deit_tiny_distilled_patch16_224": (5_910_800, 1_000),
    "deit_small_distilled_patch16_224": (22_436_432, 1_000),
    "deit_base_distilled_patch16_224": (87_338_192, 1_000),
    "deit_base_distilled_patch16_384": (87_630_032, 1_000),
    "deit3_small_patch16_224": (22_059_496, 1_000),
    "deit3_medium_patch16_224": (38_849_512, 1_000),
    "deit3_base_patch16_224": (86_585_320, 1_000),
    "deit3_large_patch16_224": (304_374_760, 1_000),
    "deit3_small_patch16_384": (22_205_416, 1_000),
    "deit3_base_patch16_384": (86_877_160, 1_000),
    "deit3_large_patch16_384": (304_763_880, 1_000),
    "deit3_huge_patch14_224": (632_126_440, 1_000),
    "vit_small_patch14_dinov2": (22_056_192, 0),
    "vit_base_patch14_dinov2": (86_579_712, 0),
    "vit_large_patch14_dinov2": (304_367_616, 0),
    "vit_small_patch14_reg4_dinov2": (22_057_344, 0),
    "vit_base_patch14_reg4_dinov2": (86_582_016, 0),
    "vit_large_patch14_reg4_dinov2": (304_370_688, 0),
    "vit_giant_patch14_dinov2": (1_136_479_232, 0),
    "vit_giant_patch14_reg4_dinov2": (1_136_483_840, 0),
    "vit_base_patch14_reg1_tipsv2": (86_314_752, 0),
    "vit_large_patch14_reg1_tipsv2": (304_014_336, 0),
    "vit_so400m_patch14_reg1_tipsv2": (413_391_600, 0),
    "vit_giant_patch14_reg1_tipsv2": (1_135_949_312, 0),
    "vit_base_patch16_radio_v3": (86_456_064, 0),
    "vit_large_patch16_radio_v3": (304_202_752, 0),
    "vit_huge_patch16_radio_v3": (631_983_360, 0),
    "vit_giant_patch16_radio_v3": (1_136_027_136, 0),
    "vit_huge_patch16_radio_v4": (631_985_920, 0),
    "vit_so400m_patch16_radio_v4": (413_543_664, 0),
    "vit_intern300m_patch14_448": (304_012_288, 0),
    "vit_base_patch16_siglip_224": (92_884_224, 0),
    "vit_base_patch16_siglip_256": (92_930_304, 0),
    "vit_base_patch16_siglip_384": (93_176_064, 0),
    "vit_base_patch16_siglip_512": (93_520_128, 0),
    "vit_large_patch16_siglip_256": (315_956_224, 0),
    "vit_large_patch16_siglip_384": (316_283_904, 0),
    "vit_so400m_patch14_siglip_224": (427_680_704, 0),
    "vit_so400m_patch14_siglip_378": (428_225_600, 0),
    "vit_so400m_patch14_siglip_384": (428_225_600, 0),
    "vit_base_patch32_siglip_256": (94_552_320, 0),
    "vit_large_patch16_siglip_512": (316_742_656, 0),
    "vit_so400m_patch16_siglip_256": (427_888_064, 0),
    "vit_so400m_patch16_siglip_384": (428_256_704, 0),
    "vit_so400m_patch16_siglip_512": (428_772_800, 0),
    "vit_giantopt_patch16_siglip_256": (1_163_168_256, 0),
    "vit_giantopt_patch16_siglip_384": (1_163_659_776, 0),
    "vit_base_patch16_siglip_gap_224": (85_797_120, 0),
    "vit_base_patch16_siglip_gap_256": (85_843_200, 0),
    "vit_base_patch16_siglip_gap_384": (86_088_960, 0),
    "vit_base_patch16_siglip_gap_512": (86_433_024, 0),
    "vit_large_patch16_siglip_gap_256": (303_361_024, 0),
    "vit_large_patch16_siglip_gap_384": (303_688_704, 0),
    "vit_so400m_patch14_siglip_gap_224": (412_442_352, 0),
    "vit_so400m_patch14_siglip_gap_378": (412_987_248, 0),
    "vit_so400m_patch14_siglip_gap_448": (413_327_088, 0),
    "vit_so400m_patch14_siglip_gap_896": (416_866_032, 0),
    "vit_so400m_patch14_siglip_gap_384": (412_987_248, 0),
    "vit_base_patch32_siglip_gap_256": (87_465_216, 0),
    "vit_large_patch16_siglip_gap_512": (304_147_456, 0),
    "vit_so400m_patch16_siglip_gap_256": (412_649_712, 0),
    "vit_so400m_patch16_siglip_gap_384": (413_018_352, 0),
    "vit_so400m_patch16_siglip_gap_512": (413_534_448, 0),
    "vit_giantopt_patch16_siglip_gap_256": (1_134_838_272, 0),
    "vit_giantopt_patch16_siglip_gap_384": (1_135_329_792, 0),
    "vit_base_patch32_clip_224": (88_225_000, 1_000),
    "vit_base_patch32_clip_384": (88_297_960, 1_000),
    "vit_base_patch32_clip_448": (88_337_896, 1_000),
    "vit_base_patch16_clip_224": (86_568_424, 1_000),
    "vit_base_patch16_clip_384": (86_860_264, 1_000),
    "vit_large_patch14_clip_224": (304_204_776, 1_000),
    "vit_large_patch14_clip_336": (304_532_456, 1_000),
    "vit_huge_patch14_clip_224": (632_047_080, 1_000),
    "vit_huge_patch14_clip_336": (632_456_680, 1_000),
    "vit_xsmall_patch16_clip_224": (8_277_504, 512),
    "vit_medium_patch16_clip_224": (38_587_904, 512),
    "vit_medium_patch32_clip_224": (39_692_288, 512),
    "vit_betwixt_patch32_clip_224": (61_411_712, 512),
    "vit_base_patch32_clip_256": (87_861_248, 512),
    "vit_base_patch16_plus_clip_240": (117_214_464, 640),
    "vit_huge_patch14_clip_378": (632_683_264, 1_024),
    "vit_giant_patch14_clip_224": (1_012_646_656, 1_024),
    "vit_gigantic_patch14_clip_224": (1_844_908_544, 1_280),
    "vit_gigantic_patch14_clip_378": (1_845_695_616, 1_280),
    "vit_base_patch16_clip_quickgelu_224": (86_193_152, 512),
    "vit_base_patch32_clip_quickgelu_224": (87_849_728, 512),
    "vit_large_patch14_clip_quickgelu_224": (303_966_976, 768),
    "vit_large_patch14_clip_quickgelu_336": (304_294_656, 768),
    "vit_huge_patch14_clip_quickgelu_224": (632_077_824, 1_024),
    "vit_huge_patch14_clip_quickgelu_378": (632_683_264, 1_024),
    "vit_gigantic_patch14_clip_quickgelu_224": (1_844_908_544, 1_280),
    "vit_small_patch16_dinov3": (21_586_944, 0),
    "vit_base_patch16_dinov3": (85_641_216, 0),
    "vit_large_patch16_dinov3": (303_079_424, 0),
    "vit_tiny_patch16_dinov3_qkvb": (5_489_664, 0),
    "vit_small_patch16_dinov3_qkvb": (21_596_160, 0),
    "vit_base_patch16_dinov3_qkvb": (85_659_648, 0),
    "vit_large_patch16_dinov3_qkvb": (303_128_576, 0),
    "vit_small_plus_patch16_dinov3": (28_683_264, 0),
    "vit_huge_plus_patch16_dinov3": (840_509_440, 0),
    "vit_small_plus_patch16_dinov3_qkvb": (28_692_480, 0),
    "vit_huge_plus_patch16_dinov3_qkvb": (840_591_360, 0),
    "vit_7b_patch16_dinov3": (6_716_030_976, 0),
    "vit_small_patch16_lingbot": (21_596_160, 0),
    "vit_base_patch16_lingbot": (85_659_648, 0),
    "vit_large_patch16_lingbot": (303_128_576, 0),
    "vit_giant_patch16_lingbot": (1_134_473_216, 0),
    "vit_small_patch16_rope_224": (21_984_232, 1_000),
    "vit_base_patch16_rope_224": (86_434_792, 1_000),
    "vit_large_patch16_rope_224": (304_174_056, 1_000),
    "vit_small_patch16_rope_ape_224": (22_059_496, 1_000),
    "vit_base_patch16_rope_ape_224": (86_585_320, 1_000),
    "vit_large_patch16_rope_ape_224": (304_374_760, 1_000),
    "vit_small_patch16_rope_mixed_224": (21_988_840, 1_000),
    "vit_base_patch16_rope_mixed_224": (86_444_008, 1_000),
    "vit_large_patch16_rope_mixed_224": (304_198_632, 1_000),
    "vit_small_patch16_rope_mixed_ape_224": (22_064_104, 1_000),
    "vit_base_patch16_rope_mixed_ape_224": (86_594_536, 1_000),
    "vit_large_patch16_rope_mixed_ape_224": (304_399_336, 1_000),
    "vit_medium_patch16_rope_reg1_gap_256": (38_743_016, 1_000),
    "vit_base_patch16_rope_reg1_gap_256": (86_425_576, 1_000),
    "vit_betwixt_patch16_rope_reg4_gap_256": (60_226_920, 1_000),
    "vit_mediumd_patch16_rope_reg1_gap_256": (63_945_704, 1_000),
    "eva_large_patch14_196": (304_142_312, 1_000),
    "eva_large_patch14_336": (304_531_432, 1_000),
    "eva_giant_patch14_224": (1_012_555_112, 1_000),
    "eva_giant_patch14_336": (1_013_005_672, 1_000),
    "eva_giant_patch14_560": (1_014_447_464, 1_000),
    "eva_giant_patch14_clip_224": (1_012_588_928, 1_024),
    "aimv2_large_patch14_224": (309_197_824, 0),
    "aimv2_large_patch14_336": (309_525_504, 0),
    "aimv2_large_patch14_448": (309_984_256, 0),
    "aimv2_huge_patch14_224": (680_851_968, 0),
    "aimv2_huge_patch14_336": (681_343_488, 0),
    "aimv2_huge_patch14_448": (682_031_616, 0),
    "aimv2_1b_patch14_224": (1_234_958_336, 0),
    "aimv2_1b_patch14_336": (1_235_613_696, 0),
    "aimv2_1b_patch14_448": (1_236_531_200, 0),
    "aimv2_3b_patch14_224": (2_720_658_432, 0),
    "aimv2_3b_patch14_336": (2_721_641_472, 0),
    "aimv2_3b_patch14_448": (2_723_017_728, 0),
    "test_vit": (371_240, 1_000),
    "test_vit2": (455_720, 1_000),
    "test_vit4": (1_020_520, 1_000),
}
WITHOUT_A_HEAD_IN_TIMM = ("vit_large_patch32_224", "vit_small_patch8_224", "vit_huge_patch14_224")


def test_every_published_name_is_compared_with_timm():
    assert set(TIMM) == set(PUBLISHED)


@pytest.mark.parametrize("name", TIMM)
def test_published_model_has_the_number_of_parameters_of_timm(name):
    parameters, num_classes = TIMM[name]
    config = config_for(name, num_classes=num_classes)
    assert count_parameters(config) == parameters


@pytest.mark.parametrize("name", TIMM)
def test_published_model_has_the_classes_of_timm(name):
    # Standard names have 1000 classes here, even if timm's default weights for them have no head.
    expected = 1000 if name in WITHOUT_A_HEAD_IN_TIMM else TIMM[name][1]
    assert config_for(name).num_classes == expected


@pytest.mark.parametrize("name", TIMM)
def test_published_name_specifies_patch_and_image(name):
    parsed = parse_name(name)
    assert parsed.patch_size in (8, 14, 16, 32)
    assert parsed.img_size is not None
    assert parsed.img_size % parsed.patch_size == 0


def test_braces_expand_to_each_of_their_words():
    assert expand("vit_{small,base}_patch{14,16}_x") == [
        "vit_small_patch14_x",
        "vit_small_patch16_x",
        "vit_base_patch14_x",
        "vit_base_patch16_x",
    ]
    assert expand("test_vit") == ["test_vit"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deit3_large_patch16_384", {"layer_scale": 1e-4, "drop_path_schedule": "constant", "prefix_position": "none"}),
        ("vit_giant_patch14_reg4_dinov2", {"img_size": (518, 518), "mlp_dim": 4096, "act": "silu", "num_registers": 4}),
        ("vit_7b_patch16_dinov3", {"rotary": "dinov3", "mlp_dim": 8192, "has_class_token": True, "pool": "mean"}),
        ("vit_base_patch16_dinov3_qkvb", {"qkv_bias": True, "key_bias": False, "norm_eps": 1e-5}),
        ("vit_large_patch14_clip_quickgelu_336", {"act": "quick_gelu", "embed_norm": True, "patch_bias": False}),
        ("vit_so400m_patch14_siglip_384", {"img_size": (378, 378), "pool": "map", "has_class_token": False}),
        ("deit_tiny_distilled_patch16_224", {"distill_token": True, "num_features": 384}),
        ("vit_small_patch16_36x1_224", {"depth": 36, "embed_dim": 384}),
        ("flexivit_large", {"img_size": (240, 240), "patch_size": 16, "embed_dim": 1024}),
        ("vit_huge_plus_patch16_dinov3", {"num_heads": 20, "mlp_dim": 5120, "mlp": "gated"}),
        ("vit_base_patch16_224.mae", {"init": "mae", "num_classes": 0, "position": "learned"}),
        ("vit_base_patch16_224.augreg2_in21k_ft_in1k", {"init": "timm", "num_classes": 1000}),
    ],
)
def test_model_families_differ_in_these_fields(name, expected):
    config = config_for(name)
    assert {key: getattr(config, key) for key in expected} == expected


def test_arguments_override_a_published_name():
    config = config_for("vit_small_patch14_dinov2", num_classes=7, img_size=(56, 84))
    assert (config.num_classes, config.img_size) == (7, (56, 84))
