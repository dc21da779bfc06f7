"""model-config.yaml read once into frozen Settings; an unknown key or a wrong value is a SettingsError."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handler.contract.limits import Defaults, Limits
from handler.contract.safety import SAFETY
from handler.contract.schedulers import SCHEDULERS
from handler.contract.setting_values import SettingsError as SettingsError
from handler.contract.setting_values import (
    auto_or_count,
    choice,
    count,
    fill,
    mapping,
    refuse_unknown,
    some_of,
)

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

MOST_LORA_WEIGHT = 10.0
"""The largest weight of a LoRA, and below 0 the least; ``marquee build --lora`` has the same range."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fast": {"num_inference_steps": 25},
    "quality": {"num_inference_steps": 50},
}
"""What the presets are where model-config.yaml names none, as far as its limits allow."""


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
    ``presets``: by name, some of the fields of Defaults, which a request gets instead of the defaults.
    """

    defaults: Defaults = field(default_factory=Defaults)
    limits: Limits = field(default_factory=Limits)
    schedulers: tuple[str, ...] = tuple(SCHEDULERS)
    loras: Mapping[str, LoraSettings] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: dict(PRESETS))
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
    top = mapping(document, "model-config.yaml")
    refuse_unknown(top, TORCHSERVE_KEYS | {"marquee"}, "model-config.yaml")
    _check_torchserves(top)
    own = mapping(top.get("marquee", {}), "marquee")
    refuse_unknown(own, {spec.name for spec in dataclasses.fields(Settings)} - TORCHSERVES, "marquee")
    limits = fill(Limits, own.get("limits", {}), "marquee.limits")
    settings = Settings(
        defaults=fill(Defaults, own.get("defaults", {}), "marquee.defaults"),
        limits=limits,
        schedulers=_schedulers(own.get("schedulers", list(SCHEDULERS))),
        loras=_loras(own.get("loras", {})),
        presets=_presets(own.get("presets"), limits),
        device=choice(own.get("device", "auto"), ("auto", "cpu", "cuda"), "marquee.device"),
        dtype=choice(own.get("dtype", "auto"), DTYPES, "marquee.dtype"),
        channels_last=choice(own.get("channels_last", "auto"), SWITCHES, "marquee.channels_last"),
        threads=auto_or_count(own.get("threads", "auto"), "marquee.threads"),
        max_batch=auto_or_count(own.get("max_batch", "auto"), "marquee.max_batch"),
        strict=choice(own.get("strict", False), (True, False), "marquee.strict"),
        max_step_seconds=count(own.get("max_step_seconds", 240), "marquee.max_step_seconds"),
        safety=choice(own["safety"], tuple(SAFETY), "marquee.safety") if "safety" in own else None,
        workers=top.get("maxWorkers", top.get("minWorkers", 1)),
        batch_size=top.get("batchSize", 1),
        continuous_batching=top.get("continuousBatching", False),
        response_timeout=top.get("responseTimeout", 120),
    )
    _check_defaults(settings, settings.defaults, "marquee.defaults")
    for name, preset in settings.presets.items():
        given = dataclasses.replace(settings.defaults, **preset)
        _check_defaults(settings, given, f"marquee.presets.{name}")
    return settings


def _check_torchserves(top: Mapping[str, Any]) -> None:
    """Check TorchServe's own keys: TorchServe ignores a wrong value and takes its default silently."""
    if top.get("maxBatchDelay") == 0:
        raise SettingsError("maxBatchDelay is 0, which TorchServe reads as 100 ms; the least is 1")
    for key in top.keys() & set(COUNTED_KEYS):
        count(top[key], key)
    for key in top.keys() & set(SWITCHED_KEYS):
        choice(top[key], (True, False), key)
    if "deviceType" in top:
        choice(top["deviceType"], ("cpu", "gpu"), "deviceType")
    ids = top.get("deviceIds", [])
    if not isinstance(ids, list) or any(type(one) is not int or one < 0 for one in ids):
        raise SettingsError(f"deviceIds is {ids!r}; it must be a list of whole numbers, 0 or more")


def _schedulers(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or any(name not in SCHEDULERS for name in value):
        raise SettingsError(f"marquee.schedulers is {value!r}; it must list some of {', '.join(SCHEDULERS)}")
    return tuple(value)


def _loras(value: Any) -> dict[str, LoraSettings]:
    loras = {
        str(name): fill(LoraSettings, chosen, f"marquee.loras.{name}")
        for name, chosen in mapping(value, "marquee.loras").items()
    }
    for name, chosen in loras.items():
        if abs(chosen.default_weight) > MOST_LORA_WEIGHT:
            raise SettingsError(
                f"marquee.loras.{name}.default_weight is {chosen.default_weight:g};"
                f" it must be {-MOST_LORA_WEIGHT:g} to {MOST_LORA_WEIGHT:g}"
            )
    return loras


def _presets(value: Any, limits: Limits) -> dict[str, Mapping[str, Any]]:
    if value is None:
        most = limits.max_num_inference_steps
        return {
            name: {"num_inference_steps": min(preset["num_inference_steps"], most)}
            for name, preset in PRESETS.items()
        }
    return {
        str(name): some_of(Defaults, chosen, f"marquee.presets.{name}")
        for name, chosen in mapping(value, "marquee.presets").items()
    }


def _check_defaults(settings: Settings, given: Defaults, where: str) -> None:
    """The defaults must be a request that the limits allow, or every plain request would be refused."""
    limits = settings.limits
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
            raise SettingsError(f"{where}: {name} is {value}; the limits allow {low} to {high}")
    if given.width % 8 or given.height % 8:
        raise SettingsError(f"{where}: {given.width}x{given.height}; both must be multiples of 8")
    choice(given.scheduler, settings.schedulers, f"{where}.scheduler")
    most = SCHEDULERS[given.scheduler].max_steps
    if given.num_inference_steps > most:
        raise SettingsError(
            f"{where}: num_inference_steps is {given.num_inference_steps}; the scheduler"
            f" {given.scheduler} takes at most {most}"
        )
    choice(given.output_format, OUTPUT_FORMATS, f"{where}.output_format")
    choice(given.response, RESPONSES, f"{where}.response")
