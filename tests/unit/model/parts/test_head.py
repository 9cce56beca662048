import torch

from vitreous.model.parts.head import DistilledHead


def test_distilled_head_averages_the_logits_of_both_tokens():
    head, features = DistilledHead(num_features=20, num_classes=3), torch.randn(2, 20)
    by_label = features[:, :10] @ head.label.weight.T + head.label.bias
    by_teacher = features[:, 10:] @ head.teacher.weight.T + head.teacher.bias
    torch.testing.assert_close(head.both(features), (by_label, by_teacher))
    torch.testing.assert_close(head(features), (by_label + by_teacher) / 2)
