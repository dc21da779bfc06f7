"""Text encoding as StableDiffusionPipeline does it, batched, with a cache of the texts encoded last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from handler.contract.job import CutText, Job, LoraWeight
from handler.engine.loras import Asked, RowLoras
from handler.engine.ticket import Prompts
from handler.model.model import Model


class EncodedText(NamedTuple):
    """(1, tokens, width), and the end of the text that was cut off."""

    states: torch.Tensor
    cut: CutText | None


class Text(NamedTuple):
    """A text, and the LoRAs that change how it is encoded."""

    words: str
    loras: tuple[LoraWeight, ...]


class PromptEncoder:
    """Encodes the texts of jobs and keeps the last ``cache_size``, the empty negative prompt among them."""

    def __init__(self, model: Model, cache_size: int, one_by_one: bool) -> None:
        self._model = model
        self._cache_size = cache_size
        self._one_by_one = one_by_one
        self._cache: OrderedDict[tuple[Text, bool], EncodedText] = OrderedDict()
        self._guidance_embedded = model.guidance_width is not None
        loras = {name: lora.text_encoder for name, lora in model.loras.items()}
        self._loras = RowLoras(model.text_encoder, loras)

    def encode(self, jobs: Sequence[Job], alone: bool) -> list[Prompts]:
        """One entry per job. ``alone``: nothing else is live, so one row a call, as in the pipeline."""
        # Rows encoded together differ from a lone row in the last bits, so the two never share a cache entry.
        exact = self._one_by_one or (alone and len(jobs) == 1)
        positive = self._texts([self._text(job.prompt, job) for job in jobs], exact)
        guided = [job for job in jobs if self.guides(job)]
        negative = self._texts([self._text(job.negative_prompt, job) for job in guided], exact)
        encoded = []
        for job in jobs:
            texts = {"prompt": positive[self._text(job.prompt, job)]}
            if self.guides(job):
                texts["negative_prompt"] = negative[self._text(job.negative_prompt, job)]
            encoded.append(_prompts(texts))
        self._trim()
        return encoded

    def guides(self, job: Job) -> bool:
        """Classifier-free guidance asked for, and not already inside the UNet (distilled LCM)."""
        return job.guidance_scale > 1 and not self._guidance_embedded

    def _text(self, words: str, job: Job) -> Text:
        return Text(words, tuple(LoraWeight(*one) for one in self._loras.chosen(job.loras).items()))

    def _texts(self, texts: Sequence[Text], exact: bool) -> dict[Text, EncodedText]:
        missing = [text for text in dict.fromkeys(texts) if (text, exact) not in self._cache]
        batches = [[text] for text in missing] if exact else [missing] if missing else []
        for batch in batches:
            rows = self._run([text.words for text in batch], [text.loras for text in batch])
            for text, row in zip(batch, rows.unsqueeze(1)):
                # A copy: a view would keep the whole batch's memory alive.
                self._cache[text, exact] = EncodedText(row.clone(), self._cut(text.words))
        for text in texts:
            self._cache.move_to_end((text, exact))
        return {text: self._cache[text, exact] for text in texts}

    def _run(self, texts: list[str], loras: Sequence[Asked]) -> torch.Tensor:
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
        with self._loras.added(loras):
            encoded: torch.Tensor = text_encoder(
                tokens.input_ids.to(self._model.device), attention_mask=mask
            )[0]
        return encoded.to(text_encoder.dtype)

    def _cut(self, text: str) -> CutText | None:
        """What ``_run`` cuts off, found as StableDiffusionPipeline.encode_prompt finds it."""
        tokenizer = self._model.tokenizer
        ids = tokenizer(text, truncation=False).input_ids
        if len(ids) <= (most := tokenizer.model_max_length):
            return None
        special = tokenizer.num_special_tokens_to_add()
        return CutText(len(ids) - special, most - special, str(tokenizer.decode(ids[most - 1 : -1])).strip())

    def _trim(self) -> None:
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)


def _prompts(texts: Mapping[str, EncodedText]) -> Prompts:
    negative = texts.get("negative_prompt")
    cut_texts = {name: text.cut for name, text in texts.items() if text.cut is not None}
    return Prompts(texts["prompt"].states, None if negative is None else negative.states, cut_texts)
