"""
OpenAI's own client for Python, against the real model.

Where two answers must be the same word for word the model is the one in float32: in 4 bits, what is read at once and
what is read token by token differ by more than rounding, and near ties fall one way or the other.
"""

import asyncio
import json
import math
import urllib.request
from typing import Literal

import openai
import pytest
from conftest import EXACT, KEY, REAL, TOOLS, URL
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

CLIENT = OpenAI(api_key=KEY, base_url=f"{URL}/v1", max_retries=0)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
SHORT = {"temperature": 0, "max_tokens": 8}


class City(BaseModel):
    name: Literal["Paris", "Rome"]
    size: int = Field(ge=1, le=9)


class Weather(BaseModel):
    """The weather in a city"""

    city: Literal["Paris", "Rome"]


def ask(**more: object) -> str:
    answer = CLIENT.chat.completions.create(model=EXACT, messages=QUESTION, **SHORT, **more)
    return answer.choices[0].message.content


def test_models() -> None:
    names = [model.id for model in CLIENT.models.list()]
    assert REAL in names
    assert CLIENT.models.retrieve(REAL).id == REAL


def test_chat_streamed_is_chat_whole() -> None:
    whole = CLIENT.chat.completions.create(model=EXACT, messages=QUESTION, **SHORT)
    assert "Paris" in whole.choices[0].message.content
    with CLIENT.chat.completions.stream(
        model=EXACT, messages=QUESTION, stream_options={"include_usage": True}, **SHORT
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert len(deltas) > 2
    assert "".join(deltas) == final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason
    assert final.usage.completion_tokens == whole.usage.completion_tokens <= 8


def test_chat_logprobs_and_choices() -> None:
    answer = CLIENT.chat.completions.create(
        model=REAL, messages=QUESTION, n=2, seed=1, max_tokens=6, logprobs=True, top_logprobs=3
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        tokens = choice.logprobs.content
        assert bytes(byte for token in tokens for byte in token.bytes).decode() == choice.message.content
        for token in tokens:
            assert len(token.top_logprobs) == 3
            assert sum(math.exp(one.logprob) for one in token.top_logprobs) <= 1 + 1e-6


def test_stop_and_seed() -> None:
    text = ask()
    stop = text[10:14]
    assert ask(stop=stop) == text[: text.index(stop)]
    story = {"model": EXACT, "prompt": "Once upon a time", "max_tokens": 8, "temperature": 1.2}
    first, again, other = (
        CLIENT.completions.create(**story, seed=seed).choices[0].text for seed in (1, 1, 2)
    )
    assert first == again != other


def test_completion_echo_streamed_is_whole() -> None:
    request = {"model": EXACT, "prompt": ["The sea is", "Grüße aus"], "echo": True, "logprobs": 2}
    whole = CLIENT.completions.create(**request, **SHORT)
    for choice, prompt in zip(whole.choices, request["prompt"], strict=True):
        assert choice.text.startswith(prompt)
        assert choice.logprobs.token_logprobs[0] is None
        assert all(logprob <= 0 for logprob in choice.logprobs.token_logprobs[1:])
    texts = ["", ""]
    for chunk in CLIENT.completions.create(**request, **SHORT, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices]


def test_response_streamed_is_chat() -> None:
    request = {"model": EXACT, "input": QUESTION, "temperature": 0, "max_output_tokens": 8}
    whole = CLIENT.responses.create(**request)
    assert whole.output_text == ask()
    with CLIENT.responses.stream(**request) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.output_text == whole.output_text
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_json_schema() -> None:
    request = [{"role": "user", "content": "A city, as JSON."}]
    chat = CLIENT.chat.completions.parse(model=EXACT, messages=request, response_format=City, temperature=0)
    assert isinstance(chat.choices[0].message.parsed, City)
    response = CLIENT.responses.parse(model=EXACT, input=request, text_format=City, temperature=0)
    assert response.output_parsed == chat.choices[0].message.parsed


def test_json_object() -> None:
    text = CLIENT.chat.completions.create(
        model=REAL,
        messages=[{"role": "user", "content": "Say hello in JSON."}],
        response_format={"type": "json_object"},
        temperature=0,
        max_tokens=24,
    )
    if text.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text.choices[0].message.content), dict)
    else:
        assert text.choices[0].message.content.startswith("{")


