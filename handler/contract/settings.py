"""model-config.yaml read once into frozen Settings; an unknown key or a wrong value is a SettingsError."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from handler.contract.limits import Defaults, Limits
from handler.contract.safety import SAFETY
from handler.contract.schedulers import SCHEDULERS

OUTPUT_FORMATS = ("jpeg", "png", "webp")
RESPONSES = ("image", "full")
DTYPES = ("auto", "float32", "float16", "bfloat16")
SWITCHES = ("auto", True, False)

MOST_PLACES = 32
"""The most pictures that ``max_batch: auto`` draws together; batchSize is written with room for them."""
UNMEASURED_PLACES = 8
"""What ``max_batch: auto`` means where nothing is measured: in strict mode, and where a step is slow."""

COUNTED_KEYS = (
    "minWorkers",
    "maxWorkers",
    "batchSize",
    "maxBatchDelay",
    "responseTimeout",
    "startupTimeout",
    "maxRetryTimeoutInSec",
    "jobQueueSize",
)
SWITCHED_KEYS = ("useJobTicket", "continuousBatching")
TORCHSERVE_KEYS = frozenset({*COUNTED_KEYS, *SWITCHED_KEYS, "deviceType", "deviceIds"})
"""The keys TorchServe 0.12 reads at the top level (ModelConfig.java) that marquee can work with."""

TORCHSERVES = frozenset({"workers", "batch_size", "continuous_batching", "response_timeout"})
"""The Settings that come from TorchServe's own keys."""

T = TypeVar("T")


class SettingsError(ValueError):
    """A wrong value in model-config.yaml; the message names the key and the allowed values."""


@dataclass(frozen=True)
class LoraSettings:
    """How strongly a LoRA of the archive is followed where a request names it without a weight."""

    default_weight: float = 1.0


@dataclass(frozen=True)
class Settings:
    """All that model-config.yaml fixes for the handler.

    ``device`` is auto, cpu or cuda; ``dtype`` auto, float32, float16 or bfloat16; ``channels_last`` auto,
    True or False; ``threads`` auto or a count per worker; ``max_batch`` bounds the pictures drawn together,
    auto measures how many pay (``handler.engine.places``); ``strict`` makes a picture's bits independent of
    the others'; a denoising step longer than ``max_step_seconds`` ends the worker; ``safety``: what is done
    with flagged pictures (SAFETY). ``workers``, ``batch_size``, ``continuous_batching``: TorchServe's
    maxWorkers, batchSize, continuousBatching and responseTimeout (seconds; 120 where it is not said).
    """

    defaults: Defaults = field(default_factory=Defaults)
    limits: Limits = field(default_factory=Limits)
    schedulers: tuple[str, ...] = tuple(SCHEDULERS)
    loras: Mapping[str, LoraSettings] = field(default_factory=dict)
    device: str = "auto"
    dtype: str = "auto"
    channels_last: bool | str = "auto"
    threads: int | str = "auto"
    max_batch: int | str = "auto"
    strict: bool = False
    max_step_seconds: int = 240
    safety: str | None = None
    workers: int = 1
    batch_size: int = 1
    continuous_batching: bool = False
    response_timeout: int = 120

    @property
    def fixed_places(self) -> bool:
        """Whether the live places are known without measuring."""
        return self.strict or isinstance(self.max_batch, int)

    @property
    def places(self) -> int:
        """``max_batch``, or what stands for auto where nothing is measured."""
        return self.max_batch if isinstance(self.max_batch, int) else UNMEASURED_PLACES

    @property
    def most_places(self) -> int:
        """The most live places there may be: what is prepared before they are measured."""
        return self.places if self.fixed_places else MOST_PLACES

    @property
    def max_batch_seconds(self) -> float:
        """The longest a plain batch is drawn: a fifth of TorchServe's patience is left to encode and send."""
        return 0.8 * self.response_timeout


def load_settings(path: Path) -> Settings:
    """Read a model-config.yaml; a missing file means the built-in Settings (older TorchServe needs none)."""
    import yaml

    if not path.exists():
        return Settings()
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    return parse_settings({} if document is None else document)


def parse_settings(document: Any) -> Settings:
    """Check a parsed model-config.yaml and make Settings of it; raises SettingsError."""
    top = _mapping(document, "model-config.yaml")
    _refuse_unknown(top, TORCHSERVE_KEYS | {"marquee"}, "model-config.yaml")
    _check_torchserves(top)
    own = _mapping(top.get("marquee", {}), "marquee")
    _refuse_unknown(own, {spec.name for spec in dataclasses.fields(Settings)} - TORCHSERVES, "marquee")
    settings = Settings(
        defaults=_fill(Defaults, own.get("defaults", {}), "marquee.defaults"),
        limits=_fill(Limits, own.get("limits", {}), "marquee.limits"),
        schedulers=_schedulers(own.get("schedulers", list(SCHEDULERS))),
        loras=_loras(own.get("loras", {})),
        device=_choice(own.get("device", "auto"), ("auto", "cpu", "cuda"), "marquee.device"),
        dtype=_choice(own.get("dtype", "auto"), DTYPES, "marquee.dtype"),
        channels_last=_choice(own.get("channels_last", "auto"), SWITCHES, "marquee.channels_last"),
        threads=_auto_or_count(own.get("threads", "auto"), "marquee.threads"),
        max_batch=_auto_or_count(own.get("max_batch", "auto"), "marquee.max_batch"),
        strict=_choice(own.get("strict", False), (True, False), "marquee.strict"),
        max_step_seconds=_count(own.get("max_step_seconds", 240), "marquee.max_step_seconds"),
        safety=_choice(own["safety"], tuple(SAFETY), "marquee.safety") if "safety" in own else None,
        workers=top.get("maxWorkers", top.get("minWorkers", 1)),
        batch_size=top.get("batchSize", 1),
        continuous_batching=top.get("continuousBatching", False),
        response_timeout=top.get("responseTimeout", 120),
    )
    _check_defaults(settings)
    return settings


