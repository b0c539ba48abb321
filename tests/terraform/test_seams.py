"""Where Terraform, chart, jobs and guide meet: each name, range, role and port on one side is what it is on the other.

Both sides are evaluated: Terraform against mocks, the chart with the values that Terraform gives it. Nothing is a copy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import yaml

from stack import topics
from tests.helm.chart import Manifests, render
from tests.helm.flows import FLOWS, passing, places
from tests.live import ROOT
from tests.terraform.test_environments import Environment, evaluated, grants

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]

GUIDES = "".join((ROOT / "docs" / name).read_text() for name in ("terraform.md", "kubernetes.md"))


class Sides(NamedTuple):
    """What the two said: to be compared, and to be spoilt."""

    google: Environment
    values: dict[str, Any]
    chart: str
    guides: str

    @property
    def manifests(self) -> Manifests:
        return Manifests([o for o in yaml.safe_load_all(self.chart) if o])

    def jobs_flags(self) -> dict[str, list[str]]:
        return {
            name: job["spec"]["jobManager"]["podTemplate"]["spec"]["initContainers"][0]["args"]
            for name, job in self.manifests.all("FlinkDeployment").items()
        }


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    google = evaluated(tmp_path_factory.mktemp("prod"), "prod")
    values = yaml.safe_load(google.outputs["helm_values"])
    # Where every address may be asked at port 443, no range of another system at that port would be missed.
    values["networkPolicy"]["googleApis"] = {"cidrs": ["199.36.153.8/30"]}
    chart = yaml.safe_dump_all(list(render("prod", values)))
    return Sides(google, values, chart, GUIDES)


def ranges_of(google: Environment) -> dict[str, str]:
    (network,) = google.of("google_compute_subnetwork")
    (services,) = google.of("google_compute_global_address")
    (cluster,) = google.of("google_container_cluster")
    secondary = {r["range_name"]: r["ip_cidr_range"] for r in network.values["secondary_ip_range"]}
    return {
        "nodes": network.values["ip_cidr_range"],
        **secondary,
        "private_services": f"{services.values['address']}/{services.values['prefix_length']}",
        "control_plane": cluster.values["private_cluster_config"][0]["master_ipv4_cidr_block"],
    }


def the_policies_let_through_what_has_to_pass(sides: Sides) -> None:
    policies = list(sides.manifests.all("NetworkPolicy").values())
    missing = set(FLOWS) - passing(policies, places(ranges_of(sides.google)), FLOWS)
    assert not missing, [str(flow) for flow in missing]


def the_ranges_are_apart(sides: Sides) -> None:
    networks = {name: ipaddress.ip_network(cidr) for name, cidr in ranges_of(sides.google).items()}
    for name, one in networks.items():
        for other_name, other in networks.items():
            assert name == other_name or not one.overlaps(other), f"{name} and {other_name}"


def pods_are_bound_to_googles_accounts(sides: Sides) -> None:
    accounts = {a.values["account_id"]: a.values for a in sides.google.of("google_service_account")}
    bound = {
        b.values["member"].partition("[")[2].rstrip("]")
        for b in sides.google.of("google_service_account_iam_member")
        if b.values["role"] == "roles/iam.workloadIdentityUser"
    }
    found = sides.manifests.all("ServiceAccount")
    assert {f"{a['metadata']['namespace']}/{name}" for name, a in found.items()} == bound
    for name, account in found.items():
        email = account["metadata"]["annotations"]["iam.gke.io/gcp-service-account"]
        assert email == f"{name}@{accounts[name]['project']}.iam.gserviceaccount.com"


def pods_may_use_the_buckets_that_they_are_told(sides: Sides) -> None:
    made = {b.values["name"] for b in sides.google.of("google_storage_bucket")}
    may = grants(sides.google)
    told = {"streamforge-jobs": set(), "streamforge-api": set()}
    for o in sides.manifests:
        account = {"FlinkDeployment": "streamforge-jobs", "Deployment": "streamforge-api"}.get(o["kind"])
        if account:
            told[account] |= set(re.findall(r"gs://([a-z0-9.-]+)", str(o)))
    assert set().union(*told.values()) <= made
    for account, buckets in told.items():
        assert buckets, account
        for bucket in buckets:
            place = f"bucket {bucket.rpartition('-')[2]}"
            assert any(where.startswith(place) for where, _ in may[account]), f"{account} may nothing in {bucket}"


def jobs_write_into_the_dataset(sides: Sides) -> None:
    (dataset,) = sides.google.of("google_bigquery_dataset")
    wanted = f"bigquery://{dataset.values['project']}.{dataset.values['dataset_id']}"
    found = {arg for args in sides.jobs_flags().values() for arg in args if arg.startswith("--output=bigquery:")}
    assert found == {f"--output={wanted}"}


def topics_are_there(sides: Sides) -> None:
    made = {t.values["topic_id"] for t in sides.google.of("google_managed_kafka_topic")}
    named = {arg.rpartition("/")[2] for args in sides.jobs_flags().values() for arg in args if "=kafka://" in arg}
    assert len(named) > 15
    assert named <= made, named - made
    assert made == topics.TOPICS.keys()


def kafka_is_where_the_jobs_look(sides: Sides) -> None:
    servers = sides.google.outputs["kafka_bootstrap_servers"]
    found = {
        re.sub(r".*=kafka://(.*)/.*", r"\1", arg)
        for args in sides.jobs_flags().values()
        for arg in args
        if "=kafka://" in arg
    }
    assert found == {servers}


def images_are_pulled_from_the_registry(sides: Sides) -> None:
    prefix = sides.google.outputs["image_prefix"]
    images = set(re.findall(r"image: (\S+)", sides.chart))
    assert images
    assert all(image.startswith(f"{prefix}/streamforge-") for image in images), images


def secrets_are_made_by_a_command_of_the_guides(sides: Sides) -> None:
    """Whatever Secret or ConfigMap pods refer to, and the chart does not make, with the key that they look for."""
    made: dict[tuple[str, str], set[str]] = {}
    for kind, name, rest in re.findall(
        r"create (secret generic|configmap) (\S+) ((?:.|\\\n)*?)(?=\n\s*\n|\n\s*kubectl|\n\s*head)", sides.guides
    ):
        made[kind.removesuffix(" generic"), name] = set(re.findall(r"--from-file=([\w.-]+)=", rest))
    own = {("configmap", name) for name in sides.manifests.all("ConfigMap")}
    wanted = set(_references(list(sides.manifests)))
    assert len(wanted) >= 5
    volumes = [v for job in sides.manifests.all("FlinkDeployment").values() for v in _volumes(job)]
    for args in sides.jobs_flags().values():
        for secret, key in re.findall(r"--(?:\w+)_config=/etc/streamforge/(\w+)/(\S+)", " ".join(args)):
            (name,) = {v["secret"]["secretName"] for v in volumes if v["name"] == f"{secret}-config"}
            wanted.add(("secret", name, key))
    for kind, name, key in wanted:
        if (kind, name) not in own:
            assert (kind, name) in made, f"no command makes the {kind} {name}"
            assert key is None or key in made[kind, name], f"the {kind} {name} has no {key}"


def _volumes(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that hold a Secret, once each."""
    found = {v["name"]: v for v in job["spec"]["jobManager"]["podTemplate"]["spec"]["volumes"] if "secret" in v}
    return list(found.values())


