"""Google's rules, as data and as functions of plain values and a date.

The local cloud refuses calls with these violations; the configuration, the plan and the doctor report them
beforehand.
"""

from pipeline.rules.deployments import (
    Deployment,
    check_deploy,
    check_endpoint_delete,
    check_model_delete,
    check_traffic,
    check_undeploy,
    check_version_delete,
)
from pipeline.rules.images import PrebuiltImage, check_image, parse_prebuilt
from pipeline.rules.payloads import check_request_size, check_response_size, predict_timeout
from pipeline.rules.prices import Price, replica_price
from pipeline.rules.table import Rule, Table, Violation, table
from pipeline.rules.uploads import (
    ARCHIVE_NAME,
    Upload,
    check_artifact_uri,
    check_display_name,
    check_endpoint_create,
    check_labels,
    check_model_directory,
    check_region,
    check_upload,
)

__all__ = [
    "ARCHIVE_NAME",
    "Deployment",
    "PrebuiltImage",
    "Price",
    "Rule",
    "Table",
    "Upload",
    "Violation",
    "check_artifact_uri",
    "check_deploy",
    "check_display_name",
    "check_endpoint_create",
    "check_endpoint_delete",
    "check_image",
    "check_labels",
    "check_model_delete",
    "check_model_directory",
    "check_region",
    "check_request_size",
    "check_response_size",
    "check_traffic",
    "check_undeploy",
    "check_upload",
    "check_version_delete",
    "parse_prebuilt",
    "predict_timeout",
    "replica_price",
    "table",
]
