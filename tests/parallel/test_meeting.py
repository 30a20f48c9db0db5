"""Behaviour of lenet_tf.parallel.meeting, over real sockets of this machine."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from local_cluster import cluster_of, tf_config

from lenet_tf.errors import UsageError
from lenet_tf.parallel import cluster
from lenet_tf.parallel.links import Links
from lenet_tf.parallel.meeting import meet

Jobs = dict[str, list[str]]


def resolver_of(jobs: Jobs, index: int) -> cluster.Resolver:
    return cluster.from_tf_config(tf_config(jobs, index))


def error_of(jobs: Jobs, index: int = 0, timeout: float = 1.0) -> str:
    with pytest.raises(UsageError) as error:
        meet(resolver_of(jobs, index), timeout)
    assert "\n" not in str(error.value)
    return str(error.value)


def meet_all(all_jobs: list[Jobs], timeout: float) -> list[Links | UsageError]:
    """Worker i with the cluster of all_jobs[i]; what each gets or raises."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        futures = [
            pool.submit(meet, resolver_of(jobs, i), timeout)
            for i, jobs in enumerate(all_jobs)
        ]
    errors = [future.exception() for future in futures]
    assert all(error is None or isinstance(error, UsageError) for error in errors)
    return [error or f.result() for error, f in zip(errors, futures, strict=True)]


@contextlib.contextmanager
def listener(address: str, answer: bytes | None) -> Iterator[None]:
    """Another program at an address, which answers whoever connects, or is silent."""
    host, port = cluster.split_address(address)
    with socket.create_server((host, port)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])
                    if answer is not None:
                        held[-1].sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize("count", [2, 5])
def test_workers_meet_and_leave_their_ports_free(host: str, count: int) -> None:
    ports = [address.split(":")[1] for address in cluster_of(count)["worker"]]
    jobs = {"worker": [f"{host}:{port}" for port in ports]}
    links = meet_all([jobs] * count, timeout=30)
    for i, link in enumerate(links):
        assert isinstance(link, Links)
        names = [f"worker {j}" for j in range(count) if j != i]
        assert list(link.addresses) == names
        link.enter()
        assert link.lost() == []
    for port in ports:  # as TensorFlow does next, while the connections are open
        socket.create_server(
            ("", int(port)), family=socket.AF_INET6, dualstack_ipv6=True
        ).close()


def test_a_port_that_is_taken_is_named() -> None:
    jobs = cluster_of(2)
    with listener(jobs["worker"][0], None):
        port = jobs["worker"][0].split(":")[1]
        assert error_of(jobs).startswith(
            f"port {port} of {jobs['worker'][0]} cannot be opened"
        )


def test_a_worker_that_does_not_come_is_named() -> None:
    jobs = cluster_of(2)
    assert error_of(jobs) == (
        f"after 1 s worker 1 at {jobs['worker'][1]} does not answer: start every "
        "worker, all with the same cluster, or give them longer with worker_timeout"
    )


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-x\r\n", b"x" * 10_000, b"\xff\n", b""], ids=str
)
def test_another_program_at_a_workers_address_is_not_taken_for_it(
    answer: bytes,
) -> None:
    jobs = cluster_of(2)
    with listener(jobs["worker"][1], answer):
        told = f"worker 1 at {jobs['worker'][1]} is missing, another program answered"
        assert told in error_of(jobs)


def test_a_worker_of_another_cluster_is_not_taken_for_it() -> None:
    jobs = cluster_of(3)
    other = {"worker": jobs["worker"][:2]}
    for i, error in enumerate(meet_all([jobs, other], timeout=3)):
        told = f"worker {1 - i} at {jobs['worker'][1 - i]} is missing, a worker of "
        assert f"{told}another cluster answered there" in str(error)


def test_a_worker_that_others_cannot_reach_is_told_so() -> None:
    jobs = cluster_of(2)
    port = jobs["worker"][0].split(":")[1]
    jobs["worker"][0] = f"no-such-host.invalid:{port}"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        second = pool.submit(meet, resolver_of(jobs, 1), 60)
        first = error_of(jobs, timeout=2)
    assert f"worker 1 at {jobs['worker'][1]} answers, but has not reached" in first
    assert f"this worker at {jobs['worker'][0]}" in first
    assert f"worker 0 at {jobs['worker'][0]} ended before" in str(second.exception())


def test_a_worker_that_ends_while_others_are_missing_ends_the_meeting() -> None:
    jobs = cluster_of(3)

    def give_up_early() -> None:
        with pytest.raises(UsageError, match="does not answer"):
            meet(resolver_of(jobs, 1), timeout=2)

    thread = threading.Thread(target=give_up_early)
    thread.start()
    assert error_of(jobs, timeout=60) == (
        f"worker 1 at {jobs['worker'][1]} ended before all workers had met: see what "
        "it reported, and start all workers again"
    )
    thread.join()


def test_whoever_connects_and_says_nothing_keeps_nobody_waiting() -> None:
    jobs = cluster_of(2)
    own = cluster.split_address(jobs["worker"][0])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(meet, resolver_of(jobs, 0), 60)
        visitors = []
        while len(visitors) < 3:
            with contextlib.suppress(OSError):
                visitors.append(socket.create_connection(own))
        visitors[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
        visitors[1].close()
        second = pool.submit(meet, resolver_of(jobs, 1), 60)
        assert isinstance(first.result(), Links)
        assert isinstance(second.result(), Links)
    for visitor in visitors:
        visitor.close()


def test_a_worker_is_lost_unless_it_has_left_as_often_as_this_one_has_entered() -> None:
    first, second = meet_all([cluster_of(2)] * 2, timeout=30)
    assert isinstance(first, Links)
    assert isinstance(second, Links)
    first.enter()
    second.enter()
    second.leave()
    del second  # which closes its connections, as the end of a process does
    assert first.lost() == []
    first.enter()
    end = time.monotonic() + 30
    while first.lost() != ["worker 1"]:
        assert time.monotonic() < end


def test_a_cluster_is_the_same_in_any_order_of_its_keys() -> None:
    jobs = {"worker": cluster_of(1)["worker"], "chief": cluster_of(1)["worker"]}
    turned = dict(reversed(jobs.items()))
    texts = [
        json.dumps({"cluster": c, "task": {"type": t, "index": 0}})
        for c, t in ((jobs, "worker"), (turned, "chief"))
    ]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        resolvers = [cluster.from_tf_config(text) for text in texts]
        futures = [pool.submit(meet, resolver, 30.0) for resolver in resolvers]
    assert [list(f.result().addresses) for f in futures] == [["chief 0"], ["worker 0"]]
