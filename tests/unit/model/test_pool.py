import torch

from vitreous.model.pool import ClassTokenPool, MeanPool


def test_class_token_pool_reads_the_first_token():
    tokens = torch.randn(2, 7, 10)
    torch.testing.assert_close(ClassTokenPool()(tokens), tokens[:, 0], rtol=0, atol=0)


def test_mean_pool_averages_patches_and_leaves_prefix_tokens_out():
    tokens = torch.randn(2, 7, 10, dtype=torch.float64)
    torch.testing.assert_close(MeanPool()(tokens), sum(tokens.unbind(1)) / 7)
    torch.testing.assert_close(MeanPool(num_prefix_tokens=2)(tokens), sum(tokens.unbind(1)[2:]) / 5)
