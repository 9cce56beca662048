"""Trained model, any number of images -> a folder of tables, made by all cores, all GPUs or a Ray cluster."""
