"""Behaviour of lenet_tf.parallel.cluster: which workers there are."""

from __future__ import annotations

import json
import pathlib

import pytest
from local_cluster import tf_config
from programs import run

from lenet_tf import make_strategy
from lenet_tf.errors import UsageError
from lenet_tf.parallel import cluster

TWO = ["a:1", "b:2"]
TASK = {"type": "worker", "index": 0}
NESTED = json.loads("[" * 500 + "]" * 500)


def config(cluster: object, task: object = TASK) -> str:
    return json.dumps({"cluster": cluster, "task": task})


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TF_CONFIG", "grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("no_grpc_proxy", "no_proxy", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{", "is not JSON"),
        ("[]", "is []"),
        ("{}", "has None as its 'cluster'"),
        (json.dumps({"cluster": {"worker": TWO}}), "has None as its 'task'"),
        (config([]), "has [] as its 'cluster'"),
        (config({}), "has {} as its 'cluster'"),
        (config({"worker": TWO}, []), "has [] as its 'task'"),
        (config({"worker": TWO, "ps": ["c:3"]}), "has 'ps' in its cluster"),
        (config({"worker": "a:1"}), "has 'a:1' as its 'worker'"),
        (config({"worker": []}), "has [] as its 'worker'"),
        (config({"worker": ["a:1", "b"]}), "has 'b', where host:port must be"),
        (config({"worker": ["a:1", ":2"]}), "has ':2', where"),
        (config({"worker": ["a:1", "b:x"]}), "has 'b:x', where"),
        (config({"worker": ["a:1", "b:0"]}), "has 'b:0', where"),
        (config({"worker": ["a:1", "b:65536"]}), "has 'b:65536', where"),
        (config({"worker": ["a:1", "http://b:2"]}), "has 'http://b:2', where"),
        (config({"worker": ["a:1", 2]}), "has 2, where"),
        (config({"worker": ["a:1", "a:1"]}), "has 'a:1' twice"),
        (config({"chief": ["a:1"], "worker": ["a:1"]}), "has 'a:1' twice"),
        (config({"chief": TWO, "worker": ["c:3"]}), "has 2 chiefs"),
        (config({"worker": TWO}, {"index": 0}), "has None as its task's type"),
        (config({"worker": TWO}, {"type": "chief", "index": 0}), "has 'chief' as"),
        (config({"worker": TWO}, {"type": "worker"}), "has None as its task's index"),
        (config({"worker": TWO}, TASK | {"index": 2}), "has 2 as its task's index"),
        (config({"worker": TWO}, TASK | {"index": -1}), "has -1 as its task's index"),
        (config({"worker": TWO}, TASK | {"index": "x"}), "has 'x' as its task's index"),
        (config({"worker": TWO}, TASK | {"index": True}), "has True as its task's"),
        (config({"worker": TWO}, TASK | {"index": "³"}), "has '³' as its task's index"),
        (config({"worker": TWO}, TASK | {"index": "9" * 5000}), "has '999"),
        (
            config({"worker": TWO}, {"type": ["worker"], "index": 0}),
            "has ['worker'] as",
        ),
        (
            config({"worker": TWO}, {"type": {}, "index": 0}),
            "has {} as its task's type",
        ),
        (config({"worker": ["a:1", "h" * 300 + ":2"]}), "has 'hhh"),
        (config({"worker": ["a:1", "h" * 64 + ".org:2"]}), "has 'hhh"),
        (config({"worker": ["a:1", "a..b:2"]}), "has 'a..b:2', where"),
        (config({"worker": ["a:1", "b\0:2"]}), r"has 'b\x00:2', where"),
        (config({"worker": ["a:1", "b\n:2"]}), r"has 'b\n:2', where"),
        (config({"worker": ["a:1", "\ud800:2"]}), r"has '\ud800:2', where"),
        (config({"worker": ["a:1", "b:²"]}), "has 'b:²', where"),
        (config({"worker": ["a:1", "b:" + "1" * 5000]}), "has 'b:111"),
        (config({"worker": ["a:1", "::1:2"]}), "has '::1:2', where"),
        (config({"worker": ["a:1", "[b]:2"]}), "has '[b]:2', where"),
        (config({"worker": ["a:1", "[::1:2"]}), "has '[::1:2', where"),
        (config({"worker": ["a:1", NESTED]}), "has [[[[[["),
        (config({"worker": TWO}, {"type": NESTED, "index": 0}), "has [[[[[["),
        ("[" * 100_000, "is not JSON"),
        ('{"cluster": ' * 100_000, "is not JSON"),
        ("1" * 5000, "is not JSON"),
        (json.dumps("x" * 100_000), "is 'xxx"),
    ],
)
def test_a_bad_tf_config_is_one_line_with_the_value_and_the_form(
    text: str, names: str
) -> None:
    with pytest.raises(UsageError) as error:
        cluster.from_tf_config(text)
    message = str(error.value)
    assert message.startswith(f"TF_CONFIG {names}")
    assert message.endswith(f": its form is {cluster.FORM}")
    assert "\n" not in message
    assert len(message) < 500


