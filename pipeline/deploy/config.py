"""deploy.yaml, a profile and flags become one frozen DeployConfig; every mistake is listed at once."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import rules
from pipeline.deploy.config_file import read_values
from pipeline.deploy.labels import is_reserved
from pipeline.errors import MarqueeError

_SHORT = reprlib.Repr()  # a value in a message: aliases can make a small file's value endless
_SHORT.maxlevel = 2
LOCAL_PROJECT = "marquee-local"
_MOST_REPLICAS = 2**31 - 1  # the API's field is an int32
_PREBUILT_PREFIX = "vertex-pytorch-"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Autoscaling(_Strict):
    """Targets that add replicas: percent of CPU, percent of accelerator, requests per minute and replica."""

    cpu: int | None = None
    accelerator: int | None = None
    requests: int | None = None

    def targets(self) -> dict[str, int]:
        return {name: target for name, target in self if target is not None}


class Smoke(_Strict):
    """The picture that must be drawn before traffic moves; ``expected`` is a file that it must look like.

    Until then a model beside others gets ``percent`` of the traffic. Requests go on for
    ``seconds`` at most.
    """

    prompt: str = "a red circle"
    seed: int = Field(default=7, ge=0, lt=2**32)
    expected: str | None = None
    seconds: int = Field(default=300, ge=1)
    percent: int = Field(default=5, ge=1, le=100)


class DeployConfig(_Strict):
    """The whole description of a deployment.

    ``container`` is a target (vertex-pytorch-gpu-2-4, marquee) or an image URI. ``inference_timeout`` is in
    seconds. ``traffic`` is the new model's share in percent. ``operation_timeout`` is the longest wait
    for one operation of the cloud, in seconds.
    """

    cloud: Literal["local", "google"] = "local"
    project: str = Field(default=LOCAL_PROJECT, pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")
    region: str = "us-central1"
    bucket: str = Field(default="", pattern=r"^$|^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$")
    archive: str = ""  # empty: the embedded model's archive, which is built if it does not exist
    model: str = "marquee"
    endpoint: str = "marquee"
    container: str = "vertex-pytorch-gpu-2-4"
    image: str | None = None
    machine: str = "n1-standard-8"
    accelerator: str | None = "NVIDIA_TESLA_T4"
    accelerator_count: int = 1
    min_replicas: int = Field(default=1, le=_MOST_REPLICAS)
    max_replicas: int = Field(default=1, le=_MOST_REPLICAS)
    autoscaling: Autoscaling = Autoscaling()
    spot: bool = False
    dedicated: bool = True
    inference_timeout: int | None = None
    traffic: int = Field(default=100, ge=1, le=100)
    deployment_timeout: int | None = None
    operation_timeout: int = Field(default=5400, ge=1)
    service_account: str | None = Field(default=None, pattern=r"^[^@\s]+@[^@\s]+\.gserviceaccount\.com$")
    labels: dict[str, str] = {}
    smoke: Smoke = Smoke()

    @property
    def bucket_name(self) -> str:
        return self.bucket or f"{self.project}-{self.region}-marquee"

    @property
    def image_uri(self) -> str:
        """The serving container's image; a prebuilt one comes from the registry of the region's continent."""
        if self.image:
            return self.image
        if not self.prebuilt:
            return self.container
        kind, _, version = self.container.removeprefix(_PREBUILT_PREFIX).partition("-")
        host = self.region.split("-")[0]
        host = host if host in ("europe", "asia") else "us"
        return f"{host}-docker.pkg.dev/vertex-ai/prediction/pytorch-{kind}.{version}:latest"

    @property
    def prebuilt(self) -> bool:
        """Whether the container is one of Google's prebuilt ones; the target's name tells."""
        return self.image is None and self.container.startswith(_PREBUILT_PREFIX)

    @property
    def location(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"


def profiles() -> dict[str, dict[str, Any]]:
    """The ready profiles by name."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("profiles.yaml").read_text())
    return found


