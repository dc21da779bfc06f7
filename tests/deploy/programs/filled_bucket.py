"""A bucket filled with all of a folder, as `gsutil cp -r` does it: the archive among other files."""

import base64
import os
import sys
from pathlib import Path

from google.cloud import aiplatform, storage

folder = Path(sys.argv[1])
aiplatform.init(project="marquee-local", location="us-central1")
bucket = storage.Client(project="marquee-local").create_bucket("marquee-local-filled", location="us-central1")
for file in sorted(path for path in folder.rglob("*") if path.is_file()):
    bucket.blob(f"{folder.name}/{file.relative_to(folder)}").upload_from_filename(str(file))
model = aiplatform.Model.upload(
    display_name="from-a-filled-bucket",
    serving_container_image_uri="us-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.2-4:latest",
    artifact_uri=f"gs://{bucket.name}/{folder.name}",
)
endpoint = aiplatform.Endpoint.create(display_name="filled", dedicated_endpoint_enabled=True)
model.deploy(
    endpoint=endpoint,
    machine_type="n1-standard-8",
    accelerator_type="NVIDIA_TESLA_P100",
    accelerator_count=1,
    sync=True,
)
response = endpoint.predict(instances=[{"prompt": "a red circle on a blue background", "seed": 1}])
with open(os.environ["PICTURE"], "wb") as out:
    out.write(base64.b64decode(response.predictions[0]))
endpoint.undeploy_all()
endpoint.delete()
model.delete()
