"""Model -> parameters that decay and parameters that do not."""

from torch import nn
from torch.nn import Parameter

_MATRIX_MODULES = (nn.Linear, nn.Conv2d)


def split_by_decay(model: nn.Module) -> tuple[list[Parameter], list[Parameter]]:
    """Weight decay is for the matrices that multiply features, and for nothing else.

    Norms, biases, tokens and positions are offsets and scales: shrinking them towards zero regularises nothing.

    Args:
        model: Any module.

    Returns:
        (decayed, not decayed), each in the order of `model.named_parameters()`; together all trainable parameters.

    Source: Touvron et al. 2021, section 4 and their code (2012.12877).
    """
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, _MATRIX_MODULES)}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if id(parameter) in matrices]
    not_decayed = [parameter for parameter in trainable if id(parameter) not in matrices]
    return decayed, not_decayed
