"""Images -> tokens -> features -> logits: the parts that a Vision Transformer is put together from."""
