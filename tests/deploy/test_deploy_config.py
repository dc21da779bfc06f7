"""deploy.yaml, profiles and flags; and which cloud they reach."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
import yaml

from pipeline.cloud.state import Running
from pipeline.deploy.config import DeployConfig, load_config, profiles
from pipeline.deploy.connection import connect, refuse_redirection, target_line
from pipeline.errors import MarqueeError

TODAY = date(2026, 11, 21)
RUNNING = Running(
    1, 0.0, "http://127.0.0.1:5001", "", "", "", "http://127.0.0.1:5002", "", "/s/ca.pem", "/s/key.json", "p"
)


def test_flags_beat_the_file_and_the_file_beats_the_profile(tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text("machine: n1-standard-4\nregion: us-east1\nreplicas: 1\n".replace("replicas: 1\n", ""))
    config = load_config(file, {"region": "us-west1", "traffic": None}, "t4", TODAY)
    assert (config.machine, config.region, config.accelerator) == (
        "n1-standard-4",
        "us-west1",
        "NVIDIA_TESLA_T4",
    )


@pytest.mark.parametrize("name", ["p100", "t4", "l4"])
def test_every_profile_is_a_good_configuration(name: str) -> None:
    config = load_config(None, {}, name, TODAY)
    assert config.accelerator == profiles()[name]["accelerator"]
    assert config.cloud == "local"
    assert load_config(None, {"region": "us-east1"}, name, TODAY).image_uri.startswith("us-docker.pkg.dev/")


def test_a_continents_own_registry_serves_its_prebuilt_images() -> None:
    config = load_config(None, {"region": "europe-west1"}, "p100", TODAY)
    assert config.image_uri == "europe-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.2-4:latest"


def test_every_mistake_is_listed_at_once() -> None:
    wrong = {
        "cloud": "aws",
        "regoin": "us-central1",
        "machine": "n1-standard-9",
        "accelerator_count": 3,
        "traffic": 0,
        "min_replicas": 3,
        "max_replicas": 2,
        "model": "1st",
        "labels": {"Team": "art"},
        "service_account": "me@example.com",
        "inference_timeout": 9999,
    }
    with pytest.raises(MarqueeError) as raised:
        load_config(None, wrong, "p100", TODAY)
    told = str(raised.value)
    for word in (
        "cloud:",
        "regoin: unknown key; did you mean region?",
        "n1-standard-9",
        "traffic:",
        "min_replica_count 3",
        "Invalid model_id 1st",
        "Team=art",
        "service_account:",
        "inference_timeout 9999",
    ):
        assert word in told
    assert "9 mistakes" in told


def test_the_image_is_judged_on_the_day_it_is() -> None:
    load_config(None, {}, "p100", date(2027, 1, 13))
    with pytest.raises(MarqueeError, match="no longer available since 2027-01-14"):
        load_config(None, {}, "p100", date(2027, 1, 14))


def test_an_unreadable_file_and_an_unknown_profile_are_named(tmp_path: Path) -> None:
    with pytest.raises(MarqueeError, match="cannot be read"):
        load_config(tmp_path / "none.yaml", {}, None, TODAY)
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(MarqueeError, match="is not YAML"):
        load_config(tmp_path / "bad.yaml", {}, None, TODAY)
    with pytest.raises(MarqueeError, match="no profile is called 'h100'"):
        load_config(None, {}, "h100", TODAY)


def test_google_needs_a_project_of_ones_own() -> None:
    with pytest.raises(MarqueeError, match="your own project"):
        load_config(None, {"cloud": "google"}, "p100", TODAY)


def test_the_first_line_names_the_target() -> None:
    assert "nothing is charged" in target_line(DeployConfig())
    google = target_line(DeployConfig(cloud="google", project="my-project"))
    assert "GOOGLE CLOUD, project my-project" in google


@pytest.mark.parametrize(
    "environ",
    [
        {"STORAGE_EMULATOR_HOST": "http://localhost:9000"},
        {"https_proxy": RUNNING.proxy},
        {"GOOGLE_APPLICATION_CREDENTIALS": RUNNING.credentials_file},
        {"REQUESTS_CA_BUNDLE": RUNNING.ca_file},
    ],
)
def test_a_google_run_refuses_an_environment_that_leads_to_a_local_cloud(environ: dict[str, str]) -> None:
    config = DeployConfig(cloud="google", project="my-project")
    with pytest.raises(MarqueeError, match=next(iter(environ))), connect(config, RUNNING, environ):
        pass


def test_an_ordinary_environment_is_not_refused() -> None:
    environ = {
        "https_proxy": "http://proxy.example.com:3128",
        "GOOGLE_APPLICATION_CREDENTIALS": "/home/me/k.json",
    }
    refuse_redirection(environ, RUNNING)
    refuse_redirection(environ, None)


def test_a_local_run_without_a_local_cloud_says_so() -> None:
    with pytest.raises(MarqueeError, match="not running"), connect(DeployConfig(), None, {}):
        pass


def test_the_documented_deploy_yaml_is_right_and_complete() -> None:
    file = Path(__file__).parents[2] / "docs" / "deploy.yaml"
    config = load_config(file, {}, None, TODAY)
    documented = yaml.safe_load(file.read_text())
    assert set(documented) == set(DeployConfig.model_fields)
    assert set(documented["smoke"]) == set(type(config.smoke).model_fields)
    assert set(documented["autoscaling"]) == set(type(config.autoscaling).model_fields)


def test_flags_file_and_profile_are_merged_at_every_depth(tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text("smoke: {expected: right.png, seed: 3}\nautoscaling: {cpu: 50}\nlabels: {team: art}\n")
    flags = {"smoke": {"seconds": 600, "seed": 4}, "autoscaling": {"requests": 9}, "labels": {"env": "test"}}
    config = load_config(file, flags, "t4", TODAY)
    assert (config.smoke.expected, config.smoke.seed, config.smoke.seconds) == ("right.png", 4, 600)
    assert config.autoscaling.targets() == {"cpu": 50, "requests": 9}
    assert config.labels == {"team": "art", "env": "test"}
    (tmp_path / "empty.yaml").write_text("smoke:\n")
    assert load_config(tmp_path / "empty.yaml", {"smoke": {"seed": 1}}, None, TODAY).smoke.seed == 1


def test_a_flag_can_say_null() -> None:
    cpu = {"accelerator": None, "accelerator_count": 0, "container": "vertex-pytorch-cpu-2-4"}
    assert load_config(None, cpu, "t4", TODAY).accelerator is None


ALIASES = "a: &a [x]\n" + "".join(
    f"{one}: &{one} [{', '.join([f'*{two}'] * 8)}]\n" for two, one in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"1: 2", "the key 1 is not a name"),
        (b"null: 2", "the key None is not a name"),
        (b"\xff\xfe", "not text in UTF-8"),
        (b"[" * 2000, "nested too deeply"),
        (b"date: 2020-99-99", "is not YAML: month"),
        (b"a: " + b"x" * (1 << 20), "larger than 1 MiB"),
        (ALIASES.encode() + b"machine: *g", "machine: "),
        (b"[1]", "holds list"),
    ],
)
def test_a_file_of_anything_else_is_refused_in_a_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_bytes(content)
    with pytest.raises(MarqueeError, match=says) as raised:
        load_config(file, {}, None, TODAY)
    assert len(str(raised.value)) < 2000


@pytest.mark.parametrize("name", ["/dev/zero", "."])
def test_what_is_not_a_regular_file_is_not_read(name: str) -> None:
    with pytest.raises(MarqueeError, match="not a regular file"):
        load_config(Path(name), {}, None, TODAY)