def _references(value: Any) -> list[tuple[str, str, str | None]]:
    found = []
    if isinstance(value, dict):
        for kind, field in (("secret", "secretKeyRef"), ("configmap", "configMapKeyRef")):
            if field in value:
                found.append((kind, value[field]["name"], value[field]["key"]))
        if "secretName" in value and "hosts" not in value:
            found.append(("secret", value["secretName"], None))
        if "configMap" in value and "name" in value["configMap"]:
            found.append(("configmap", value["configMap"]["name"], None))
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        found += _references(inner)
    return found


def namespaces_are_those_of_the_guides(sides: Sides) -> None:
    policy = yaml.safe_load((ROOT / "helm" / "streamforge" / "values.yaml").read_text())["networkPolicy"]
    (operator,) = re.findall(r"helm install flink-kubernetes-operator(?:.|\\\n)*?--namespace (\S+)", sides.guides)
    assert operator in policy["flinkOperator"]["namespaces"]
    assert "kubectl create namespace streamforge" in sides.guides


def the_guides_kafka_is_in_the_range_that_policies_allow(sides: Sides) -> None:
    (servers,) = re.findall(r'kafka_bootstrap_servers = "([^"]+)"', sides.guides)
    allowed = [ipaddress.ip_network(cidr) for cidr in sides.values["networkPolicy"]["kafka"]["cidrs"]]
    for server in servers.split(","):
        address = ipaddress.ip_address(server.partition(":")[0])
        assert any(address in network for network in allowed), f"{address} is in none of {allowed}"


