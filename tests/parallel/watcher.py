"""Watches the other workers while it sleeps; tests start it.

python watcher.py stop|go_on
"""

from __future__ import annotations

import sys
import time

from lenet_tf.parallel import cluster, reachability

reachability.LOST_SECONDS = 1.0

if __name__ == "__main__":
    resolver = cluster.find()
    assert resolver is not None
    with reachability.Watch(resolver) as watch:
        if sys.argv[1] == "stop":
            watch.stop()
        print("watching", flush=True)
        time.sleep(4 if sys.argv[1] == "stop" else 60)