def test_tools() -> None:
    request = {
        "model": TOOLS,
        "messages": [{"role": "user", "content": "How is the weather in Rome?"}],
        "tools": [openai.pydantic_function_tool(Weather)],
        "temperature": 0,
        "tool_choice": {"type": "function", "function": {"name": "Weather"}},
    }
    whole = CLIENT.chat.completions.parse(**request).choices[0]
    assert whole.finish_reason == "tool_calls"
    (call,) = whole.message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)
    with CLIENT.chat.completions.stream(**request) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert isinstance(streamed.message.tool_calls[0].function.parsed_arguments, Weather)
    answer = {"role": "tool", "tool_call_id": call.id, "content": "sun"}
    told = [*request["messages"], whole.message.to_dict(), answer]
    final = CLIENT.chat.completions.create(
        model=TOOLS, messages=told, tools=request["tools"], tool_choice="none", **SHORT
    )
    assert final.choices[0].message.content


def test_tools_of_a_response() -> None:
    response = CLIENT.responses.parse(
        model=TOOLS,
        input="How is the weather in Rome?",
        tools=[openai.pydantic_function_tool(Weather)["function"] | {"type": "function"}],
        tool_choice="required",
        temperature=0,
    )
    (call,) = response.output
    assert call.type == "function_call"
    Weather.model_validate_json(call.arguments)


def test_requests_together_are_answered_as_alone() -> None:
    prompts = ["The sea is", "Once upon a time", "def add(a, b):", "In 1969, man"]
    request = {"model": EXACT, "max_tokens": 6, "temperature": 0}

    async def together() -> list[str]:
        async with AsyncOpenAI(api_key=KEY, base_url=f"{URL}/v1", max_retries=0) as client:
            answers = await asyncio.gather(
                *(client.completions.create(prompt=prompt, **request) for prompt in prompts)
            )
        return [answer.choices[0].text for answer in answers]

    alone = [CLIENT.completions.create(prompt=prompt, **request).choices[0].text for prompt in prompts]
    assert asyncio.run(together()) == alone


def test_a_stream_left_early_makes_room() -> None:
    with CLIENT.completions.create(model=REAL, prompt="Once", max_tokens=4000, stream=True) as stream:
        next(iter(stream))
    assert CLIENT.with_options(timeout=20).completions.create(model=REAL, prompt="Once", max_tokens=2).choices


def test_errors_are_those_of_the_client() -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        CLIENT.chat.completions.create(model="none", messages=QUESTION)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as hot:
        ask(top_p=5)
    assert hot.value.param == "top_p"
    with pytest.raises(openai.BadRequestError) as long:
        CLIENT.completions.create(model=REAL, prompt="x " * 9000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as picture:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
        CLIENT.chat.completions.create(model=REAL, messages=[{"role": "user", "content": [image]}])
    assert picture.value.code == "unsupported_parameter"
    with pytest.raises(openai.APIStatusError) as large:
        CLIENT.completions.create(model=REAL, prompt="x" * 2_000_000)
    assert large.value.status_code == 413
    with pytest.raises(openai.NotFoundError):
        CLIENT.embeddings.create(model=REAL, input="Grüße")


def test_keys() -> None:
    with pytest.raises(openai.AuthenticationError) as wrong:
        CLIENT.with_options(api_key="wrong").models.list()
    assert wrong.value.code == "invalid_api_key"
    with urllib.request.urlopen(f"{URL}/health") as health:
        assert health.status == 200
