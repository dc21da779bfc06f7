"""Checks that need no cloud: names, dates, hardware, sizes, times and TorchServe's configuration."""

from __future__ import annotations

import re
import zipfile
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import yaml

from pipeline.archive.layout import CONFIG_FILE
from pipeline.doctor.findings import Finding, facts, known_failure, passed
from pipeline.doctor.subject import Subject
from pipeline.rules import (
    ARCHIVE_NAME,
    Deployment,
    Violation,
    check_artifact_uri,
    check_deploy,
    parse_prebuilt,
    predict_timeout,
    table,
)

_SOON = timedelta(days=30)
_HTTP_OVERHEAD_BYTES = 200


def check_place(subject: Subject) -> list[Finding]:
    """Check the archive's name and its folder, as they will be in the bucket."""
    found = []
    uri = subject.artifact_uri
    if subject.archive_name != ARCHIVE_NAME:
        found.append(
            known_failure("archive name", "archive_name", artifact_uri=uri, names=subject.archive_name)
        )
    for violation in check_artifact_uri(uri):
        if violation.rule.id == "artifact_uri_root":
            found.append(known_failure("artifact_uri", "bucket_root", artifact_uri=uri))
        else:
            found.append(_as_configured(violation))
    return found or [passed("artifact_uri", f"{uri}/{ARCHIVE_NAME}")]


def check_image(subject: Subject, today: date) -> list[Finding]:
    """Check the image's dates, and whether its torch supports the accelerator."""
    image, found = parse_prebuilt(subject.image_uri), []
    known = table().prebuilt.get(image.version) if image else None
    if known:
        end, left = known.end_of_availability, known.end_of_availability - today
        if left <= timedelta(0):
            found.append(known_failure("image", "image_ended", image=subject.image_uri, end=end))
        elif left <= _SOON:
            found.append(
                known_failure("image", "image_ending", image=subject.image_uri, end=end, days=left.days)
            )
        else:
            found.append(passed("image", f"{subject.image_uri} until {end}"))
    return found + _check_torch(subject)


def _check_torch(subject: Subject) -> list[Finding]:
    """The tag of the user's own image says its CUDA version: ``cu126``, or the GPU that it was built for."""
    accelerator = table().accelerators.get(subject.accelerator or "")
    last = facts("last_cuda").get(accelerator.compute_capability) if accelerator else None
    if accelerator is None or last is None or parse_prebuilt(subject.image_uri):
        return []
    values = {"image": subject.image_uri, "accelerator": accelerator.name}
    cuda = _cuda_of(subject.image_uri)
    if cuda is None:
        return [known_failure("torch", "torch_unknown", cuda=last, **values)]
    if _number(cuda) > _number(last):
        capability = accelerator.compute_capability
        return [known_failure("torch", "torch_dropped_gpu", cuda=cuda, capability=capability, **values)]
    return [passed("torch", f"torch for CUDA {cuda} supports {accelerator.name}")]


def _cuda_of(image_uri: str) -> str | None:
    words = re.split(r"[^a-z0-9]", image_uri.rpartition(":")[2].lower())
    for word in words:
        if tagged := re.fullmatch(r"cu(\d{2})(\d)", word):
            return f"{tagged[1]}.{tagged[2]}"
    return next((cuda for gpu, cuda in facts("cuda_of_image").items() if gpu in words), None)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def check_hardware(subject: Subject, today: date) -> list[Finding]:
    """Check machine, accelerator, region and replicas by Google's rules; ``check_image`` has the dates."""
    violations = check_deploy(
        Deployment(
            region=subject.region,
            image_uri=subject.image_uri,
            machine_type=subject.machine,
            accelerator_type=subject.accelerator,
            accelerator_count=subject.accelerator_count,
            min_replicas=subject.min_replicas,
            max_replicas=subject.max_replicas,
            dedicated=subject.dedicated,
        ),
        today,
    )
    found = [_as_configured(violation) for violation in violations if violation.rule.id != "image_ended"]
    accelerator = f" + {subject.accelerator_count} x {subject.accelerator}" if subject.accelerator else ""
    return found or [passed("hardware", f"{subject.machine}{accelerator} in {subject.region}")]


def _as_configured(violation: Violation) -> Finding:
    return known_failure(violation.field, "configuration", why=violation.message, how=violation.cure)


def check_payload(subject: Subject) -> list[Finding]:
    """Compare the pictures' bytes and the time that they take with the endpoint's limits."""
    settings = _settings(subject)
    defaults, limits = settings.get("defaults", {}), settings.get("limits", {})
    width, height = defaults.get("width", 512), defaults.get("height", 512)
    steps, kind = defaults.get("num_inference_steps", 30), "dedicated" if subject.dedicated else "shared"
    images, form = limits.get("max_instances", 1), defaults.get("output_format", "jpeg")
    size = int(images * width * height * facts("bytes_per_pixel")[form] * 4 / 3) + _HTTP_OVERHEAD_BYTES
    words = {"images": images, "format": form, "width": width, "height": height, "size": size, "kind": kind}
    found = []
    limit = table().limits(subject.dedicated).response_bytes
    if parse_prebuilt(subject.image_uri):  # its TorchServe has a cap of its own
        limit = min(limit, table().torchserve_response_bytes)
    if size > limit:
        found.append(known_failure("payload", "response_too_large", limit=limit, **words))
    else:
        found.append(passed("payload", f"{images} {form} pictures are about {size:,} bytes; {kind} endpoint"))
    return found + _check_time(subject, width * height / 1e6 * steps * images, kind)


def _check_time(subject: Subject, megapixel_steps: float, kind: str) -> list[Finding]:
    limit = predict_timeout(subject.dedicated, subject.inference_timeout)
    pace = facts("seconds_per_megapixel_step").get(subject.accelerator or "")
    if subject.client_timeout and subject.client_timeout > limit:
        why = f"the client waits {subject.client_timeout:g} s"
        return [known_failure("time", "too_slow", why=why, kind=kind, limit=limit)]
    if pace and megapixel_steps * pace > limit:
        why = f"the largest request takes about {megapixel_steps * pace:.0f} s on {subject.accelerator}"
        return [known_failure("time", "too_slow", why=why, kind=kind, limit=limit)]
    return [passed("time", f"the {kind} endpoint waits {limit} s")]


def _settings(subject: Subject) -> dict[str, Any]:
    if subject.archive is None:
        return {}
    try:
        with zipfile.ZipFile(subject.archive) as mar:
            document = yaml.safe_load(mar.read(CONFIG_FILE))
    except (OSError, KeyError, zipfile.BadZipFile, yaml.YAMLError):
        return {}
    own = document.get("marquee") if isinstance(document, dict) else None
    return own if isinstance(own, dict) else {}


def check_properties(subject: Subject) -> list[Finding]:
    """The user's TorchServe configuration must switch token authorization off."""
    path = subject.config_properties
    if path is None:
        return []
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    if "disable_token_authorization=true" in lines:
        return [passed("token authorization", f"{path} switches it off")]

    def add_line() -> str:
        kept = path.read_bytes()
        end = b"" if kept.endswith(b"\n") or not kept else b"\n"
        path.write_bytes(kept + end + b"disable_token_authorization=true\n")
        return f"added disable_token_authorization=true to {path}"

    return [replace(known_failure("token authorization", "token_authorization", path=path), fix=add_line)]
