"""Image files -> batches of images and labels.

`open_source` -> `survey` -> `load_store` -> `TrainLoader`, `EvalLoader`. Training, evaluation, prediction and export
share one `Preprocess`.
"""
