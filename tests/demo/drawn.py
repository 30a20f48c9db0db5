"""Pictures of digits, and a server in a thread."""

from __future__ import annotations

import contextlib
import functools
import io
import pathlib
import threading
from collections.abc import Iterator

import numpy as np
from PIL import Image

import lenet_tf
from lenet_tf.demo import DemoServer

MAIN = str(pathlib.Path(lenet_tf.__file__).parent / "__main__.py")


@contextlib.contextmanager
def serving(server: DemoServer) -> Iterator[DemoServer]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@functools.cache
def drawing(index: int) -> np.ndarray:
    """A test digit as one would draw it: large, in a corner, dark on white."""
    digit = Image.fromarray(lenet_tf.load("mnist").test.image[index, ..., 0])
    page = np.full([280, 280, 3], 255, np.uint8)
    page[:168, 100:268] -= np.asarray(digit.resize((168, 168)))[..., None]
    return page
