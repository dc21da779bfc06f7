"""A folder of this machine as artifact_uri, which the SDK stages into a bucket; then all is deleted."""

import base64
import os
import sys

from google.cloud import aiplatform, storage

storage.Client(project="marquee-local").create_bucket("marquee-local-staging", location="us-central1")
aiplatform.init(project="marquee-local", location="us-central1", staging_bucket="gs://marquee-local-staging")
model = aiplatform.Model.upload(
    display_name="from-a-folder",
    serving_container_image_uri="us-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.2-4:latest",
    artifact_uri=sys.argv[1],
)
endpoint = model.deploy(
    machine_type="n1-standard-8", accelerator_type="NVIDIA_TESLA_T4", accelerator_count=1, sync=True
)
response = endpoint.predict(instances=[{"prompt": "a red circle on a blue background", "seed": 1}])
with open(os.environ["PICTURE"], "wb") as file:
    file.write(base64.b64decode(response.predictions[0]))
endpoint.delete(force=True)
model.delete()
