"""The four steps of the public tutorial, with Google's SDK alone: nothing here knows of marquee.

The archive is the prebuilt container's: marquee build --container vertex-pytorch-gpu-2-4
Against Google (charged): PROJECT=my-project BUCKET=my-bucket python docs/four_steps.py
Against the local cloud:  marquee cloud run -- python docs/four_steps.py
"""

import base64
import os

from google.cloud import aiplatform, storage

PROJECT = os.environ.get("PROJECT", "marquee-local")
REGION = os.environ.get("REGION", "us-central1")
BUCKET = os.environ.get("BUCKET", f"{PROJECT}-tutorial")
ARCHIVE = os.environ.get("ARCHIVE", "model_artifacts/model.mar")
PICTURE = os.environ.get("PICTURE", "four_steps.jpg")
PROMPT = os.environ.get("PROMPT", "a red circle on a blue background")

aiplatform.init(project=PROJECT, location=REGION, staging_bucket=BUCKET)

# 1. The archive goes to Cloud Storage, as model.mar in a folder of its own.
client = storage.Client(project=PROJECT)
bucket = client.lookup_bucket(BUCKET) or client.create_bucket(BUCKET, location=REGION)
bucket.blob("stable-diffusion/model.mar").upload_from_filename(ARCHIVE)

# 2. The model is registered with the prebuilt PyTorch container.
model = aiplatform.Model.upload(
    display_name="stable-diffusion",
    description="Stable Diffusion 1.5 in TorchServe",
    serving_container_image_uri="us-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.2-4:latest",
    artifact_uri=f"gs://{BUCKET}/stable-diffusion",
)

# 3. It is deployed to an endpoint with one GPU.
endpoint = aiplatform.Endpoint.create(display_name="stable-diffusion")
model.deploy(
    endpoint=endpoint,
    deployed_model_display_name="stable-diffusion",
    machine_type="n1-standard-8",
    accelerator_type="NVIDIA_TESLA_P100",
    accelerator_count=1,
    traffic_percentage=100,
    deploy_request_timeout=1200,
    sync=True,
)

# 4. It draws.
response = endpoint.predict(instances=[{"prompt": PROMPT, "seed": 1}])
with open(PICTURE, "wb") as file:
    file.write(base64.b64decode(response.predictions[0]))
print(f"{PICTURE}: {PROMPT}, by deployed model {response.deployed_model_id}")

# A deployed model is charged by the hour, used or not: endpoint.delete(force=True); model.delete()
