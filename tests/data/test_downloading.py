"""Downloads that stall or never end, against a real server on this machine."""

from __future__ import annotations

import http.server
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Iterator

import programs
import pytest

from lenet_tf.data import downloading, preparation
from lenet_tf.errors import DataError


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends a block, and then nothing (/stall/...) or more for ever (/endless/...)."""

    stop = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(2**40))
        self.end_headers()
        try:
            self.wfile.write(bytes(2**16))
            if self.path.startswith("/stall/"):
                self.stop.wait()
            while not self.stop.is_set():
                self.wfile.write(bytes(2**16))
        except OSError:
            pass  # The other side has gone.

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of the server; neither proxies nor npm are used."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    Handler.stop.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Handler.stop.set()
    server.shutdown()
    server.server_close()


def files(folder: pathlib.Path) -> list[str]:
    """Everything in a folder but the lock."""
    return [p.name for p in folder.rglob("*") if not p.name.endswith(".lock")]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("stall", r"sent nothing for 0\.5 s"),
        ("endless", "MiB came, which is more than the dataset can need"),
    ],
)
def test_a_download_that_does_not_end_is_an_error_that_leaves_nothing(
    tmp_path: pathlib.Path,
    server: str,
    kind: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tensorflow_datasets.image_classification import mnist

    if kind == "stall":
        monkeypatch.setattr(downloading, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(mnist.MNIST, "URL", f"{server}/{kind}/")
    with pytest.raises(DataError, match=message):
        preparation.prepare("mnist", data_dir=tmp_path)
    assert files(tmp_path) == []


def _prepare(url: str, data_dir: str) -> None:
    from tensorflow_datasets.image_classification import mnist

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, interrupt)  # as the programs do
    mnist.MNIST.URL = url
    try:
        preparation.prepare("mnist", data_dir=data_dir)
    except KeyboardInterrupt:
        sys.exit(99)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_a_download_that_stalls(
    tmp_path: pathlib.Path, server: str, signum: signal.Signals
) -> None:
    process = programs._context.Process(
        target=_prepare, args=(f"{server}/stall/", str(tmp_path))
    )
    process.start()
    assert process.pid is not None
    while not any(tmp_path.glob("downloads/mnist/*.tmp.*/*")):
        assert process.is_alive()
        time.sleep(0.05)
    os.kill(process.pid, signum)
    # The end of a stall would be another status: it is an error, not an interrupt.
    process.join()
    assert process.exitcode == 99
    assert files(tmp_path) == []
