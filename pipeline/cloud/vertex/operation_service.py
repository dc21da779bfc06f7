"""The services that every client has: longrunning.Operations, location.Locations, iam.v1.IAMPolicy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.cloud.location import locations_pb2
from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from pipeline.cloud.faults import FaultBook
from pipeline.cloud.vertex.calls import Call, Handler
from pipeline.cloud.vertex.failures import refused
from pipeline.cloud.vertex.listing import page
from pipeline.cloud.vertex.names import read_location
from pipeline.cloud.vertex.operations import Operations
from pipeline.rules import table

_DEFAULT_WAIT_SECONDS = 30.0


class OperationService:
    """The calls about long-running operations."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "Operations.GetOperation": self.get,
            "Operations.ListOperations": self.list,
            "Operations.WaitOperation": self.wait,
            "Operations.CancelOperation": self.cancel,
            "Operations.DeleteOperation": self.delete,
        }

    def get(self, request: Any, _: Call) -> Any:
        return self._operations.read(request.name)

    def list(self, request: Any, _: Call) -> Any:
        found = self._operations.under(request.name)
        kept, token = page(found, request.page_size, request.page_token, request.filter)
        return operations_pb2.ListOperationsResponse(operations=kept, next_page_token=token)

    def wait(self, request: Any, _: Call) -> Any:
        """The operation once it is done, or in its present state when the timeout is over."""
        operation = self._operations.read(request.name)
        task = self._operations.running(operation.name)
        if task is not None:
            has_timeout = request.HasField("timeout")
            seconds = request.timeout.ToTimedelta().total_seconds() if has_timeout else _DEFAULT_WAIT_SECONDS
            task.settled.wait(seconds)
        return self._operations.read(operation.name)

    def cancel(self, request: Any, _: Call) -> Any:
        task = self._operations.running(self._operations.read(request.name).name)
        if task is not None:
            task.cancel()
        return empty_pb2.Empty()

    def delete(self, request: Any, _: Call) -> Any:
        operation = self._operations.read(request.name)
        if not operation.done:
            raise refused(f"Operation {request.name} is not done; cancel it first.")
        self._operations.delete(operation.name)
        return empty_pb2.Empty()


def list_locations(request: Any, _: Call) -> Any:
    locations = [_location(f"{request.name}/locations/{region}") for region in table().regions]
    kept, token = page(locations, request.page_size, request.page_token)
    return locations_pb2.ListLocationsResponse(locations=kept, next_page_token=token)


def get_location(request: Any, _: Call) -> Any:
    read_location(request.name)
    return _location(request.name)


def _location(name: str) -> Any:
    return locations_pb2.Location(name=name, location_id=name.rpartition("/")[2])


class Permissions:
    """IAM as callers see it: everything is allowed unless the fault ``permission-denied`` is set."""

    def __init__(self, faults: FaultBook) -> None:
        self._faults = faults

    def handlers(self) -> Mapping[str, Handler]:
        return {"IAMPolicy.TestIamPermissions": self.test, "IAMPolicy.GetIamPolicy": self.get_policy}

    def test(self, request: Any, _: Call) -> Any:
        denied = any(fault.name == "permission-denied" and fault.count != 0 for fault in self._faults.all())
        permissions = [] if denied else request.permissions
        return iam_policy_pb2.TestIamPermissionsResponse(permissions=permissions)

    def get_policy(self, request: Any, _: Call) -> Any:
        return policy_pb2.Policy(version=1)
