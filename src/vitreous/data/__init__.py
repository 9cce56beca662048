"""Image files -> batches of images, labels.

`open_source` -> `survey` -> `load_store` -> `TrainLoader`, `EvalLoader`; `Preprocess` is the one object that training,
evaluation, prediction and export share.
"""
