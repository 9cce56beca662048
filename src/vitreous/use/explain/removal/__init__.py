"""Model, images, sets of patches -> scores without the other patches, and the Shapley values of that game."""
