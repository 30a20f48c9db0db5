"""The page to draw on, as browsers and others meet it: over real sockets."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import pathlib
import socket
import struct
import threading
import zlib
from typing import Any

import numpy as np
import pytest
from drawn import drawing, png, serving
from idx_writer import idx_bytes
from PIL import Image
from programs import run

import lenet_tf
from lenet_tf.demo import Answers, DemoServer
from lenet_tf.errors import UsageError
from lenet_tf.experiment.network import Network, load_network
from lenet_tf.pictures import find_digit, fit_picture


def ask(
    server: DemoServer,
    method: str,
    path: str,
    body: bytes | None = None,
    **headers: str,
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    with contextlib.closing(connection):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        response = connection.getresponse()
        return response.status, response.read(), response.headers


def classify(server: DemoServer, body: bytes, **headers: str) -> tuple[int, Any]:
    headers = {"Content_Type": "image/png", **headers}
    status, answer, _ = ask(server, "POST", "/classify", body, **headers)
    return status, json.loads(answer)


def pixels(tiles: dict[str, Any]) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(tiles["pixels"]), np.uint8)
    sides = [tiles[key] for key in ("count", "height", "width", "channels")]
    return flat.reshape(sides)


@pytest.mark.parametrize("index", range(5))
def test_the_answer_is_that_of_the_network(
    index: int, server: DemoServer, network: Network
) -> None:
    status, (first, second) = classify(server, png(drawing(index)))
    assert status == 200
    image = find_digit(drawing(index)).image
    expected = network.probabilities(image[None])[0]
    np.testing.assert_allclose(first["probabilities"], expected, rtol=1e-6)
    np.testing.assert_array_equal(pixels(first["image"])[0], image)
    assert second == first
    for layer, maps in zip(first["maps"], ("c1", "c3"), strict=True):
        values = network.maps(image)[maps].transpose(2, 0, 1)
        shades = pixels(layer)[..., 0].astype(float)
        assert shades.shape == values.shape
        assert (shades.min(), shades.max()) == (0, 255)
        assert np.corrcoef(shades.ravel(), values.ravel())[0, 1] > 0.999


def test_pictures_of_other_datasets_are_taken_whole(
    network: Network, tmp_path: pathlib.Path
) -> None:
    test = lenet_tf.load("mnist").test  # Digits stand in for clothes.
    for name in ("train", "t10k"):
        for kind, array in (
            ("images-idx3", test.image[:500, ..., 0]),
            ("labels-idx1", test.label[:500]),
        ):
            (tmp_path / f"{name}-{kind}-ubyte").write_bytes(idx_bytes(array))
    lenet_tf.prepare("fashion_mnist", data_dir=tmp_path / "data", idx_dir=tmp_path)
    flags = ["--dataset=fashion_mnist", f"--data_dir={tmp_path / 'data'}"]
    flags += ["--validation_examples=100", "--epochs=1", "--num_replicas=1"]
    finished = run("train.py", *flags, f"--workdir={tmp_path / 'run'}")
    assert finished.status == 0, finished.stderr
    clothes = load_network(tmp_path / "run")
    both = Answers({"digits": network, "clothes": clothes})
    with serving(DemoServer(both, port=0)) as server:
        runs = json.loads(ask(server, "GET", "/runs")[1])
        assert runs[1]["classes"][:2] == ["T-shirt/top", "Trouser"]
        _, (_, answer) = classify(server, png(drawing(0)))
    image = fit_picture(drawing(0), (28, 28, 1))
    np.testing.assert_array_equal(pixels(answer["image"])[0], image)
    expected = clothes.probabilities(image[None])[0]
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=1e-6)


def test_the_page_and_its_files(server: DemoServer) -> None:
    for path, kind, part in [
        ("/", "text/html", b"<canvas"),
        ("/?theme=1", "text/html", b"<canvas"),
        ("/page.css", "text/css", b"prefers-color-scheme"),
        ("/page.js", "text/javascript", b"pointerdown"),
        ("/runs", "application/json", b'"few"'),
    ]:
        status, body, headers = ask(server, "GET", path)
        assert status == 200
        assert headers["Content-Type"].startswith(kind)
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert part in body
        status, nothing, of_head = ask(server, "HEAD", path)
        assert (status, nothing) == (200, b"")
        assert of_head["Content-Length"] == str(len(body))
    runs = json.loads(ask(server, "GET", "/runs")[1])
    assert [run["name"] for run in runs] == ["few", "again"]
    assert runs[0]["classes"] == list("0123456789")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/page.html", 404),
        ("GET", "/server.py", 404),
        ("GET", "/../server.py", 404),
        ("GET", "//etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/page.css/", 404),
        ("GET", "//[", 404),
        ("GET", "/classify", 404),
        ("POST", "/", 404),
        ("PUT", "/classify", 501),
        ("DELETE", "/page.js", 501),
        ("OPTIONS", "/classify", 501),
    ],
)
def test_nothing_else_is_served(
    method: str, path: str, status: int, server: DemoServer
) -> None:
    found, body, _ = ask(server, method, path, b"", Content_Type="image/png")
    assert found == status
    assert list(json.loads(body)) == ["error"]


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(drawing(0)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (lambda: b"", "no PNG picture"),
        (lambda: b"\x89PNG\r\n\x1a\n", "no PNG picture"),
        (jpeg, "no PNG picture"),
        (lambda: png(drawing(0))[:-300], "cannot be read"),
        (lambda: bomb(40_000, 40_000), "40000x40000"),
        (lambda: bomb(100, 100), "cannot be read"),
        (lambda: png(np.zeros([280, 280, 3], np.uint8)), "is empty"),
        (lambda: png(np.zeros([1, 1, 3], np.uint8)), "is empty"),
    ],
)
def test_a_bad_picture_is_one_line(body: Any, part: str, server: DemoServer) -> None:
    status, answer = classify(server, body())
    assert status == 400
    assert part in answer["error"]
    assert "\n" not in answer["error"]


def test_the_least_that_can_be_drawn_has_an_answer(server: DemoServer) -> None:
    dot = np.zeros([280, 280, 3], np.uint8)
    dot[100:108, 100:108] = 255
    status, answer = classify(server, png(dot))
    assert status == 200, answer
    assert sum(answer[0]["probabilities"]) == pytest.approx(1, abs=1e-5)


def raw(server: DemoServer, request: bytes, end: bool = False) -> bytes:
    """Sends bytes as they are; returns what comes until the server closes."""
    address = server.server_address[:2]
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(request)
        if end:
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


POST = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"


def test_the_length_of_a_picture(server: DemoServer) -> None:
    # Bytes after the picture's end do no harm, so this is the longest that is read.
    longest = png(drawing(0)).ljust(2**20, b"\0")
    assert classify(server, longest)[0] == 200
    status, answer = classify(server, longest + b"\0")
    assert status == 413
    assert "1,048,577" in answer["error"]
    for line, status in [
        (b"", 411),
        (b"Transfer-Encoding: chunked\r\n", 411),
        (b"Content-Length: -1\r\n", 400),
        (b"Content-Length: x\r\n", 400),
        (b"Content-Length: 1e3\r\n", 400),
        (b"Content-Length: 99999999999\r\n", 413),
        (b"Content-Length: " + b"9" * 5000 + b"\r\n", 400),
    ]:
        answer = raw(server, POST + line + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 %d " % status), line
        assert b'{"error": ' in answer


def test_other_sites_are_refused(server: DemoServer) -> None:
    port, body = server.server_address[1], png(drawing(0))
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost:9", "[::1]:9"):
        own = {"Host": host, "Origin": f"http://{host}"}
        assert classify(server, body, **own)[0] == 200
        assert ask(server, "GET", "/", Host=host)[0] == 200
    for host in (f"evil.example:{port}", "localhost.evil.example", "10.0.0.1", "", "["):
        assert classify(server, body, Host=host)[0] == 403
        assert ask(server, "GET", "/", Host=host)[0] == 403
    for origin in ("http://evil.example", "null", f"http://localhost:{port}"):
        assert classify(server, body, Origin=origin)[0] == 403
    for kind in ("text/plain", "multipart/form-data", "image/jpeg"):
        assert classify(server, body, Content_Type=kind)[0] == 415


def test_slow_and_lost_clients(
    answers: Answers, capfd: pytest.CaptureFixture[str]
) -> None:
    body = png(drawing(0))
    whole = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with serving(DemoServer(answers, port=0, patience=0.3)) as server:
        for part in (b"", b"POST", POST, whole[:-1]):
            assert raw(server, part) == b""  # closed when its patience ended
        for part in (b"", whole[:-1]):
            assert raw(server, part, end=True) == b""
        for _ in range(5):  # closed with its answer unread, by a reset
            with socket.create_connection(server.server_address[:2]) as connection:
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.sendall(whole)
        assert raw(server, b"\x00\xff\r\n\r\n").endswith(b'"}')
        assert classify(server, body)[0] == 200
    assert capfd.readouterr() == ("", "")


def test_many_ask_at_once(server: DemoServer) -> None:
    body = png(drawing(3))
    expected = classify(server, body)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(classify(server, body)))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 12


def test_a_place_where_it_cannot_listen(server: DemoServer, answers: Answers) -> None:
    with pytest.raises(UsageError, match=r"^port is \d+: .* 0 chooses a free one$"):
        DemoServer(answers, port=server.server_address[1])
    for host in ("no.such.host.invalid", "a" * 70, "..", ""):
        with pytest.raises(UsageError, match=f"^host is {host}: "):
            DemoServer(answers, host, 0)
