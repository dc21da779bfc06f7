"""The doctor as a whole: good setups, the tutorial's mistakes, and docs/failures.md."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

from foreign import TUTORIAL, write_foreign
from rehearsal_cloud import RehearsalCloud, write_archive

from pipeline.deploy.config import load_config
from pipeline.deploy.connection import Connection
from pipeline.doctor.content import hub_names
from pipeline.doctor.examine import examine, examine_cloud
from pipeline.doctor.findings import failures
from pipeline.doctor.page import failures_page
from pipeline.doctor.subject import read_arguments, subject_of

ROOT = Path(__file__).parents[2]
TODAY = date(2026, 11, 21)


def doctor(cloud: RehearsalCloud, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MARQUEE_CLOUD": str(cloud.folder.path)}
    command = [sys.executable, "-m", "pipeline", "doctor", "--date", "2026-11-21", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_no_false_alarm_on_a_good_setup(connection: Connection, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "model.mar", extra={"packages/diffusers/__init__.py": b""})
    properties = ROOT / "model_artifacts" / "config.properties"
    for profile in ("p100", "t4", "l4"):
        config = load_config(None, {"archive": str(archive)}, profile, TODAY)
        subject = subject_of(config, archive, properties)
        findings = examine(subject, TODAY) + examine_cloud(connection, subject, exhausted=False)
        assert [finding for finding in findings if finding.level != "ok"] == []
        assert len(findings) >= 15


def test_the_tutorial_as_printed_has_its_four_faults(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("tutorial.yaml"), tmp_path)
    write_foreign(tmp_path / "tutorial" / "stable_diffusion.mar", TUTORIAL)
    findings = examine(read_arguments(tmp_path / "tutorial.yaml"), TODAY)
    named = {finding.failure for finding in findings if finding.level == "problem"}
    assert {"image_ended", "archive_name", "bucket_root", "hub_gone"} <= named
    assert named - {"hub_at_start"} == {"image_ended", "archive_name", "bucket_root", "hub_gone"}


def test_the_command_tells_cures_and_fails_on_problems(cloud: RehearsalCloud, tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("tutorial.yaml"), tmp_path)
    write_foreign(tmp_path / "tutorial" / "stable_diffusion.mar", TUTORIAL)
    found = doctor(cloud, "--arguments", str(tmp_path / "tutorial.yaml"), "--json")
    assert found.returncode == 1
    listed = json.loads(found.stdout)
    assert {"vertex-ai-samples#1796", "vertex-ai-samples#3485"} <= {
        thread for finding in listed for thread in finding["threads"]
    }
    told = doctor(cloud, "--set", "traffic=0", "--set", "machine=n1-huge-9")
    assert told.returncode == 1
    assert "traffic:" in told.stdout
    assert "n1-huge-9" in told.stdout


def test_the_command_is_content_with_a_good_setup_and_fixes_what_it_may(
    cloud: RehearsalCloud, tmp_path: Path
) -> None:
    archive = write_archive(tmp_path / "model.mar", extra={"packages/diffusers/__init__.py": b""})
    properties = tmp_path / "config.properties"
    properties.write_text("inference_address=http://0.0.0.0:8080\n")
    words = ["--profile", "p100", "--set", f"archive={archive}", "--config-properties", str(properties)]
    assert doctor(cloud, *words).returncode == 1
    fixed = doctor(cloud, *words, "--fix")
    assert fixed.returncode == 0, fixed.stdout
    assert "fixed" in fixed.stderr
    good = doctor(cloud, *words)
    assert good.returncode == 0
    assert good.stdout.startswith("target: the local cloud")
    assert "0 problem(s), 0 notice(s)" in good.stdout


def test_hub_names_are_found_in_code_and_not_in_paths() -> None:
    source = """
pipe = DiffusionPipeline.from_pretrained("owner/name")
other = AutoModel.from_pretrained(pretrained_model_name_or_path="a/b", use_auth_token="x/y")
local = AutoModel.from_pretrained("./model")
absolute = AutoModel.from_pretrained("/opt/model")
variable = AutoModel.from_pretrained(model_dir)
"""
    assert set(hub_names(source)) == {"owner/name", "a/b"}
    assert list(hub_names("not python (")) == []


def test_the_page_lists_every_failure_as_the_table_has_it() -> None:
    page = (ROOT / "docs" / "failures.md").read_text()
    assert page == failures_page(), "run: python -m pipeline.doctor.page"
    for failure in failures().values():
        assert failure.fault in page
