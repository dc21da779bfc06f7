"""Text encoding as StableDiffusionPipeline does it, batched, with a cache of what was encoded lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from handler.contract.job import Job
from handler.engine.ticket import Prompts
from handler.model.model import Model


class PromptEncoder:
    """Encodes the texts of jobs and keeps the last ``cache_size``, the empty negative prompt among them."""

    def __init__(self, model: Model, cache_size: int, one_by_one: bool) -> None:
        self._model = model
        self._cache_size = cache_size
        self._one_by_one = one_by_one
        self._cache: OrderedDict[tuple[str, bool], torch.Tensor] = OrderedDict()
        self._guidance_embedded = model.guidance_width is not None

    def encode(self, jobs: Sequence[Job], alone: bool) -> list[Prompts]:
        """One entry per job. ``alone``: nothing else is live, so one row a call, as in the pipeline."""
        # Rows encoded together differ from a lone row in the last bits, so the two never share a cache entry.
        exact = self._one_by_one or (alone and len(jobs) == 1)
        positive = self._texts([job.prompt for job in jobs], exact)
        guided = [job for job in jobs if self.guides(job)]
        negative = self._texts([job.negative_prompt for job in guided], exact)
        encoded = [
            Prompts(positive[job.prompt], negative[job.negative_prompt] if self.guides(job) else None)
            for job in jobs
        ]
        self._trim()
        return encoded

    def guides(self, job: Job) -> bool:
        """Classifier-free guidance asked for, and not already inside the UNet (distilled LCM)."""
        return job.guidance_scale > 1 and not self._guidance_embedded

    def _texts(self, texts: Sequence[str], exact: bool) -> dict[str, torch.Tensor]:
        missing = [text for text in dict.fromkeys(texts) if (text, exact) not in self._cache]
        batches = [[text] for text in missing] if exact else [missing] if missing else []
        for batch in batches:
            for text, row in zip(batch, self._run(batch).unsqueeze(1)):
                # A copy: a view would keep the whole batch's memory alive.
                self._cache[text, exact] = row.clone()
        for text in texts:
            self._cache.move_to_end((text, exact))
        return {text: self._cache[text, exact] for text in texts}

    def _run(self, texts: list[str]) -> torch.Tensor:
        tokenizer, text_encoder = self._model.tokenizer, self._model.text_encoder
        tokens = tokenizer(
            texts,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        mask = None
        if getattr(text_encoder.config, "use_attention_mask", False):
            mask = tokens.attention_mask.to(self._model.device)
        encoded: torch.Tensor = text_encoder(tokens.input_ids.to(self._model.device), attention_mask=mask)[0]
        return encoded.to(text_encoder.dtype)

    def _trim(self) -> None:
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
