"""What each environment is when Terraform has evaluated all of it: against mocks of Google, so nothing is made.

Mocks answer to arguments with what was asked for, and make up what Google would have said.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from schemas.tables import TABLES
from schemas.tables import resources as bigquery_resources
from stack import topics
from tests.helm.chart import TERRAFORMS
from tests.live import ROOT
from tests.terraform.offline import Copy

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]

NAMES = ("dev", "staging", "prod")
PROTECTED = ("staging", "prod")


class Made(NamedTuple):
    """A resource, with the arguments that it got and the resources that had to be there before."""

    address: str
    type: str
    values: dict[str, Any]
    after: list[str]


class Environment(NamedTuple):
    made: list[Made]
    outputs: dict[str, Any]

    def of(self, type_name: str) -> list[Made]:
        found = [each for each in self.made if each.type == type_name]
        assert found, f"there is no {type_name}"
        return found


def evaluated(folder: Path, name: str, spoil: Callable[[Copy], None] = lambda _: None) -> Environment:
    copy = Copy(folder)
    # Mocks are destroyed at the end of a test, which guards would refuse; another test sees that they do.
    for module in ("kafka", "redis"):
        copy.replace(f"modules/{module}/guard.tf", "prevent_destroy      = true", "prevent_destroy      = false")
    if name in PROTECTED:
        test = f"environments/{name}/tests/{name}.tftest.hcl"
        copy.replace(test, "command = plan # what is protected, a test could not destroy again", "command = apply")
    spoil(copy)
    assert (started := copy.init(f"environments/{name}")).ok, started.text
    done = copy.run(f"environments/{name}", "test", "-json", "-verbose")
    assert done.ok, done.text[-3000:]
    state = next(done.messages("test_state"))["test_state"]
    outputs = state["outputs"]["platform"]["value"]
    return Environment(list(_walk(state["root_module"])), outputs)


def _walk(module: dict[str, Any]) -> Iterator[Made]:
    for found in module.get("resources", []):
        if found["mode"] == "managed":
            yield Made(found["address"], found["type"], found["values"], found.get("depends_on", []))
    for inner in module.get("child_modules", []):
        yield from _walk(inner)


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Environment]:
    return {name: evaluated(tmp_path_factory.mktemp(name), name) for name in NAMES}


@pytest.fixture(params=NAMES)
def environment(request: pytest.FixtureRequest, environments: dict[str, Environment]) -> tuple[str, Environment]:
    return request.param, environments[request.param]


# Who may do what

READ, WRITE, SEE = "roles/storage.objectViewer", "roles/storage.objectUser", "roles/storage.legacyBucketReader"
REDIS = ("streamforge-redis-ca", "streamforge-redis-password", "streamforge-redis-url")
MAY = {
    "streamforge-nodes": {
        ("project", "roles/container.defaultNodeServiceAccount"),
        ("images", "roles/artifactregistry.reader"),
    },
    "streamforge-jobs": {
        ("project", "roles/bigquery.jobUser"),
        ("project", "roles/managedkafka.client"),
        ("bucket state", WRITE),
        ("bucket state", SEE),
        ("bucket archive", WRITE),
        ("bucket archive", SEE),
        ("dataset streamforge", "roles/bigquery.dataEditor"),
    },
    "streamforge-api": {
        ("project", "roles/managedkafka.client"),
        ("bucket lakehouse, names and reports", READ),
    },
    "streamforge-batch": {
        ("project", "roles/bigquery.jobUser"),
        ("project", "roles/bigquery.readSessionUser"),
        ("project", "roles/biglake.editor"),
        ("project", "roles/serviceusage.serviceUsageConsumer"),
        ("project, files of scratch only", "roles/dataproc.worker"),
        ("bucket archive", READ),
        ("bucket archive", SEE),
        ("bucket lakehouse", WRITE),
        ("bucket lakehouse", SEE),
        ("bucket templates", READ),
        ("bucket templates", SEE),
        ("bucket scratch", WRITE),
        ("bucket scratch", SEE),
        ("dataset streamforge", "roles/bigquery.dataViewer"),
    },
    "streamforge-dataflow": {
        ("project", "roles/bigquery.jobUser"),
        ("project", "roles/dataflow.developer"),
        ("account streamforge-dataflow", "roles/iam.serviceAccountUser"),
        ("project", "roles/managedkafka.client"),
        ("project, files of scratch only", "roles/dataflow.worker"),
        ("bucket archive", WRITE),
        ("bucket templates", READ),
        ("bucket scratch", WRITE),
        ("bucket scratch", SEE),
        ("dataset streamforge", "roles/bigquery.dataEditor"),
        ("images", "roles/artifactregistry.reader"),
        *((f"secret {name}", "roles/secretmanager.secretAccessor") for name in REDIS),
    },
    "streamforge-composer": {
        ("project", "roles/composer.worker"),
        ("project", "roles/dataproc.editor"),
        ("bucket scratch", READ),
        ("account streamforge-batch", "roles/iam.serviceAccountUser"),
    },
}


def may(environment: str) -> dict[str, set[tuple[str, str]]]:
    """Dev has no Redis, and so no secrets of it."""
    return {
        account: {each for each in grants if environment != "dev" or not each[0].startswith("secret")}
        for account, grants in MAY.items()
    }


_ITS_BUCKET = r'resource\.name\.startsWith\("projects/_/buckets/(shop-[a-z]+-streamforge-scratch|dataproc-temp-)"\)'


def grants(environment: Environment) -> dict[str, set[tuple[str, str]]]:
    """What each service account may, and where."""
    accounts = environment.of("google_service_account")
    emails = {
        a.values["account_id"]: f"{a.values['account_id']}@{a.values['project']}.iam.gserviceaccount.com"
        for a in accounts
    }
    by_member = {f"serviceAccount:{email}": name for name, email in emails.items()}
    by_name = {
        f"projects/{a.values['project']}/serviceAccounts/{emails[a.values['account_id']]}": a.values["account_id"]
        for a in accounts
    }
    found: dict[str, set[tuple[str, str]]] = {a.values["account_id"]: set() for a in accounts}
    for made in environment.made:
        values = made.values
        if not made.type.endswith("_iam_member") or values["member"] not in by_member:
            continue
        match made.type:
            case "google_project_iam_member":
                condition = values["condition"]
                if condition:
                    expression = condition[0]["expression"]
                    first, *others = expression.split(" || ")
                    assert first == 'resource.service != "storage.googleapis.com"', expression
                    for other in others:
                        assert re.fullmatch(_ITS_BUCKET, other), expression
                    assert others
                where = "project, files of scratch only" if condition else "project"
            case "google_storage_bucket_iam_member":
                where = f"bucket {values['bucket'].rpartition('-')[2]}"
                if values["condition"]:
                    (condition,) = values["condition"]
                    bucket = f"projects/_/buckets/{values['bucket']}"
                    assert condition["expression"] == (
                        f'resource.name == "{bucket}" || resource.name.startsWith("{bucket}/objects/reports/")'
                    )
                    where += ", names and reports"
            case "google_bigquery_dataset_iam_member":
                where = f"dataset {values['dataset_id']}"
            case "google_artifact_registry_repository_iam_member":
                where = "images"
            case "google_secret_manager_secret_iam_member":
                where = f"secret {values['secret_id']}"
            case "google_service_account_iam_member":
                where = f"account {by_name[values['service_account_id']]}"
            case _:
                raise AssertionError(f"{made.address}: a place that this test does not know")
        found[by_member[values["member"]]].add((where, values["role"]))
    return found


def test_each_service_account_may_what_it_needs_and_nothing_else(environment: tuple[str, Environment]) -> None:
    name, made = environment
    assert grants(made) == may(name)


SPOILT = {
    "no queries": (
        ("jobs", '"roles/bigquery.jobUser", ', ""),
        ("streamforge-jobs", "project", "roles/bigquery.jobUser"),
    ),
    "no rows": (
        ("jobs", '"roles/bigquery.dataEditor"', "null"),
        ("streamforge-jobs", "dataset streamforge", "roles/bigquery.dataEditor"),
    ),
    "a bucket too many": (
        ("composer", " scratch", ' archive = ["roles/storage.objectUser"], scratch'),
        ("streamforge-composer", "bucket archive", WRITE),
    ),
}


@pytest.mark.parametrize(("change", "difference"), SPOILT.values(), ids=SPOILT)
def test_a_permission_that_is_missing_or_too_much_is_found(
    tmp_path: Path, change: tuple[str, str, str], difference: tuple[str, str, str]
) -> None:
    account, old, new = change

    def spoil(copy: Copy) -> None:
        file = copy.root / "modules" / "identity" / "main.tf"
        (whole,) = re.findall(rf"^ +{account} += .*{re.escape(old)}.*$", file.read_text(), re.MULTILINE)
        copy.replace("modules/identity/main.tf", whole, "" if new == "null" else whole.replace(old, new))

    found = grants(evaluated(tmp_path, "dev", spoil))
    whose, where, role = difference
    wanted = may("dev")
    differences = {name: found[name] ^ wanted[name] for name in wanted if found[name] != wanted[name]}
    assert differences == {whose: {(where, role)}}


def test_no_bucket_or_table_is_open_to_the_public(environment: tuple[str, Environment]) -> None:
    _, made = environment
    for bucket in made.of("google_storage_bucket"):
        assert bucket.values["public_access_prevention"] == "enforced", bucket.address
        assert bucket.values["uniform_bucket_level_access"], bucket.address
    assert not [each.address for each in made.made if "allUsers" in json.dumps(each.values)]
    assert not [each.address for each in made.made if each.type.endswith("_key")]


# Protection and size


@pytest.mark.parametrize("name", PROTECTED)
def test_what_holds_something_cannot_be_destroyed(environments: dict[str, Environment], name: str) -> None:
    made = environments[name]
    (cluster,) = made.of("google_container_cluster")
    assert cluster.values["deletion_protection"]
    for table in made.of("google_bigquery_table"):
        assert table.values["deletion_protection"] == (not table.values["view"]), table.address
    assert all(secret.values["deletion_protection"] for secret in made.of("google_secret_manager_secret"))
    assert not any(bucket.values["force_destroy"] for bucket in made.of("google_storage_bucket"))
    (dataset,) = made.of("google_bigquery_dataset")
    assert not dataset.values["delete_contents_on_destroy"]
    assert {guard.address for guard in made.of("terraform_data")} == {
        "module.platform.module.kafka.terraform_data.guard[0]",
        "module.platform.module.redis[0].terraform_data.guard[0]",
    }


@pytest.mark.parametrize("name", PROTECTED)
def test_a_second_redis_takes_over(environments: dict[str, Environment], name: str) -> None:
    (redis,) = environments[name].of("google_redis_instance")
    assert redis.values["tier"] == "STANDARD_HA"


def test_dev_is_small_and_goes_with_one_command(environments: dict[str, Environment]) -> None:
    dev, prod = environments["dev"], environments["prod"]
    assert not [each.address for each in dev.made if each.values.get("deletion_protection")]
    assert not [each.address for each in dev.made if each.type == "terraform_data"]
    assert all(bucket.values["force_destroy"] for bucket in dev.of("google_storage_bucket"))
    assert not [each.address for each in dev.made if each.type == "google_redis_instance"], "the chart runs one"
    (small,), (large,) = dev.of("google_managed_kafka_cluster"), prod.of("google_managed_kafka_cluster")
    sizes = [int(kafka.values["capacity_config"][0]["vcpu_count"]) for kafka in (small, large)]
    assert sizes[0] < sizes[1]
    assert {table.values["time_partitioning"][0]["expiration_ms"] for table in dev.of("google_bigquery_table")
            if table.values["time_partitioning"]} == {30 * 24 * 3600 * 1000}  # fmt: skip


def test_prod_tells_somebody_what_it_costs(environments: dict[str, Environment]) -> None:
    (budget,) = environments["prod"].of("google_billing_budget")
    assert budget.values["amount"][0]["specified_amount"][0]["units"] == "4000"
    (mail,) = environments["prod"].of("google_monitoring_notification_channel")
    assert mail.values["labels"] == {"email_address": "platform@shop.example"}


@pytest.mark.parametrize("name", PROTECTED)
def test_the_stores_password_is_in_the_state_where_it_is_made_and_kept_and_nowhere_else(
    environments: dict[str, Environment], name: str
) -> None:
    """Google's provider has no way to keep it out of the state: not of the instance, nor of the secret."""
    made = environments[name]
    (redis,) = made.of("google_redis_instance")
    password = redis.values["auth_string"]
    assert len(password) >= 8
    holders = {each.type for each in made.made if password in json.dumps(each.values)}
    assert holders == {"google_redis_instance", "google_secret_manager_secret_version"}
    assert password not in json.dumps(made.outputs)


