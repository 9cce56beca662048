import torch

from vitreous.model.head import Head


def test_head_is_one_linear_layer_with_the_fields_names():
    head, features = Head(num_features=10, num_classes=3), torch.randn(2, 10)
    assert {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()} == {
        "weight": (3, 10),
        "bias": (3,),
    }
    torch.testing.assert_close(head(features), features @ head.weight.T + head.bias)
