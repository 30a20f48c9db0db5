"""A picture from the page -> what each network makes of it, as JSON values.

answers = Answers({"mnist": load_network("runs/mnist")})
answers.answer(png)[0]["probabilities"]  # [0.0, 0.01, ...]
"""

from __future__ import annotations

import base64
import io
import struct
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from lenet_tf.experiment.network import Network
from lenet_tf.pictures import PictureError, find_digit, fit_picture, read_picture

_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_SIDE = 2048  # pixels; the page sends 512 at most
_MAPS = ("c1", "c3")


class Answers:
    """Networks that answer one picture at a time, from whichever thread.

    Args:
      networks: Networks by the name of their run.
    """

    def __init__(self, networks: Mapping[str, Network]) -> None:
        self._networks = networks
        self._lock = threading.Lock()
        for network in networks.values():  # Their graphs are made now, not later.
            _look(network, np.zeros(network.splits.image_shape, np.uint8))

    def runs(self) -> list[dict[str, Any]]:
        """Returns the name and the classes of each run."""
        return [
            {"name": name, "classes": list(network.splits.class_names)}
            for name, network in self._networks.items()
        ]

    def answer(self, png: bytes) -> list[dict[str, Any]]:
        """Looks at a picture with each network.

        Args:
          png: Picture as a PNG file.

        Returns:
          For each run `probabilities`, the `image` that the network saw, and the `maps`
          that it made of it; see `_tiles` for these two.

        Raises:
          PictureError: The picture cannot be read, is empty, or is too large.
        """
        picture = _read(png)
        with self._lock:
            return [
                _look(network, _image(network, picture))
                for network in self._networks.values()
            ]

    def close(self) -> None:
        """Waits for the picture that is looked at, and lets no other follow."""
        self._lock.acquire()


def _read(png: bytes) -> np.ndarray:
    # No other decoder gets what comes over a network, and none a huge picture.
    if len(png) < 24 or not png.startswith(_PNG):
        raise PictureError("the body is no PNG picture")
    width, height = struct.unpack(">II", png[16:24])
    if max(width, height) > _MOST_SIDE:
        raise PictureError(
            f"the picture has {width}x{height} pixels: at most "
            f"{_MOST_SIDE}x{_MOST_SIDE} are read"
        )
    return read_picture(io.BytesIO(png))


def _image(network: Network, picture: np.ndarray) -> np.ndarray:
    if network.splits.name == "mnist":
        return find_digit(picture).image
    return fit_picture(picture, network.splits.image_shape)


def _look(network: Network, image: np.ndarray) -> dict[str, Any]:
    maps = network.maps(image)
    return {
        "probabilities": [float(p) for p in network.probabilities(image[None])[0]],
        "image": _tiles("image", image[None]),
        "maps": [
            _tiles(name, _grey(maps[name]).transpose(2, 0, 1)[..., None])
            for name in _MAPS
        ],
    }


def _grey(maps: np.ndarray) -> np.ndarray:
    """Scales maps [H, W, maps] to uint8, from the least of all values to the most."""
    least, most = maps.min(), maps.max()
    return np.round(255 * (maps - least) / max(most - least, 1e-6)).astype(np.uint8)


def _tiles(name: str, tiles: np.ndarray) -> dict[str, Any]:
    """Returns images, uint8 [tiles, H, W, channels], with their pixels in base64."""
    count, height, width, channels = tiles.shape
    return {
        "name": name,
        "count": count,
        "height": height,
        "width": width,
        "channels": channels,
        "pixels": base64.b64encode(tiles.tobytes()).decode(),
    }
