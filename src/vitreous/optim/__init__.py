"""Loss -> optimiser step: which parameters move, how far, and what average of them is kept."""
