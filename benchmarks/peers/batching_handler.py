"""TorchServe's own request batching as a baseline: equal settings that arrive together share a call."""

import torch

from drawing import draw, load  # TorchServe lays both files side by side


class BatchingHandler:
    def initialize(self, context):
        self.pipe = load(context.system_properties["model_dir"] + "/model")

    @torch.inference_mode()
    def handle(self, data, context):
        return draw(self.pipe, data)
