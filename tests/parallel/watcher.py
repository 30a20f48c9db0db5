"""Meets the other workers, watches them and sleeps; tests start it.

python watcher.py stop|go_on|fail
"""

from __future__ import annotations

import sys
import time

from lenet_tf.parallel import watch
from lenet_tf.parallel.cluster import find_cluster
from lenet_tf.parallel.meeting import meet

watch.LOST_SECONDS = 1.0


def main(what: str) -> None:
    resolver = find_cluster()
    assert resolver is not None
    links = meet(resolver, timeout=60)
    try:
        with watch.Watch(links) as watching:
            if what == "fail":
                raise ValueError
            if what == "stop":
                watching.stop()
            print("watching", flush=True)
            time.sleep(60 if what == "go_on" else 4)
    except ValueError:
        print("watching", flush=True)
        time.sleep(4)


if __name__ == "__main__":
    main(sys.argv[1])
