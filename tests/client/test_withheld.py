"""A picture that the server withholds: it is named, with an exit code of its own, and the rest comes."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_client import scripted

from pipeline.cli import app, edge
from pipeline.client import Client
from pipeline.client.errors import PictureWithheld
from pipeline.client.receipts import Kept
from pipeline.client.replay import replay
from pipeline.errors import MarqueeError
from pipeline.serving.readiness import was_withheld

SAFETY = {"flagged": True, "action": "withheld"}
RECEIPT = {"seed": 1, "settings": {"prompt": "x"}, "safety": SAFETY, "pixels_sha256": None}
WITHHELD = {"image": None, "receipt": RECEIPT, "safety": SAFETY}


def picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "jpeg")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("withheld", [None, WITHHELD])
def test_the_other_pictures_are_written_and_the_withheld_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], withheld: Any
) -> None:
    with scripted((200, {"predictions": [withheld, picture()]}, {})) as script:
        arguments = ["predict", "a cat", "a dog", "--url", script.url, "-o", str(tmp_path / "p.jpg")]
        code = edge.run(app, arguments)
    assert code == 3
    assert [path.name for path in tmp_path.iterdir()] == ["p-2.jpg"]
    said = capsys.readouterr().err
    assert "p-1.jpg is withheld: the server's safety checker flagged it; nothing is written there" in said
    assert "cure: ask for another seed or another prompt" in said


def test_a_server_is_ready_whose_checker_withholds_the_warm_up_picture() -> None:
    describing = {"predictions": [{"safety_checker": {"sha256": "0", "action": "withhold"}}]}
    assert was_withheld(describing, {"predictions": [None]})
    assert was_withheld(describing, {"predictions": [WITHHELD]})
    assert not was_withheld(describing, {"predictions": ["text"]})
    for other in (None, {"predictions": [{"safety_checker": None}]}, {"predictions": [{}]}):
        assert not was_withheld(other, {"predictions": [None]})


def test_a_withheld_picture_is_a_value_that_cannot_be_saved(tmp_path: Path) -> None:
    with scripted((200, {"predictions": [WITHHELD]}, {})) as script, Client(script.url) as client:
        [prediction] = client.predict(["x"])
        assert prediction.withheld
        assert prediction.receipt == RECEIPT
        with pytest.raises(PictureWithheld):
            prediction.save(tmp_path / "picture.jpg")
        with pytest.raises(MarqueeError, match="receipt is of a withheld picture"):
            replay(client, Kept("receipt.json", prediction.receipt), {})
    assert not list(tmp_path.iterdir())
