"""The public tutorial's handler as a baseline: TorchServe, one prompt at a time, one pipeline call each."""

import torch

from drawing import draw, load  # TorchServe lays both files side by side


class TutorialHandler:
    def initialize(self, context):
        self.pipe = load(context.system_properties["model_dir"] + "/model")

    @torch.inference_mode()
    def handle(self, data, context):
        return [picture for ask in data for picture in draw(self.pipe, [ask])]