def load_config(
    file: Path | None, flags: Mapping[str, Any], profile: str | None, today: date
) -> DeployConfig:
    """Flags beat the file, the file beats the profile. Raises one MarqueeError that lists every mistake."""
    config, mistakes = validate(gather(file, flags, profile), today)
    if mistakes:
        where = str(file) if file else "the deployment's configuration"
        count = "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise MarqueeError(f"{where} has {count}:\n" + "\n".join(f"  - {mistake}" for mistake in mistakes))
    return config


def gather(file: Path | None, flags: Mapping[str, Any], profile: str | None) -> dict[str, Any]:
    """The values as they were written: flags over file over profile, merged key by key at every depth."""
    given = {key: value for key, value in flags.items() if value is not None or key not in _ABSENT_WHEN_NONE}
    return _merged(_merged(_profile(profile), read_values(file) if file else {}), given)


# A command line option that is not given is None. None is no valid value of these keys.
_ABSENT_WHEN_NONE = ("cloud", "traffic")


def _merged(weaker: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings merged, recursively; ``stronger`` wins where both have a key."""
    merged = dict(weaker)
    for key, value in stronger.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged


def validate(values: Mapping[str, Any], today: date) -> tuple[DeployConfig, list[str]]:
    """A config and the list of mistakes in the values; an unreadable value is replaced by its default."""
    try:
        config, mistakes, unread = DeployConfig.model_validate(values), [], set()
    except ValidationError as error:
        mistakes = [_sentence(problem) for problem in error.errors()]
        unread = {str(problem["loc"][0]) for problem in error.errors()}
        config = DeployConfig.model_validate({k: v for k, v in values.items() if k not in unread})
    if config.cloud == "google" and config.project == LOCAL_PROJECT and "project" not in unread:
        mistakes.append("project: a Google run needs your own project's id; set project")
    if config.container == "marquee" and not config.image:
        mistakes.append(
            "image: container marquee needs the image's URI, such as REGION-docker.pkg.dev/P/R/marquee"
        )
    mistakes += [
        f"labels: {label} is a label by which marquee recognises its own resources; choose another key"
        for label in config.labels
        if is_reserved(label)
    ]
    for violation in violations(config, today):
        if _KEYS.get(violation.field, violation.field) not in unread:
            mistakes.append(f"{violation.field}: {violation.message} ({violation.cure})")
    return config, mistakes


_KEYS = {
    "accelerator_type": "accelerator",
    "machine_type": "machine",
    "serving_container_image_uri": "container",
}


def violations(config: DeployConfig, today: date) -> list[rules.Violation]:
    """Every rule of Google's that the configuration breaks, without repetitions."""
    upload = rules.Upload(
        display_name=config.model,
        image_uri=config.image_uri,
        region=config.region,
        artifact_uri=f"gs://{config.bucket_name}/marquee/{config.model}",
        model_id=config.model,
        deployment_timeout_seconds=config.deployment_timeout,
        labels=config.labels,
    )
    deployment = rules.Deployment(
        region=config.region,
        image_uri=config.image_uri,
        machine_type=config.machine,
        accelerator_type=config.accelerator,
        accelerator_count=config.accelerator_count,
        min_replicas=config.min_replicas,
        max_replicas=config.max_replicas,
        dedicated=config.dedicated,
        autoscaling=config.autoscaling.targets(),
    )
    endpoint = rules.check_endpoint_create(
        config.endpoint, config.endpoint, config.labels, config.dedicated, config.inference_timeout
    )
    if config.container == "marquee" and not config.image:
        upload_problems: list[rules.Violation] = []
    else:
        upload_problems = rules.check_upload(upload, today) + rules.check_deploy(deployment, today)
    return _once(upload_problems + endpoint)


def _once(found: Iterable[rules.Violation]) -> list[rules.Violation]:
    return list({(violation.rule.id, str(violation.value)): violation for violation in found}.values())


def _profile(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    known = profiles()
    if name not in known:
        raise MarqueeError(f"no profile is called {name!r}", cure=f"one of: {', '.join(known)}")
    return known[name]


def _sentence(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        from difflib import get_close_matches

        close = get_close_matches(str(problem["loc"][-1]), list(DeployConfig.model_fields), 1)
        return f"{place}: unknown key" + (f"; did you mean {close[0]}?" if close else "")
    return f"{place}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {_SHORT.repr(problem['input'])}"
