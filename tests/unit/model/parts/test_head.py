import torch

from vitreous.model.parts.head import DistilledHead, Head


def test_head_is_one_linear_layer_with_the_fields_names():
    head, features = Head(num_features=10, num_classes=3), torch.randn(2, 10)
    assert {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()} == {
        "weight": (3, 10),
        "bias": (3,),
    }
    torch.testing.assert_close(head(features), features @ head.weight.T + head.bias)


def test_distilled_head_scores_each_token_by_its_own_layer_and_averages():
    head, features = DistilledHead(num_features=20, num_classes=3), torch.randn(2, 20)
    by_label = features[:, :10] @ head.label.weight.T + head.label.bias
    by_teacher = features[:, 10:] @ head.teacher.weight.T + head.teacher.bias
    torch.testing.assert_close(head.both(features), (by_label, by_teacher))
    torch.testing.assert_close(head(features), (by_label + by_teacher) / 2)