SEAMS = [
    the_policies_let_through_what_has_to_pass,
    the_ranges_are_apart,
    pods_are_bound_to_googles_accounts,
    pods_may_use_the_buckets_that_they_are_told,
    jobs_write_into_the_dataset,
    topics_are_there,
    kafka_is_where_the_jobs_look,
    images_are_pulled_from_the_registry,
    secrets_are_made_by_a_command_of_the_guides,
    namespaces_are_those_of_the_guides,
    the_guides_kafka_is_in_the_range_that_policies_allow,
]


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.__name__)
def test_both_sides_say_the_same(sides: Sides, seam: Callable[[Sides], None]) -> None:
    seam(sides)


def _without(google: Environment, type_name: str, **values: str) -> Environment:
    gone = [m for m in google.made if m.type == type_name and values.items() <= m.values.items()]
    assert gone, f"there is no {type_name} with {values}"
    return google._replace(made=[m for m in google.made if m not in gone])


def _in(side: str, old: str, new: str) -> Callable[[Sides], Sides]:
    def spoil(sides: Sides) -> Sides:
        text = getattr(sides, side)
        assert old in text, f"{old!r} is not in the {side}"
        return sides._replace(**{side: text.replace(old, new)})

    return spoil


PLANTED: dict[str, tuple[Callable[[Sides], None], Callable[[Sides], Sides]]] = {
    "a range": (SEAMS[0], lambda s: _in("chart", s.values["networkPolicy"]["redis"]["cidrs"][0], "10.99.0.0/24")(s)),
    "another range": (SEAMS[0], lambda s: _in("chart", ranges_of(s.google)["control_plane"], "172.17.0.0/28")(s)),
    "a port": (SEAMS[0], _in("chart", "port: 6378", "port: 6379")),
    "a label": (SEAMS[0], _in("chart", "k8s-app: node-local-dns", "k8s-app: nodelocaldns")),
    "a label of ours": (SEAMS[0], _in("chart", "streamforge/job: fraud-detector", "streamforge/job: fraud")),
    "a role": (
        SEAMS[3],
        lambda s: s._replace(
            google=_without(s.google, "google_storage_bucket_iam_member", bucket="shop-prod-streamforge-state")
        ),
    ),
    "a namespace": (SEAMS[2], _in("chart", "namespace: streamforge\n", "namespace: shop\n")),
    "an account": (SEAMS[2], _in("chart", "streamforge-api@", "streamforge-serving@")),
    "a bucket": (SEAMS[3], _in("chart", "-streamforge-archive/", "-streamforge-events/")),
    "a dataset": (SEAMS[4], _in("chart", ".streamforge\n", ".analytics\n")),
    "a topic": (
        SEAMS[5],
        lambda s: s._replace(google=_without(s.google, "google_managed_kafka_topic", topic_id="late.archiver")),
    ),
    "a server": (SEAMS[6], _in("chart", "bootstrap.streamforge.", "bootstrap.kafka.")),
    "an image": (SEAMS[7], _in("chart", "/streamforge-worker:", "/worker:")),
    "a secret's name": (SEAMS[8], _in("guides", "streamforge-redis ", "redis ")),
    "a secret's key": (SEAMS[8], _in("guides", "--from-file=store.properties=", "--from-file=store=")),
    "an operator's place": (SEAMS[9], _in("guides", "--namespace flink-operator", "--namespace operators")),
    "a broker": (SEAMS[10], _in("guides", '"10.10.0.5:', '"10.90.0.5:')),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_on_one_side_is_found(sides: Sides, fault: str) -> None:
    seam, plant = PLANTED[fault]
    seam(sides)
    with pytest.raises(AssertionError):
        seam(plant(sides))
