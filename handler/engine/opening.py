"""From an unpacked archive to an engine that can draw; every door and the benchmarks open it here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from handler.contract.describe import Loaded, describe
from handler.contract.safety import DEFAULT_SAFETY
from handler.contract.settings import Settings
from handler.engine.accelerate.compiled import with_compiled_unet
from handler.engine.accelerate.gpu import tune_for_gpu
from handler.engine.engine import Engine
from handler.engine.families.served import served_families
from handler.engine.profile import Profile, choose_profile
from handler.engine.runner import Runner
from handler.engine.start import Started, start_engine
from handler.engine.watchdog import Watchdog
from handler.model.device import device_name, set_threads
from handler.model.digest import archive_digest
from handler.model.libraries import quiet_libraries
from handler.model.load import load_model
from handler.model.loras import load_loras
from handler.model.model import Model
from handler.model.vendored import check_pillow, packages_in_use
from handler.model.weights import ModelError


@dataclass(frozen=True)
class Opened:
    """A loaded archive: a door adds its transport and nothing else.

    ``description`` answers describe requests and is the source of every receipt; ``threads`` is what torch
    was given for the thread that steps.
    """

    engine: Engine
    model: Model
    settings: Settings
    profile: Profile
    description: Mapping[str, object]
    threads: int

    @property
    def families(self) -> tuple[str, ...]:
        """What can be drawn: of text_to_image, image_to_image and inpaint."""
        return served_families(self.model)

    def start(self) -> Runner:
        """Steps the engine in a thread of its own from now on; the worker ends when a step is stuck."""
        return Runner(self.engine, Watchdog(self.settings.max_step_seconds), self.threads)


def open_engine(archive_root: Path, settings: Settings, devices: Sequence[int] = ()) -> Opened:
    """Load the archive that is unpacked at ``archive_root`` and make its engine.

    ``devices`` are the numbers of the GPUs it may use, none on a machine without; one engine draws on one.
    Call this once in a process, in a thread that ends afterwards: the helpers that OpenMP keeps for a thread
    that has computed end with it. With more of them than cores libgomp sends all to sleep at once, and a
    small step took thrice as long.

    Raises ModelError, DigestError, ContainerError, OSError or RuntimeError, whose text names the fault.
    """
    if len(devices) > 1:
        raise RuntimeError(f"one engine draws on one GPU, and was given {list(devices)}; start one for each")
    check_pillow()
    quiet_libraries()
    threads = set_threads(settings)
    model = load_model(archive_root / "model", settings, devices[0] if devices else None)
    parts = {"unet": model.unet, "text_encoder": model.text_encoder}
    model = replace(model, loras=load_loras(archive_root, settings, parts))
    model = tune_for_gpu(with_compiled_unet(model, archive_root), settings)
    profile = choose_profile(model, settings)
    started = start_engine(model, settings, profile)
    loaded = Loaded(
        families=served_families(model),
        device=str(model.device),
        device_name=device_name(model.device),
        dtype=str(model.dtype).rpartition(".")[2],
        channels_last=model.channels_last,
        threads=threads,
        weights_digest=model.weights_digest,
        archive_digest=archive_digest(archive_root),
        packages=packages_in_use(archive_root),
        loras={
            name: {"sha256": lora.digest, "default_weight": lora.default_weight}
            for name, lora in model.loras.items()
        },
        safety_checker=_safety_checker(model, settings),
    )
    running = _running(settings, profile, model, started)
    description = describe(loaded, settings, running)
    return Opened(started.engine, model, settings, profile, description, torch.get_num_threads())


def _safety_checker(model: Model, settings: Settings) -> dict[str, object] | None:
    """For describe answers. Raises ModelError where the settings promise a check that nobody makes."""
    checker = model.safety_checker
    if checker is not None:
        return {"sha256": checker.digest, "action": settings.safety or DEFAULT_SAFETY}
    if settings.safety is not None:
        raise ModelError(
            f"model-config.yaml sets marquee.safety to {settings.safety}, but the archive has no safety"
            " checker: build it with --safety-checker, or take marquee.safety out"
        )
    return None


def _running(settings: Settings, profile: Profile, model: Model, started: Started) -> dict[str, object]:
    """How the engine runs, for describe answers."""
    return {
        **asdict(profile),
        "strict": settings.strict,
        "continuous": settings.continuous_batching,
        "dtype_probe": asdict(model.dtype_probe) if model.dtype_probe else None,
        "max_batch": started.places.count,
        "batch_curve": {str(rows): milliseconds for rows, milliseconds in started.places.batch_curve.items()},
    }
