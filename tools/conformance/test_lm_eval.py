"""lm-eval's `local-completions`: tasks scored through the server (`echo` and `logprobs`) as straight from the file."""

import math
import os
from collections.abc import Iterator
from typing import Any

# Before anything that looks for a hub is imported.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import pytest
from conftest import EXACT, EXACT_FOLDER, KEY, TESTDATA, URL
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from scoring import Scorer

TASKS = TESTDATA / "lm-eval"
# Texts are longer than this: they are scored in several windows.
MAX_LENGTH = 32
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        # Tasks name their files relative to where lm-eval is run.
        patch.chdir(TASKS)
        patch.setenv("OPENAI_API_KEY", KEY)
        yield simple_evaluate(
            model="local-completions",
            model_args={
                "model": EXACT,
                "base_url": f"{URL}/v1/completions",
                "tokenizer_backend": "huggingface",
                "tokenizer": str(EXACT_FOLDER),
                "max_length": MAX_LENGTH,
            },
            batch_size=4,
            tasks=["cqil_cloze", "cqil_prose"],
            task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
            bootstrap_iters=0,
        )


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(EXACT_FOLDER)


def test_multiple_choice(results: dict[str, Any], scorer: Scorer) -> None:
    right = 0
    samples = results["samples"]["cqil_cloze"]
    assert len(samples) == 8
    for sample in samples:
        direct = []
        for arguments, ((told, _),) in zip(sample["arguments"], sample["resps"], strict=True):
            direct.append(scorer.continuation(*arguments))
            assert told == pytest.approx(direct[-1], abs=TOLERANCE)
        right += direct.index(max(direct)) == sample["doc"]["answer"]
    assert results["results"]["cqil_cloze"]["acc,none"] == right / len(samples)
    # A model that knows nothing gets two of eight.
    assert right >= 5


def test_rolling(results: dict[str, Any], scorer: Scorer) -> None:
    total, size = 0.0, 0
    (first,) = scorer.encode("<|im_start|>")
    samples = results["samples"]["cqil_prose"]
    assert len(samples) == 3
    for sample in samples:
        text = sample["doc"]["text"]
        direct = scorer.text(text, first, MAX_LENGTH - 2)
        assert sample["resps"][0][0] == pytest.approx(direct, abs=TOLERANCE)
        total += direct
        size += len(text.encode())
    told = results["results"]["cqil_prose"]
    assert told["byte_perplexity,none"] == pytest.approx(math.exp(-total / size), abs=TOLERANCE)
    assert told["bits_per_byte,none"] == pytest.approx(-total / size / math.log(2), abs=TOLERANCE)
