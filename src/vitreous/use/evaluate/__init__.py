"""A trained model, labelled images -> how good it is, class by class, and how sure that is."""
