"""An archive's engine in this process, asked as a client asks a server: no transport lies between.

As a program it replays receipts, each alone, and prints a line of JSON for each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from handler.contract.request import Request, parse_body
from handler.contract.response import Reply, reply
from handler.contract.settings import load_settings
from handler.doors.answers import Answers, PendingReply
from handler.engine.opening import open_engine
from pipeline.client.predictions import Prediction, parse_predictions
from pipeline.client.receipts import read_receipts
from pipeline.client.replay import replay as draw_again
from pipeline.client.request_body import asked_pictures, request_body
from pipeline.client.source_files import SourceFile

STRICT: dict[str, Any] = {
    "strict": True,
    "threads": 1,
    "max_batch": 16,
    # Room for 128 pictures that wait.
    "batch_size": 8,
    "continuous_batching": False,
}


class InProcess:
    """Opens the archive that is unpacked at ``root``, in strict mode. Draws as a client does."""

    def __init__(self, root: Path) -> None:
        settings = load_settings(root / "model-config.yaml")
        self._settings = replace(settings, **STRICT)
        self._opened = open_engine(root, self._settings)
        self._runner = self._opened.start()
        self._answers: Answers[Reply] = Answers(self._runner)

    def begin(self, body: dict[str, Any]) -> PendingReply[Reply]:
        """A request on its way; every seed must be in its body."""
        request = parse_body(body, self._settings, lambda: 0)
        assert isinstance(request, Request), request
        return self._answers.answer(request.jobs, partial(self._reply, request))

    def _reply(self, request: Request, outcomes: Sequence[Any]) -> Reply:
        return reply(request, outcomes, self._opened.description, max_bytes=1 << 26)

    def predict(self, instances: list[dict[str, Any]]) -> list[Prediction]:
        """As ``pipeline.client.Client.predict``."""
        body = request_body(instances)
        answer = self.begin(body).reply.result()
        assert answer.status == 200, answer.text
        return parse_predictions(json.loads(answer.text), asked_pictures(body))

    def close(self) -> None:
        self._runner.close()
        self._answers.close()


def main(root: Path, answer: Path, *pictures: Path) -> None:
    """Replay all receipts of an answer; ``pictures`` are the files it was drawn from."""
    files = [SourceFile(path, path.read_bytes()) for path in pictures]
    engine = InProcess(root)
    for kept in read_receipts(answer):
        result = draw_again(engine, kept, {"image": files, "mask_image": files})
        print(json.dumps({"same": result.same, "differences": [one.name for one in result.differences]}))
    engine.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
