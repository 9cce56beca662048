import torch

from vitreous.model.prefix import ClassToken


def test_class_token_stands_first_with_its_own_position():
    prefix = ClassToken(embed_dim=10)
    torch.nn.init.normal_(prefix.class_token)
    torch.nn.init.normal_(prefix.class_position)
    tokens = torch.randn(2, 15, 10)
    sequence = prefix(tokens)
    first = (prefix.class_token + prefix.class_position).expand(2, 10)
    torch.testing.assert_close(sequence[:, 0], first, rtol=0, atol=0)
    torch.testing.assert_close(sequence[:, 1:], tokens, rtol=0, atol=0)


def test_class_token_without_a_position_has_one_parameter():
    prefix = ClassToken(embed_dim=10, position=False)
    torch.nn.init.normal_(prefix.class_token)
    assert list(prefix.state_dict()) == ["class_token"]
    torch.testing.assert_close(prefix(torch.zeros(2, 3, 10))[:, 0], prefix.class_token.expand(2, 10))
