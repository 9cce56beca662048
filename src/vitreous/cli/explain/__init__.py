"""`vitreous explain` -> pictures, a comparison of methods, a look into the model, a search for shortcuts."""
