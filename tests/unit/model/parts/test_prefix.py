import pytest
import torch

from vitreous.model.parts.embedding import Prefix


def filled(**kwargs):
    prefix = Prefix(embed_dim=10, **kwargs)
    for parameter in prefix.parameters():
        torch.nn.init.normal_(parameter)
    return prefix


def test_class_token_stands_first_with_its_own_position():
    prefix, tokens = filled(), torch.randn(2, 15, 10)
    sequence = prefix(tokens)
    first = (prefix.class_token + prefix.class_position).expand(2, 10)
    torch.testing.assert_close(sequence[:, 0], first, rtol=0, atol=0)
    torch.testing.assert_close(sequence[:, 1:], tokens, rtol=0, atol=0)


def test_class_token_without_a_position_has_one_parameter():
    prefix = filled(position="none")
    assert list(prefix.state_dict()) == ["class_token"]
    torch.testing.assert_close(prefix(torch.zeros(2, 3, 10))[:, 0], prefix.class_token.expand(2, 10))


@pytest.mark.parametrize("position", ["all", "class", "none"])
def test_class_token_then_distillation_token_then_registers_then_patches(position):
    prefix, tokens = filled(distill_token=True, num_registers=3, position=position), torch.randn(2, 15, 10)
    zeros = torch.zeros(10)
    expected = torch.stack([
        prefix.class_token + (prefix.class_position if position != "none" else zeros),
        prefix.distill_token + (prefix.distill_position if position != "none" else zeros),
        *(prefix.registers + (prefix.register_position if position == "all" else zeros)),
    ])  # fmt: skip
    sequence = prefix(tokens)
    torch.testing.assert_close(sequence[:, :5], expected.expand(2, 5, 10), rtol=0, atol=0)
    torch.testing.assert_close(sequence[:, 5:], tokens, rtol=0, atol=0)


def test_registers_need_no_class_token():
    prefix = filled(class_token=False, num_registers=2)
    assert {name: tuple(p.shape) for name, p in prefix.named_parameters()} == {"registers": (2, 10)}
