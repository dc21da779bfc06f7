"""Nothing that a server answers is a traceback, a file, an endless wait or a command to the terminal."""

from __future__ import annotations

import base64
import tracemalloc
import unicodedata
from pathlib import Path

import hostile_server
import pytest

from pipeline.cli import app, edge
from pipeline.client import Client, PredictionError, ServerUnreachable, http_client
from pipeline.client.retries import Patience

IMPATIENT = Patience(deadline_seconds=0.8, attempts=1)
ASKED = {"output_format": "jpeg", "width": 64, "height": 64}


@pytest.mark.parametrize("name", hostile_server.ANSWERS)
def test_the_client_raises_a_prediction_error_and_nothing_else(name: str) -> None:
    patience = IMPATIENT if name in hostile_server.DRIPPING else Patience(deadline_seconds=60.0, attempts=1)
    with (
        hostile_server.serving(hostile_server.ANSWERS[name]) as url,
        Client(url, patience=patience) as client,
    ):
        with pytest.raises(PredictionError) as caught:
            client.predict(["x"], ASKED)
        assert str(caught.value)
        assert len(str(caught.value)) < 150_000


@pytest.mark.parametrize("name", hostile_server.ANSWERS)
def test_predict_names_it_in_one_sentence_and_writes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patience = IMPATIENT if name in hostile_server.DRIPPING else Patience(deadline_seconds=60.0, attempts=1)
    monkeypatch.setattr(http_client, "Patience", lambda: patience)
    monkeypatch.chdir(tmp_path)
    with hostile_server.serving(hostile_server.ANSWERS[name]) as url:
        size = ["--width", "64", "--height", "64"]
        code = edge.run(app, ["predict", "x", "--url", url, "-o", "drawn.jpg", *size])
    out, err = capsys.readouterr()
    assert code == 1, err
    assert out == ""
    assert err.startswith("error: ")
    lines = err.splitlines()
    assert sum(line.startswith("error:") for line in lines) == 1
    assert not any(line.startswith("  cure: rm") for line in lines)
    assert not [one for one in err if unicodedata.category(one) in ("Cc", "Cf", "Cs") and one != "\n"]
    assert not list(tmp_path.iterdir())


def test_a_right_answer_passes_the_same_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with hostile_server.serving(hostile_server.sent(hostile_server.whole())) as url:
        target = tmp_path / "drawn.jpg"
        assert edge.run(app, ["predict", "x", "--url", url, "-o", str(target), "--width", "64"]) == 0
    assert target.read_bytes() == hostile_server.picture()
    assert str(target) in capsys.readouterr().out


def test_what_the_server_warns_of_is_shown_beside_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [base64.b64encode(hostile_server.picture()).decode()] * 2
    told = [{"instance": 1, "message": f"the prompt was cut{hostile_server.ESCAPES}"}] * 3000
    answer = hostile_server.document({"predictions": pictures, "warnings": told})
    with hostile_server.serving(answer) as url:
        target = tmp_path / "drawn.jpg"
        assert edge.run(app, ["predict", "a cat", "a dog", "--url", url, "-o", str(target)]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    lines = err.splitlines()
    assert all(line.startswith(f"warning: {tmp_path / 'drawn-2.jpg'}: the prompt was cut") for line in lines)
    assert 1 <= len(lines) <= 100
    assert not [one for one in err if unicodedata.category(one) in ("Cc", "Cf", "Cs") and one != "\n"]


@pytest.mark.parametrize("name", ["a gzip bomb", "an endless body", "a PNG of 20000 x 20000"])
def test_a_large_answer_is_not_held_in_memory(name: str) -> None:
    with (
        hostile_server.serving(hostile_server.ANSWERS[name]) as url,
        Client(url, most_answer_bytes=4 << 20) as client,
    ):
        tracemalloc.start()
        try:
            with pytest.raises(PredictionError):
                client.predict(["x"])
            assert tracemalloc.get_traced_memory()[1] < 24 << 20
        finally:
            tracemalloc.stop()


def test_a_gzipped_answer_within_the_limit_is_read() -> None:
    import gzip

    body = gzip.compress(hostile_server.whole().partition(b"\r\n\r\n")[2])
    answer = hostile_server.sent(hostile_server.answer(body, content_encoding="gzip"))
    with hostile_server.serving(answer) as url, Client(url) as client:
        assert client.predict(["x"])[0].width == 64


def test_a_key_that_stands_twice_is_named() -> None:
    twice = hostile_server.ANSWERS["one key twice"]
    named = pytest.raises(PredictionError, match="the key 'predictions' stands twice")
    with hostile_server.serving(twice) as url, Client(url) as client, named:
        client.predict(["x"])


def test_a_server_that_does_not_read_is_not_waited_for() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        patience = Patience(deadline_seconds=0.8, attempts=1)
        with Client(url, patience=patience) as client, pytest.raises(ServerUnreachable, match="within"):
            client.predict([{"prompt": "x" * 20_000_000}])
