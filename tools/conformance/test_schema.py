"""schemathesis: requests made from OpenAI's description, good and bad, and answers held to it.

`test_served`: requests of what the server says it answers (`served.py`), at every bound and at random. Good ones are
answered as described, bad ones refused. `test_described`: anything that OpenAI describes; what is not served is
refused, with a status and an error that are described.
"""

import json
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import schemathesis
from conftest import KEY, TESTDATA, TINY, TOOLS, URL
from schemathesis import Case, Response
from schemathesis.checks import CheckContext, CheckFunction, not_a_server_error
from schemathesis.specs.openapi import checks
from served import REQUESTS, STREAMS, request_schema, served, stream_schema, with_streams

Json = dict[str, Any]

FULL: Json = json.loads((TESTDATA / "openai/openapi.json").read_text("utf-8"))


def configured(phases: tuple[str, ...], examples: int) -> schemathesis.Config:
    """The same requests in every run: from one seed, and whatever was answered before."""
    found_out = {"extra-data-sources": {"responses": False}, "error-feedback": {"enabled": False}}
    return schemathesis.Config.from_dict(
        {
            "base-url": f"{URL}/v1",
            "headers": {"Authorization": f"Bearer {KEY}"},
            "seed": 1,
            "request-timeout": 60,
            # No answer has as many tokens: a stream of more events would be one that does not end.
            "max-stream-events": 64,
            "generation": {"deterministic": True, "max-examples": examples, "database": "none"},
            "phases": {
                "examples": {"enabled": False},
                "coverage": {
                    "enabled": "coverage" in phases,
                    "extra-data-sources": found_out["extra-data-sources"],
                },
                "fuzzing": {"enabled": "fuzzing" in phases, **found_out},
                "stateful": {"enabled": False},
            },
        }
    )


SPEC = with_streams(FULL)
SERVED = schemathesis.openapi.from_dict(served(SPEC), config=configured(("coverage", "fuzzing"), 30))
REAL = schemathesis.openapi.from_dict(served(SPEC), config=configured(("fuzzing",), 5))
DESCRIBED = schemathesis.openapi.from_dict(SPEC, config=configured(("fuzzing",), 40))

# What each parameter must be by itself.
PARAMETERS = {
    path: {
        name: jsonschema_rs.validator_for({**schema, "components": SPEC["components"]})
        for name, schema in request_schema(served(SPEC), path)["properties"].items()
    }
    for path in REQUESTS
}
EVENTS = {path: jsonschema_rs.validator_for(stream_schema(FULL, path)) for path in STREAMS}


def stream_conformance(_context: CheckContext, response: Response, case: Case) -> None:
    """Every event of a stream is as described; the streams of the older interfaces end with a word."""
    if not response.headers.get("content-type", [""])[0].startswith("text/event-stream"):
        return
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    if case.operation.path != "/responses":
        assert events.pop() == "[DONE]"
    assert events, "a stream of nothing"
    for event in events:
        EVENTS[case.operation.path].validate(json.loads(event))


ALWAYS: list[CheckFunction] = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    stream_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]


# Where to say how many tokens an answer may have.
LIMITS = {
    "/chat/completions": "max_completion_tokens",
    "/completions": "max_tokens",
    "/responses": "max_output_tokens",
}


@SERVED.parametrize()
def test_served(case: Case) -> None:
    adapt(case, TINY)
    case.call_and_validate(checks=[*ALWAYS, checks.positive_data_acceptance])


@REAL.parametrize()
def test_served_by_the_real_model(case: Case) -> None:
    adapt(case, TOOLS)
    case.call_and_validate(checks=[*ALWAYS, checks.positive_data_acceptance])


@DESCRIBED.parametrize()
def test_described(case: Case) -> None:
    adapt(case, TINY)
    case.call_and_validate(checks=[*ALWAYS, checks.ignored_auth])


def adapt(case: Case, model: str) -> None:
    """Asks a model that is there for few tokens, the same in every run, where the request asks some model for some."""
    body = case.body
    positive = case.meta is not None and case.meta.generation.mode.is_positive
    if positive and "model" in case.path_parameters:
        case.path_parameters["model"] = model
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str):
        body["model"] = model
    limit = LIMITS.get(case.operation.path)
    if limit is not None and not any(name in body for name in LIMITS.values()):
        body[limit] = None
    if limit is not None and body.get("seed") is None:
        body["seed"] = 1
    for name in LIMITS.values():
        if name in body and asks_for_more(body[name]):
            body[name] = 2
    if body.get("n") in range(3, 9):
        body["n"] = 2
    parameters = PARAMETERS.get(case.operation.path, {})
    agree(body, lambda name: name in body and name in parameters and parameters[name].is_valid(body[name]))


def asks_for_more(limit: object) -> bool:
    """Than two tokens; what is no number of tokens is left for the server to refuse."""
    return limit is None or (isinstance(limit, (int, float)) and limit > 2 and float(limit).is_integer())


def agree(body: Json, right: Callable[[str], bool]) -> None:
    """
    Makes parameters fit together that OpenAI's description looks at one by one, and schemas some that can be held to.

    What is not right by itself stays as it is, for the server to refuse; what else is there is to be no reason for it.
    """
    if right("tools"):
        for tool in body["tools"] or []:
            function = tool.get("function", tool)
            if function.get("parameters") is not None:
                function["parameters"] = {"type": "object"}
    for name, member in (("response_format", "json_schema"), ("text", "format")):
        if right(name) and "schema" in ((body[name] or {}).get(member) or {}):
            body[name][member]["schema"] = {"type": "object"}
    if body.get("stream") is not True and right("stream_options"):
        del body["stream_options"]
    if (
        "messages" in body
        and body.get("top_logprobs") is not None
        and (right("logprobs") or "logprobs" not in body)
    ):
        body["logprobs"] = True
    if right("max_completion_tokens") and right("max_tokens"):
        del body["max_tokens"]
    if body.get("tool_choice") == "required":
        for name in ("response_format", "text"):
            if right(name):
                del body[name]
        if "tools" not in body or (right("tools") and not body["tools"]):
            del body["tool_choice"]
    # The first token of an echo has the log probability `null`, which OpenAI's description leaves out.
    if body.get("logprobs") is not None and right("echo"):
        body["echo"] = False
