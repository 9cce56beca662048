"""Pillow's process-wide settings -> those that decoding needs, while any thread decodes; then what they were before."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from vitreous.data.decoding.limits import max_pixels

_loggers = [logging.getLogger(name) for name in ("PIL.TiffImagePlugin", "tifffile")]
_lock = threading.Lock()
_num_decoding = 0
_outer_filters: "warnings.catch_warnings[None] | None" = None
_outer_limit: int | None = None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore what Pillow says about odd metadata, and replace its pixel limit by ours; safe to use in several threads.

    `warnings.catch_warnings` is not thread-safe, so the first thread enters it and the last one leaves it. Pillow warns
    at its limit and raises an error at twice that; here this only bounds images inside images, such as icons.
    """
    global _num_decoding, _outer_filters, _outer_limit
    limit = max_pixels()
    with _lock:
        if _num_decoding == 0:
            _outer_filters, _outer_limit = warnings.catch_warnings(), Image.MAX_IMAGE_PIXELS
            _outer_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            Image.MAX_IMAGE_PIXELS = limit
            for logger in _loggers:
                logger.addFilter(_reject)
        _num_decoding += 1
    try:
        yield
    finally:
        with _lock:
            _num_decoding -= 1
            if _num_decoding == 0 and _outer_filters is not None:
                _outer_filters.__exit__(None, None, None)
                _outer_filters, Image.MAX_IMAGE_PIXELS = None, _outer_limit
                for logger in _loggers:
                    logger.removeFilter(_reject)


def _reject(record: logging.LogRecord) -> bool:
    """Show no message about a TIFF file; what is wrong with it becomes a DecodeError."""
    return False