def test_everything_that_takes_labels_has_them(environment: tuple[str, Environment]) -> None:
    name, made = environment
    kinds = set()
    for each in made.made:
        field = next((f for f in ("user_labels", "resource_labels", "labels") if f in each.values), None)
        if field:
            kinds.add(each.type)
            wanted = {"app": "streamforge", "environment": name, "managed-by": "terraform"}
            assert (each.values[field] or {}).items() >= wanted.items(), each.address
    assert len(kinds) >= (8 if name in PROTECTED else 7), "dev has no Redis"


# Order


def test_pods_are_bound_to_service_accounts_after_the_cluster_made_the_pool(
    environment: tuple[str, Environment],
) -> None:
    _, made = environment
    bindings = [each for each in made.made if each.values.get("role") == "roles/iam.workloadIdentityUser"]
    assert {binding.values["member"].partition("[")[2] for binding in bindings} == {
        "streamforge/streamforge-jobs]",
        "streamforge/streamforge-api]",
    }
    for binding in bindings:
        assert "module.platform.module.gke.google_container_cluster.this" in binding.after, binding.address


def test_nobody_is_granted_anything_before_they_are_there(environment: tuple[str, Environment]) -> None:
    _, made = environment
    accounts = "module.platform.module.identity.google_service_account.this"
    granted = [each for each in made.made if each.type.endswith("_iam_member")]
    assert len(granted) > 20
    assert not [each.address for each in granted if accounts not in each.after]


