"""Run or weights, images -> embeddings; embeddings -> nearest images, near-duplicates and clusters."""
