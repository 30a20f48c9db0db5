"""Makes its strategy, and reads data for a while before the first collective.

python early_loss.py folder
"""

from __future__ import annotations

import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from lenet_tf import make_strategy
from lenet_tf.cli import program
from lenet_tf.parallel import together


def main() -> None:
    strategy = make_strategy(worker_timeout=60)
    print("made", flush=True)
    while not pathlib.Path(FOLDER, "go").exists():
        time.sleep(0.05)
    with together(strategy, lambda: None) as poll:
        poll()


if __name__ == "__main__":
    FOLDER = sys.argv.pop()
    program.run(main, __doc__)
