"""Memory: Java's share and what the workers need; how many workers may be asked for; the warm-up request."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import httpx
import pytest

from pipeline.errors import MarqueeError
from pipeline.serving.memory import MEBIBYTE, heap_bytes, total_memory, unused_memory
from pipeline.serving.preflight import ArchiveFacts, check_archive, check_machine, worker_count
from pipeline.serving.readiness import quick_instance, warm_up_instance


def test_too_little_memory_is_named() -> None:
    archive = ArchiveFacts(Path("m.mar"), unpacked_bytes=0, weight_bytes=2**30)
    check_machine(archive, available_bytes=3 * 2**30)
    with pytest.raises(MarqueeError, match=r"needs about 2,848 MiB of memory, 2,048 MiB are free"):
        check_machine(archive, available_bytes=2 * 2**30)


def test_page_cache_counts_as_free_in_a_container(tmp_path: Path) -> None:
    stat = "anon 300\nfile 650\nactive_file 200\ninactive_file 400\nshmem 50\n"
    for name, text in {"memory.max": "1000\n", "memory.current": "950\n", "memory.stat": stat}.items():
        (tmp_path / name).write_text(text)
    assert unused_memory(tmp_path) == 650
    (tmp_path / "memory.max").write_text("max\n")
    assert unused_memory(tmp_path) is None
    assert unused_memory(tmp_path / "no cgroup v2") is None


@pytest.mark.parametrize(
    ("total", "heap"), [(2**30, 384), (8 * 2**30, 512), (24 * 2**30, 1536), (64 * 2**30, 2048)]
)
def test_javas_heap_is_a_share_of_the_memory(total: int, heap: int) -> None:
    assert heap_bytes(total) == heap * MEBIBYTE


def test_a_containers_limit_is_its_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    assert total_memory(tmp_path) == 1_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert total_memory(tmp_path) == total_memory(tmp_path / "no cgroup v2") > 2**28


def with_settings(path: Path, settings: str) -> Path:
    named = json.dumps({"model": {"handler": "h.py", "configFile": "model-config.yaml"}}).encode()
    members = {"MAR-INF/MANIFEST.json": named, "h.py": b"", "model-config.yaml": settings.encode()}
    with zipfile.ZipFile(path / "m.mar", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path / "m.mar"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("minWorkers: 1000\nmaxWorkers: 1000", "asks for minWorkers: 1000; a whole number from 1 to"),
        ("minWorkers: 0", "minWorkers: 0;"),
        ("minWorkers: -1", "minWorkers: -1;"),
        ("minWorkers: yes", "minWorkers: True;"),
        ("minWorkers: many", "minWorkers: 'many';"),
        ("maxWorkers: 1000", "maxWorkers: 1000;"),
        ("minWorkers: 2\nmaxWorkers: 1", "minWorkers: 2 and maxWorkers: 1, which is less"),
        ("minWorkers: [", "cannot be read: while parsing"),
        ("#" * 2**21, "at most 1,048,576 are read"),
    ],
)
def test_workers_that_this_machine_cannot_have_are_refused(tmp_path: Path, settings: str, words: str) -> None:
    with pytest.raises(MarqueeError, match=re.escape(words)) as caught:
        check_archive(with_settings(tmp_path, settings))
    assert caught.value.cure


def test_every_worker_needs_memory_of_its_own(tmp_path: Path) -> None:
    two = check_archive(with_settings(tmp_path, "minWorkers: 2\nmaxWorkers: 2"))
    assert two.workers == 2
    check_machine(two, available_bytes=2**31)
    with pytest.raises(MarqueeError, match=r"needs about 1,220 MiB of memory for its 2 workers"):
        check_machine(two, available_bytes=2**30)
    assert worker_count({"minWorkers": 40, "maxWorkers": 40}, tmp_path, cores=32) == 40


@pytest.mark.parametrize(
    ("answer", "prompt", "steps"),
    [
        (
            {"predictions": [{"limits": {"max_num_inference_steps": 1, "max_prompt_characters": 4}}]},
            "warm",
            1,
        ),
        (
            {"predictions": [{"limits": {"max_num_inference_steps": 9, "max_prompt_characters": 9}}]},
            "warm up",
            2,
        ),
        ({"predictions": ["an archive that does not describe itself"]}, "warm up", 2),
        (["no JSON object"], "warm up", 2),
    ],
)
def test_the_warm_up_stays_within_the_archives_limits(answer: object, prompt: str, steps: int) -> None:
    instance = warm_up_instance(httpx.Response(200, json=answer))
    assert (instance["prompt"], instance["num_inference_steps"]) == (prompt, steps)
    assert "image" not in instance


def test_a_model_that_only_paints_into_pictures_is_asked_to_do_that() -> None:
    limits = {"max_num_inference_steps": 9, "max_prompt_characters": 9}
    described = {"families": ["inpaint"], "limits": limits, "defaults": {"width": 72, "height": 64}}
    instance = quick_instance(described)
    assert instance.keys() >= {"prompt", "image", "mask_image"}
    assert (instance["width"], instance["height"]) == (72, 64)
