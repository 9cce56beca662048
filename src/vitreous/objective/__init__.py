"""Logits, targets -> loss: supervised losses and distillation."""