def test_the_program_ends_with_that_line_before_it_makes_anything(
    tmp_path: pathlib.Path,
) -> None:
    finished = run(
        "train.py", f"--workdir={tmp_path / 'run'}", environment={"TF_CONFIG": "{}"}
    )
    assert finished.status == 1
    assert finished.stderr.startswith("error: TF_CONFIG has None as its 'cluster'")
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_workers_and_chief_are_named_the_chief_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = {"worker": ["a:1", "[::1]:2"], "chief": ["c:3"]}
    monkeypatch.setenv("TF_CONFIG", config(jobs, {"type": "worker", "index": 1}))
    resolver = cluster.find_cluster()
    assert resolver is not None
    assert list(cluster.addresses(resolver).items()) == [
        ("chief 0", "c:3"),
        ("worker 0", "a:1"),
        ("worker 1", "[::1]:2"),
    ]
    assert cluster.own_name(resolver) == "worker 1"
    assert not cluster.is_chief(resolver)
    assert cluster.is_chief(cluster.from_tf_config(tf_config({"worker": TWO}, 0)))
    assert not cluster.is_chief(cluster.from_tf_config(tf_config({"worker": TWO}, 1)))


def test_a_lone_worker_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", config({"worker": ["a:1"]}))
    assert cluster.find_cluster() is None
    assert make_strategy(2).num_replicas_in_sync == 2
    with pytest.raises(UsageError, match="there is no other worker: set TF_CONFIG"):
        make_strategy(kind="multi_worker")


def slurm(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    step = {
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_STEP_NODELIST": "n[1-2]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
        "SLURM_PROCID": "1",
        "SLURMD_NODENAME": "n1",
    }
    for name, value in (step | variables).items():
        monkeypatch.setenv(name, value)


def test_the_tasks_of_a_slurm_step_are_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(monkeypatch)
    resolver = cluster.find_cluster()
    assert resolver is not None
    assert cluster.addresses(resolver) == {
        "worker 0": "n1:8888",
        "worker 1": "n1:8889",
        "worker 2": "n2:8888",
    }
    assert cluster.own_name(resolver) == "worker 1"


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"SLURM_STEP_NODELIST": "n[1"}, "Slurm's variables describe no cluster"),
        ({"SLURM_STEP_TASKS_PER_NODE": "1"}, "Slurm's variables describe no cluster"),
        ({"SLURM_PROCID": "3"}, "SLURM_PROCID is 3: the step has tasks 0 to 2"),
        ({"SLURMD_NODENAME": "n2"}, "SLURMD_NODENAME is n2, but TensorFlow"),
    ],
)
def test_slurm_variables_that_do_not_agree_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], line: str
) -> None:
    slurm(monkeypatch, **variables)
    with pytest.raises(UsageError, match=line):
        cluster.find_cluster()


@pytest.mark.parametrize(
    ("environment", "value"),
    [
        ({"http_proxy": "p:3"}, "no_proxy=a,b"),
        ({"https_proxy": "p:3", "no_proxy": "a"}, "no_proxy=a,b"),
        ({"grpc_proxy": "p:3", "no_proxy": "x, a"}, "no_proxy=x,a,b"),
        ({"http_proxy": "p:3", "no_proxy": "a,b", "no_grpc_proxy": "b"}, "_proxy=b,a"),
        ({"http_proxy": "p:3", "no_proxy": "b,a"}, None),
        ({"http_proxy": "p:3", "no_grpc_proxy": "A,B"}, None),
        ({"no_proxy": ""}, None),
        ({"HTTP_PROXY": "p:3"}, None),  # gRPC does not look at it
    ],
)
def test_a_proxy_that_would_catch_the_workers_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], value: str | None
) -> None:
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    resolver = cluster.from_tf_config(tf_config({"worker": TWO}, 0))
    if value is None:
        cluster.check_proxies(resolver)
        return
    with pytest.raises(UsageError, match="is p:3, which would intercept") as error:
        cluster.check_proxies(resolver)
    assert str(error.value).endswith(value)


def test_an_ipv6_address_is_covered_without_its_brackets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = cluster.from_tf_config(tf_config({"worker": ["[::1]:1", "b:2"]}, 0))
    monkeypatch.setenv("http_proxy", "p:3")
    monkeypatch.setenv("no_proxy", "b,::1")
    cluster.check_proxies(resolver)


def test_no_proxy_may_name_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = cluster.from_tf_config(tf_config({"worker": ["10.1.2.3:1", "b:2"]}, 0))
    monkeypatch.setenv("http_proxy", "p:3")
    monkeypatch.setenv("no_proxy", "10.0.0.0/8,b")
    cluster.check_proxies(resolver)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"kind": "many"}, "strategy is 'many': choose one of auto, mirrored, one"),
        ({"kind": "multi_worker"}, "strategy is multi_worker, but there is no other"),
        ({"kind": "multi_worker"}, "or start with srun or `python -m lenet_tf launch"),
        ({"kind": "tpu"}, "is 'tpu': choose one of auto, mirrored, one_device, multi"),
        (
            {"kind": "one_device", "num_replicas": 2},
            "num_replicas is 2, but one_device takes 1 on this machine: leave it",
        ),
    ],
)
def test_a_strategy_that_cannot_be_made_is_refused(
    options: dict[str, str], line: str
) -> None:
    with pytest.raises(UsageError, match=line):
        make_strategy(**options)


def test_a_worker_takes_all_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config({"worker": TWO}, 0))
    with pytest.raises(UsageError, match="is 2, but multi_worker takes 1 on this"):
        make_strategy(2)


def test_one_device_is_one_replica() -> None:
    assert make_strategy(kind="one_device").num_replicas_in_sync == 1
