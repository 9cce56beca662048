"""Images -> tokens -> features -> logits: the modules that a Vision Transformer is made of."""
