"""Likelihoods straight from a model's file: ONNX Runtime's own package for Python, and no server."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from tokenizers import Tokenizer


class Scorer:
    """A decoder as `cqil import --dtype fp32` writes it, run over whole sequences at once."""

    def __init__(self, folder: Path) -> None:
        (graph,) = folder.glob("onnx/*.onnx")
        options = SessionOptions()
        options.intra_op_num_threads = 1
        self._session = InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def logprobs(self, tokens: list[int]) -> NDArray[np.float64]:
        """Of each token but the first, given those before it; natural logarithms, one fewer than tokens."""
        (logits,) = self._session.run(["logits"], self._feeds(tokens))
        scores = logits[0, :-1].astype(np.float64)
        scores -= scores.max(axis=-1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
        return scores[np.arange(len(tokens) - 1), tokens[1:]]

    def continuation(self, context: str, continuation: str) -> float:
        """The log-likelihood of a continuation; it has the spaces that the context ends with, and the pair's tokens."""
        room = len(context) - len(context.rstrip())
        context, continuation = context[: len(context) - room], context[len(context) - room :] + continuation
        start = len(self.encode(context))
        return float(self.logprobs(self.encode(context + continuation))[start - 1 :].sum())

    def text(self, text: str, first: int, window: int) -> float:
        """
        The log-likelihood of a text after a first token, in windows of so many tokens to predict.

        A window that would begin afresh begins with the last token of the one before it; the last window is as long
        as the others, and predicts only what they have not.
        """
        tokens = [first, *self.encode(text)]
        total, known = 0.0, 1
        while known < len(tokens):
            end = min(known + window, len(tokens))
            start = max(end - window - 1, 0)
            total += float(self.logprobs(tokens[start:end])[known - start - 1 :].sum())
            known = end
        return total

    def _feeds(self, tokens: list[int]) -> dict[str, NDArray[np.generic]]:
        """The sequence, no cache before it, and all logits asked for."""
        feeds: dict[str, NDArray[np.generic]] = {
            "input_ids": np.array([tokens], np.int64),
            "attention_mask": np.ones((1, len(tokens)), np.int64),
            "num_logits_to_keep": np.array(0, np.int64),
        }
        for given in self._session.get_inputs():
            if given.name.startswith("past_key_values."):
                _, heads, _, size = given.shape
                feeds[given.name] = np.zeros((1, heads, 0, size), np.float32)
        return feeds
