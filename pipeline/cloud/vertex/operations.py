"""Long-running operations: recorded before they start, run in threads, continued after a restart."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from google.cloud.aiplatform_v1.types import (
    CreateEndpointOperationMetadata,
    DeleteOperationMetadata,
    DeployModelOperationMetadata,
    MutateDeployedModelOperationMetadata,
    UndeployModelOperationMetadata,
    UpdateEndpointOperationMetadata,
    UploadModelOperationMetadata,
)
from google.longrunning import operations_pb2
from google.protobuf import json_format

from pipeline.cloud.clock import Clock
from pipeline.cloud.faults import FaultBook
from pipeline.cloud.projects import project_number
from pipeline.cloud.vertex.calls import bare
from pipeline.cloud.vertex.failures import ServiceFailure, not_found
from pipeline.cloud.vertex.names import new_number
from pipeline.cloud.vertex.records import Records

_KIND = "operation"
_PROMPT_SECONDS = 0.3  # shorter work is reported done by the call that starts it
_METADATA: Mapping[str, type[Any]] = {
    "UploadModel": UploadModelOperationMetadata,
    "DeleteModel": DeleteOperationMetadata,
    "DeleteModelVersion": DeleteOperationMetadata,
    "CreateEndpoint": CreateEndpointOperationMetadata,
    "UpdateEndpointLongRunning": UpdateEndpointOperationMetadata,
    "DeleteEndpoint": DeleteOperationMetadata,
    "DeployModel": DeployModelOperationMetadata,
    "UndeployModel": UndeployModelOperationMetadata,
    "MutateDeployedModel": MutateDeployedModelOperationMetadata,
}


class Stopped(Exception):
    """The local cloud stops while an operation runs; the operation continues at the next start."""


@dataclass
class Task:
    """The work of one operation: its request, the choices made when it began, and an event to stop it.

    ``plan`` holds JSON values, such as an id chosen at the beginning, so that a second run does the same.
    """

    name: str
    method: str
    title: str
    request: str
    plan: dict[str, Any]
    stop: threading.Event = field(default_factory=threading.Event)
    settled: threading.Event = field(default_factory=threading.Event)
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True
        self.stop.set()

    def check(self) -> None:
        """Raises when the operation was cancelled or the cloud goes down."""
        if self.cancelled:
            raise ServiceFailure("CANCELLED", "The operation was cancelled.")
        if self.stop.is_set():
            raise Stopped


# Does an operation's work and returns its response; after a restart it runs again, so it must bear repeating.
Work = Callable[[Task], Any]


class Operations:
    """Runs the work of long-running operations and keeps the results."""

    def __init__(self, records: Records, clock: Clock, faults: FaultBook) -> None:
        self._records = records
        self._clock = clock
        self._faults = faults
        self._works: dict[str, Work] = {}
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="operation")
        self._running: dict[str, Task] = {}

    def register(self, works: Mapping[str, Work]) -> None:
        self._works.update(works)

    def resume(self) -> None:
        """Continue the operations that an earlier process left unfinished."""
        for text in self._records.all(_KIND):
            record = json.loads(text)
            if not record["operation"].get("done"):
                self._submit(Task(record["operation"]["name"], **record["task"]))

    def stop(self) -> None:
        for task in list(self._running.values()):
            task.stop.set()
        self._pool.shutdown(wait=True)

    @property
    def lock(self) -> threading.RLock:
        """A lock to hold from the check for existing and running work until ``begin``.

        With it one of two equal calls is refused.
        """
        return self._records.lock

    def begin(self, method: str, resource: str, request: Any, plan: dict[str, Any], title: str) -> Task:
        """Record an operation on ``resource`` and start it."""
        task = Task(
            f"{resource}/operations/{new_number()}", method, title, type(request).to_json(request), plan
        )
        now = self._clock.now()
        metadata = _METADATA[method](generic_metadata={"create_time": now, "update_time": now})
        operation = operations_pb2.Operation(name=task.name)
        operation.metadata.Pack(bare(metadata))
        self._write(task, operation)
        self._submit(task)
        return task

    def first_answer(self, task: Task) -> Any:
        """The answer to the call that began it: the operation, already done if its work is short."""
        task.settled.wait(_PROMPT_SECONDS)
        return self.read(task.name)

    def busy(self, method: str, key: str, value: str) -> bool:
        """Whether an unfinished operation of this method has ``plan[key] == value``."""
        return any(
            task.method == method and task.plan.get(key) == value for task in list(self._running.values())
        )

    def running(self, name: str) -> Task | None:
        return self._running.get(name)

    def read(self, name: str) -> Any:
        """The operation of this name; raises NOT_FOUND."""
        text = self._records.get(_KIND, canonical(name)) or self._find_by_number(name)
        if text is None:
            raise not_found("Operation", name)
        return _parse(text)

    def under(self, parent: str) -> list[Any]:
        """Every operation on a resource, or in a location, oldest first."""
        return [_parse(text) for text in self._records.all(_KIND, canonical(parent) + "/")]

    def delete(self, name: str) -> None:
        self._records.delete(_KIND, name)

    def _submit(self, task: Task) -> None:
        self._running[task.name] = task
        self._pool.submit(self._work, task).add_done_callback(lambda future: self._settle(task, future))

    def _work(self, task: Task) -> Any:
        fault = self._faults.take("operation-fails", f"{task.method}/{task.title}")
        if fault is not None:
            self._clock.sleep(fault.parameters["seconds"], task.stop)
            task.check()
            raise ServiceFailure("INTERNAL", "Internal error encountered. Please try again.")
        return self._works[task.method](task)

    def _settle(self, task: Task, future: Future[Any]) -> None:
        """Record the result of the work; nothing is recorded for work that was stopped with the cloud."""
        error = future.exception()
        with self._records.lock:
            if not isinstance(error, Stopped):
                self._record_end(task, error, future)
            self._running.pop(task.name, None)
        task.settled.set()

    def _record_end(self, task: Task, error: BaseException | None, future: Future[Any]) -> None:
        operation = self.read(task.name)
        operation.done = True
        metadata = _METADATA[task.method].pb(_METADATA[task.method]())
        operation.metadata.Unpack(metadata)
        metadata.generic_metadata.update_time.FromDatetime(self._clock.now())
        operation.metadata.Pack(metadata)
        if error is None:
            operation.response.Pack(bare(future.result()))
        elif isinstance(error, ServiceFailure):
            operation.error.CopyFrom(error.status())
        else:
            operation.error.CopyFrom(ServiceFailure("INTERNAL", f"{type(error).__name__}: {error}").status())
        self._write(task, operation)

    def _write(self, task: Task, operation: Any) -> None:
        record = {
            "operation": json_format.MessageToDict(operation),
            "task": {"method": task.method, "title": task.title, "request": task.request, "plan": task.plan},
        }
        self._records.put(_KIND, operation.name, json.dumps(record))

    def _find_by_number(self, name: str) -> str | None:
        """An operation is also known as LOCATION/operations/NUMBER, without its resource."""
        location, _, number = canonical(name).partition("/operations/")
        for text in self._records.all(_KIND, location + "/"):
            if json.loads(text)["operation"]["name"].endswith(f"/operations/{number}"):
                return text
        return None


def _parse(text: str) -> Any:
    return json_format.ParseDict(json.loads(text)["operation"], operations_pb2.Operation())


def canonical(name: str) -> str:
    """A resource name with its project's number."""
    parts = name.split("/")
    if len(parts) > 1:
        parts[1] = project_number(parts[1])
    return "/".join(parts)
