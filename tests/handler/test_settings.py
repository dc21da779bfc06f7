"""model-config.yaml: valid settings, and refusals that name the wrong key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from handler.contract.settings import Settings, SettingsError, load_settings, parse_settings

COMMITTED = Path(__file__).parents[2] / "model_artifacts" / "model-config.yaml"


def test_the_committed_file_is_understood() -> None:
    settings = load_settings(COMMITTED)
    assert (settings.defaults.width, settings.defaults.guidance_scale) == (64, 1.5)
    assert settings.limits.max_pixels == 65536
    assert settings.limits.max_guidance_scale == 30.0


def test_no_file_means_the_built_in_settings(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "none.yaml") == Settings()


def test_torchserves_workers_divide_the_threads() -> None:
    assert parse_settings({"maxWorkers": 3}).workers == 3


def test_a_batch_ends_before_torchserve_kills_the_worker() -> None:
    assert parse_settings({"responseTimeout": 300}).max_batch_seconds == 240
    assert parse_settings({}).max_batch_seconds < 120, "TorchServe's own default"


def test_places_are_measured_unless_the_file_says_how_many() -> None:
    auto, eight = parse_settings({}), parse_settings({"marquee": {"max_batch": 12}})
    assert (auto.max_batch, auto.fixed_places, auto.most_places) == ("auto", False, 32)
    assert (eight.fixed_places, eight.places, eight.most_places) == (True, 12, 12)


def test_presets_are_those_of_the_file_or_two_within_its_limits() -> None:
    assert parse_settings({}).presets == Settings().presets
    few = parse_settings({"marquee": {"limits": {"max_num_inference_steps": 40}}})
    assert [dict(preset) for preset in few.presets.values()] == [
        {"num_inference_steps": 25},
        {"num_inference_steps": 40},
    ]
    own = {"draft": {"num_inference_steps": 4, "scheduler": "LCM", "guidance_scale": 1}}
    assert parse_settings({"marquee": {"presets": own}}).presets == own
    assert parse_settings({"marquee": {"presets": {}}}).presets == {}


def test_strict_replicas_agree_on_their_places_without_measuring() -> None:
    strict = parse_settings({"marquee": {"max_batch": "auto", "strict": True}})
    assert (strict.fixed_places, strict.places, strict.most_places) == (True, 8, 8)


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ([], "mapping"),
        ({"maxBatchDelya": 1}, "maxBatchDelya"),
        ({"asyncCommunication": True}, "asyncCommunication"),  # corrupts other clients' connections
        ({"marquee": 3}, "marquee"),
        ({"marquee": {"treads": 1}}, "treads"),
        ({"marquee": {"defaults": {"steps": 1}}}, "steps"),
        ({"marquee": {"defaults": {"width": 63}}}, "multiples of 8"),
        ({"marquee": {"defaults": {"width": True}}}, "width"),
        ({"marquee": {"defaults": {"guidance_scale": float("nan")}}}, "guidance_scale"),
        ({"marquee": {"defaults": {"num_inference_steps": 1000}}}, "num_inference_steps"),
        ({"marquee": {"defaults": {"scheduler": "Heun"}}}, "scheduler"),
        ({"marquee": {"defaults": {"output_format": "gif"}}}, "output_format"),
        ({"marquee": {"limits": {"max_pixels": 0}}}, "max_pixels"),
        ({"marquee": {"limits": {"max_pixels": 4096}}}, "width x height"),
        ({"marquee": {"schedulers": ["DDIM"]}}, "scheduler"),  # the default is not among them
        ({"marquee": {"schedulers": []}}, "schedulers"),
        ({"marquee": {"device": "tpu"}}, "device"),
        ({"marquee": {"dtype": "fp16"}}, "dtype"),
        ({"marquee": {"channels_last": 1}}, "channels_last"),
        ({"marquee": {"threads": 0}}, "threads"),
        ({"marquee": {"max_batch": "8"}}, "max_batch is '8'; it must be a whole number, 1 or more, or auto"),
        ({"marquee": {"defaults": {"scheduler": "LCM", "num_inference_steps": 80}}}, "LCM takes at most 50"),
        ({"marquee": {"presets": []}}, "presets must be a mapping"),
        ({"marquee": {"presets": {"fast": 5}}}, r"presets\.fast must be a mapping"),
        ({"marquee": {"presets": {"fast": {"steps": 5}}}}, r"presets\.fast has the unknown key 'steps'"),
        (
            {"marquee": {"presets": {"fast": {"num_inference_steps": 101}}}},
            "presets.fast: num_inference_steps",
        ),
        ({"marquee": {"presets": {"fast": {"scheduler": "Heun"}}}}, r"presets\.fast\.scheduler"),
        ({"marquee": {"presets": {"fast": {"scheduler": "LCM", "num_inference_steps": 80}}}}, "LCM takes"),
        ({"marquee": {"loras": {"ink": {"default_weight": 10.5}}}}, r"loras\.ink\.default_weight is 10\.5"),
        ({"marquee": {"limits": {"max_images_per_prompt": 0}}}, "max_images_per_prompt"),
        ({"maxBatchDelay": 0}, "TorchServe reads as 100"),
        ({"maxBatchDelay": False}, "maxBatchDelay"),
        ({"responseTimeout": "soon"}, "responseTimeout"),
        ({"responseTimeout": 1.5}, "responseTimeout"),
        ({"minWorkers": "1", "maxWorkers": 1}, "minWorkers"),
        ({"startupTimeout": -1}, "startupTimeout"),
        ({"maxRetryTimeoutInSec": None}, "maxRetryTimeoutInSec"),
        ({"jobQueueSize": [64]}, "jobQueueSize"),
        ({"useJobTicket": "yes"}, "useJobTicket"),
        ({"continuousBatching": 1}, "continuousBatching"),
        ({"deviceType": "tpu"}, "deviceType"),
        ({"deviceIds": 0}, "deviceIds"),
        ({"deviceIds": ["0"]}, "deviceIds"),
    ],
)
def test_a_wrong_word_is_named(document: Any, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        parse_settings(document)


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "model-config.yaml").write_text("a: [")
    with pytest.raises(SettingsError, match=r"model-config\.yaml is not YAML"):
        load_settings(tmp_path / "model-config.yaml")


def test_what_is_done_with_flagged_pictures_is_one_of_three_and_may_be_left_out() -> None:
    assert parse_settings({"marquee": {"safety": "withhold"}}).safety == "withhold"
    assert parse_settings({}).safety is None
    for wrong in ("black", None, True):
        with pytest.raises(SettingsError, match=r"marquee\.safety is .*one of send, blur, withhold"):
            parse_settings({"marquee": {"safety": wrong}})
