"""Serves a page on which one draws a digit, and sees the network's answer live.

    python -m lenet_tf demo --workdir=runs/mnist
    python -m lenet_tf demo runs/a runs/b            # several networks side by side

Open the address that it prints in a browser. Ctrl-C ends it. It needs no network, and
only this machine can reach it unless --host says otherwise.
"""

from __future__ import annotations

import pathlib
import sys

from absl import flags

from lenet_tf.cli import program
from lenet_tf.cli.workdirs import chosen
from lenet_tf.experiment.network import load_network

_WORKDIR = program.define_path(
    "workdir", "runs/mnist", "Directory of the run; further ones may follow it."
)
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "best", ["latest", "best"], "Checkpoint whose weights are used."
)
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "Name or address to listen on; 0.0.0.0 lets others in."
)
_PORT = flags.DEFINE_integer(
    "port", 8000, "Port to listen on; 0 chooses a free one.", 0, 65535
)

_arguments: list[str] = []


def _main() -> None:
    from lenet_tf.demo import Answers, DemoServer

    networks = {
        name: load_network(workdir, _CHECKPOINT.value)
        for name, workdir in _named(chosen(_WORKDIR, _arguments)).items()
    }
    answers = Answers(networks)
    with DemoServer(answers, _HOST.value, _PORT.value) as server:
        if not server.loopback:
            print(
                f"warning: host is {_HOST.value}: whoever can reach this machine can "
                "use the page",
                file=sys.stderr,
                flush=True,
            )
        print(server.url, flush=True)
        try:
            server.serve_forever()
        finally:
            answers.close()  # TensorFlow must not work while the program ends.


def _named(workdirs: list[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Names runs by their folders, or by their paths if two folders are alike."""
    names = [path.resolve().name for path in workdirs]
    if len(set(names)) < len(names):
        names = [str(path) for path in workdirs]
    return dict(zip(names, workdirs, strict=True))


def main() -> None:
    """Runs the program, and exits."""
    program.run(_main, __doc__, _arguments)