def test_nodes_may_what_they_need_before_there_is_a_cluster(environment: tuple[str, Environment]) -> None:
    name, made = environment
    (cluster,) = made.of("google_container_cluster")
    assert "module.platform.module.identity.google_project_iam_member.this" in cluster.after
    (configured,) = cluster.values["cluster_autoscaling"]
    nodes = f"streamforge-nodes@shop-{name}.iam.gserviceaccount.com"
    assert configured["auto_provisioning_defaults"][0]["service_account"] == nodes


def test_nothing_is_made_before_its_service_is_on(environment: tuple[str, Environment]) -> None:
    _, made = environment
    services = "module.platform.module.services.google_project_service.this"
    late = [each for each in made.made if each.type not in ("google_project_service", "terraform_data")]
    assert len(late) > 50
    assert not [each.address for each in late if services not in each.after]


@pytest.mark.parametrize("name", PROTECTED)
def test_redis_waits_until_the_network_is_connected_to_googles(environments: dict[str, Environment], name: str) -> None:
    (redis,) = environments[name].of("google_redis_instance")
    assert "module.platform.module.network.google_service_networking_connection.this" in redis.after


def test_an_order_that_is_left_out_is_found(tmp_path: Path) -> None:
    def spoil(copy: Copy) -> None:
        copy.replace(
            "modules/platform/main.tf",
            "module.gke[0].workload_pool",
            '"shop-dev.svc.id.goog"',
        )

    made = evaluated(tmp_path, "dev", spoil)
    with pytest.raises(AssertionError, match="workload_identity"):
        test_pods_are_bound_to_service_accounts_after_the_cluster_made_the_pool(("dev", made))