def _check_torchserves(top: Mapping[str, Any]) -> None:
    """Check TorchServe's own keys: TorchServe ignores a wrong value and takes its default silently."""
    if top.get("maxBatchDelay") == 0:
        raise SettingsError("maxBatchDelay is 0, which TorchServe reads as 100 ms; the least is 1")
    for key in top.keys() & set(COUNTED_KEYS):
        _count(top[key], key)
    for key in top.keys() & set(SWITCHED_KEYS):
        _choice(top[key], (True, False), key)
    if "deviceType" in top:
        _choice(top["deviceType"], ("cpu", "gpu"), "deviceType")
    ids = top.get("deviceIds", [])
    if not isinstance(ids, list) or any(type(one) is not int or one < 0 for one in ids):
        raise SettingsError(f"deviceIds is {ids!r}; it must be a list of whole numbers, 0 or more")


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where} must be a mapping, not {value!r}")
    return value


def _refuse_unknown(mapping: Mapping[str, Any], known: set[str] | frozenset[str], where: str) -> None:
    unknown = sorted(str(key) for key in mapping if key not in known)
    if unknown:
        keys = ", ".join(sorted(known))
        raise SettingsError(f"{where} has the unknown key {unknown[0]!r}; known are {keys}")


def _fill(kind: type[T], value: Any, where: str) -> T:
    """A dataclass from a mapping, each value of its default's type (an int may stand for a float)."""
    mapping = _mapping(value, where)
    defaults = {spec.name: spec.default for spec in dataclasses.fields(kind)}  # type: ignore[arg-type]
    _refuse_unknown(mapping, set(defaults), where)
    return kind(**{name: _like(item, defaults[name], f"{where}.{name}") for name, item in mapping.items()})


def _like(value: Any, default: Any, where: str) -> Any:
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise SettingsError(f"{where} is {value!r}; it must be of type {type(default).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{where} is {value!r}; it must be a finite number")
    if where.startswith("marquee.limits") and value < 1:
        raise SettingsError(f"{where} is {value!r}; it must be 1 or more")
    return value


def _choice(value: Any, allowed: tuple[Any, ...], where: str) -> Any:
    if not any(value is option or (value == option and isinstance(value, str)) for option in allowed):
        raise SettingsError(f"{where} is {value!r}; it must be one of {', '.join(map(str, allowed))}")
    return value


def _count(value: Any, where: str, otherwise: str = "") -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SettingsError(f"{where} is {value!r}; it must be a whole number, 1 or more{otherwise}")
    return value


def _auto_or_count(value: Any, where: str) -> int | str:
    return "auto" if value == "auto" else _count(value, where, ", or auto")


def _schedulers(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or any(name not in SCHEDULERS for name in value):
        raise SettingsError(f"marquee.schedulers is {value!r}; it must list some of {', '.join(SCHEDULERS)}")
    return tuple(value)


def _loras(value: Any) -> dict[str, LoraSettings]:
    return {
        str(name): _fill(LoraSettings, chosen, f"marquee.loras.{name}")
        for name, chosen in _mapping(value, "marquee.loras").items()
    }


def _check_defaults(settings: Settings) -> None:
    """The defaults must be a request that the limits allow, or every plain request would be refused."""
    given, limits = settings.defaults, settings.limits
    ranges = {
        "width": (given.width, limits.min_width, limits.max_width),
        "height": (given.height, limits.min_height, limits.max_height),
        "num_inference_steps": (given.num_inference_steps, 1, limits.max_num_inference_steps),
        "guidance_scale": (given.guidance_scale, 0, limits.max_guidance_scale),
        "quality": (given.quality, 1, 100),
        "width x height": (given.width * given.height, 1, limits.max_pixels),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise SettingsError(f"marquee.defaults: {name} is {value}; the limits allow {low} to {high}")
    if given.width % 8 or given.height % 8:
        raise SettingsError(f"marquee.defaults: {given.width}x{given.height}; both must be multiples of 8")
    _choice(given.scheduler, settings.schedulers, "marquee.defaults.scheduler")
    most = SCHEDULERS[given.scheduler].max_steps
    if given.num_inference_steps > most:
        raise SettingsError(
            f"marquee.defaults: num_inference_steps is {given.num_inference_steps}; the scheduler"
            f" {given.scheduler} takes at most {most}"
        )
    _choice(given.output_format, OUTPUT_FORMATS, "marquee.defaults.output_format")
    _choice(given.response, RESPONSES, "marquee.defaults.response")
