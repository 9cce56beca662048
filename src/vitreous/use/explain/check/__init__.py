"""Model, labeled images -> how faithful each method explains it: published tests, with intervals and references."""