# The same as the code


def test_the_charts_tests_render_what_terraform_tells_the_chart(environment: tuple[str, Environment]) -> None:
    """WRITE_HELM_VALUES=1 writes it anew."""
    name, made = environment
    file = TERRAFORMS / f"{name}.yaml"
    text = made.outputs["helm_values"]
    if os.environ.get("WRITE_HELM_VALUES") == "1":
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert file.read_text() == text


def test_tables_and_views_are_those_of_the_code(environment: tuple[str, Environment]) -> None:
    name, made = environment
    found = {table.values["table_id"]: table.values for table in made.of("google_bigquery_table")}
    dataset = f"shop-{name}.streamforge"
    wanted = [resource for table in TABLES.values() for resource in bigquery_resources(table, dataset)]
    assert found.keys() == {resource["tableReference"]["tableId"] for resource in wanted}
    for resource in wanted:
        values = found[resource["tableReference"]["tableId"]]
        if "view" in resource:
            assert values["view"][0]["query"] == resource["view"]["query"]
            assert values["view"][0]["use_legacy_sql"] is False
        else:
            assert json.loads(values["schema"]) == resource["schema"]["fields"]
            assert values["clustering"] == resource["clustering"]["fields"]
            partitioning = values["time_partitioning"][0]
            assert {key: partitioning[key] for key in ("type", "field")} == resource["timePartitioning"]


def test_topics_are_those_of_the_local_stack(environment: tuple[str, Environment]) -> None:
    _, made = environment
    found = {topic.values["topic_id"]: topic.values for topic in made.of("google_managed_kafka_topic")}
    assert found.keys() == topics.TOPICS.keys()
    for name, values in found.items():
        assert values["configs"].items() >= topics.config(name).items(), name


def test_the_dag_takes_its_settings(environment: tuple[str, Environment]) -> None:
    name, made = environment
    settings = settings_of(made.outputs["daily_analytics"])
    assert settings["bucket"] == f"shop-{name}-streamforge-scratch"
    assert settings["stream"] == f"bigquery://shop-{name}.streamforge"
    assert settings["service_account"] == f"streamforge-batch@shop-{name}.iam.gserviceaccount.com"
    assert settings["catalog"]["warehouse"] == f"gs://shop-{name}-streamforge-lakehouse"


def settings_of(text: str) -> dict[str, Any]:
    """The DAG's own check. Its file needs Airflow; the check, which comes first in it, does not."""
    tree = ast.parse((ROOT / "dags" / "daily_analytics.py").read_text())
    end = next(
        i for i, node in enumerate(tree.body) if isinstance(node, ast.FunctionDef) and node.name == "settings_of"
    )
    needs_airflow = ("airflow", "google")
    tree.body = [
        node
        for node in tree.body[: end + 1]
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith(needs_airflow))
    ]
    names: dict[str, Any] = {"__name__": "daily_analytics"}
    exec(compile(tree, "daily_analytics.py", "exec"), names)
    return names["settings_of"](text)  # type: ignore[no-any-return]


def test_the_dags_check_refuses_what_it_does_not_know() -> None:
    with pytest.raises(Exception, match="there is no setting"):
        settings_of('{"buckets": "x"}')
