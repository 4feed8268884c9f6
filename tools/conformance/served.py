"""The part of OpenAI's requests that the server says it answers, as a description of its own.

Of a request with something that the server refuses (audio, hosted tools, stored conversations), no check learns more
than that it was refused, and OpenAI's description makes nearly every request such a one. So requests are narrowed to
the parameters and forms that `packages/plugin-openai/README.md` names; answers stay as OpenAI describes them. Where a
bound is in OpenAI's prose alone, it is written down here.

The server is more lenient than OpenAI's description in few places, on purpose: 20 log probabilities of a completion, or
`false`, as clients of the chat's interface say; fewer than 16 tokens of a response; a function without `parameters` and
`strict`; a seed of any size; a bias that is no whole number; `null` for whatever can be left out.

Left out beside what is refused: parameters that have no effect (`user`, `safety_identifier`, `prompt_cache_key`, …),
which are not looked at, and so not refused whatever they hold.
"""

import copy
from typing import Any

Json = dict[str, Any]

NAME = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}
TEXT = {"type": "string"}
TEXT_PART = {
    "type": "object",
    "properties": {"type": {"type": "string", "enum": ["text"]}, "text": TEXT},
    "required": ["type", "text"],
}
CONTENT = {"oneOf": [TEXT, {"type": "array", "minItems": 1, "items": TEXT_PART}]}
STOP = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "maxItems": 4, "items": {"type": "string", "minLength": 1}},
    ]
}
# One text, or several.
TEXTS = [
    {"type": "string", "minLength": 1},
    {"type": "array", "minItems": 1, "maxItems": 128, "items": {"type": "string", "minLength": 1}},
]
BIASES = {
    "type": "object",
    "propertyNames": {"pattern": "^[0-9]{1,2}$"},
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
}
# The smallest vocabulary of the models that are asked has 512 tokens.
TOKEN = {"type": "integer", "minimum": 0, "maximum": 511}
COUNT = {"type": "integer", "minimum": 1}
TOP_LOGPROBS = {"type": "integer", "minimum": 0, "maximum": 20}
CHOICES = {"type": "integer", "minimum": 1, "maximum": 8}
METADATA = {
    "type": "object",
    "maxProperties": 16,
    "propertyNames": {"maxLength": 64},
    "additionalProperties": {"type": "string", "maxLength": 512},
}
STREAM_OPTIONS = {
    "type": "object",
    "properties": {
        "include_usage": {"type": ["boolean", "null"]},
        "include_obfuscation": {"type": ["boolean", "null"]},
    },
}
# Which schemas can be held to is for the tests beside the code; here it is always the same one (`test_schema.py`).
OBJECT_SCHEMA = {"type": "object"}


def or_null(schema: Json) -> Json:
    """Any parameter can be `null`, which stands for its default; OpenAI's description says so of most."""
    return {"anyOf": [schema, {"type": "null"}]}


def record(required: list[str], **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": required}


def word(*words: str) -> Json:
    return {"type": "string", "enum": list(words)}


CALL = record(
    ["id", "function"],
    id=TEXT,
    type=word("function"),
    function=record(["name", "arguments"], name=NAME, arguments=TEXT),
)
CALLS = {"type": "array", "minItems": 1, "items": CALL}
MESSAGE = {
    "anyOf": [
        record(["role", "content"], role=word("system", "developer", "user"), content=CONTENT),
        record(["role", "content"], role=word("assistant"), content=CONTENT, tool_calls=or_null(CALLS)),
        record(["role", "tool_calls"], role=word("assistant"), content=or_null(CONTENT), tool_calls=CALLS),
        record(["role", "content", "tool_call_id"], role=word("tool"), content=CONTENT, tool_call_id=TEXT),
    ]
}
FUNCTION = record(
    ["name"],
    name=NAME,
    description={"type": ["string", "null"]},
    parameters={"type": ["object", "null"]},
    strict={"type": ["boolean", "null"]},
)
PLAIN_FORMAT = record(["type"], type=word("text", "json_object"))
CHAT_FORMAT = {
    "oneOf": [
        PLAIN_FORMAT,
        record(
            ["type", "json_schema"],
            type=word("json_schema"),
            json_schema=record(
                ["name"], name=NAME, schema=OBJECT_SCHEMA, strict={"type": ["boolean", "null"]}
            ),
        ),
    ]
}
RESPONSE_FORMAT = {
    "oneOf": [
        PLAIN_FORMAT,
        record(
            ["type", "name", "schema"],
            type=word("json_schema"),
            name=NAME,
            schema=OBJECT_SCHEMA,
            strict={"type": ["boolean", "null"]},
        ),
    ]
}
INPUT_CONTENT = {
    "oneOf": [
        TEXT,
        {
            "type": "array",
            "minItems": 1,
            "items": record(["type", "text"], type=word("input_text"), text=TEXT),
        },
    ]
}
INPUT_ITEM = {
    "oneOf": [
        record(
            ["role", "content"],
            type=word("message"),
            role=word("user", "assistant", "system", "developer"),
            content=INPUT_CONTENT,
        ),
        record(
            ["type", "call_id", "name", "arguments"],
            type=word("function_call"),
            call_id=TEXT,
            name=NAME,
            arguments=TEXT,
        ),
        record(
            ["type", "call_id", "output"],
            type=word("function_call_output"),
            call_id=TEXT,
            output=INPUT_CONTENT,
        ),
    ]
}

# Of each operation's request: the parameters that are served, narrowed where something is written here.
AS_DESCRIBED: Json = {}
REQUESTS: dict[str, dict[str, Json]] = {
    "/chat/completions": {
        "model": AS_DESCRIBED,
        "messages": {"type": "array", "minItems": 1, "items": MESSAGE},
        "frequency_penalty": AS_DESCRIBED,
        "logit_bias": BIASES,
        "logprobs": AS_DESCRIBED,
        "max_completion_tokens": COUNT,
        "max_tokens": COUNT,
        "metadata": METADATA,
        "n": CHOICES,
        "parallel_tool_calls": AS_DESCRIBED,
        "presence_penalty": AS_DESCRIBED,
        "response_format": CHAT_FORMAT,
        "seed": {"type": "integer"},
        "stop": STOP,
        "stream": AS_DESCRIBED,
        "stream_options": STREAM_OPTIONS,
        "temperature": AS_DESCRIBED,
        "tool_choice": word("none", "auto", "required"),
        "tools": {
            "type": "array",
            "maxItems": 1,
            "items": record(["type", "function"], type=word("function"), function=FUNCTION),
        },
        "top_logprobs": TOP_LOGPROBS,
        "top_p": AS_DESCRIBED,
    },
    "/completions": {
        "model": AS_DESCRIBED,
        "prompt": {
            "oneOf": [
                *TEXTS,
                {"type": "array", "minItems": 1, "items": TOKEN},
                {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1, "items": TOKEN}},
            ]
        },
        "echo": AS_DESCRIBED,
        "frequency_penalty": AS_DESCRIBED,
        "logit_bias": BIASES,
        "logprobs": {"anyOf": [TOP_LOGPROBS, {"const": False}]},
        "max_tokens": COUNT,
        "n": CHOICES,
        "presence_penalty": AS_DESCRIBED,
        "seed": {"type": "integer"},
        "stop": STOP,
        "stream": AS_DESCRIBED,
        "stream_options": STREAM_OPTIONS,
        "temperature": AS_DESCRIBED,
        "top_p": AS_DESCRIBED,
    },
    "/embeddings": {
        "model": AS_DESCRIBED,
        "input": {
            "oneOf": TEXTS,
        },
        "encoding_format": AS_DESCRIBED,
    },
    "/responses": {
        "model": AS_DESCRIBED,
        "input": {"oneOf": [TEXT, {"type": "array", "minItems": 1, "items": INPUT_ITEM}]},
        "include": {
            "type": "array",
            "items": word("reasoning.encrypted_content", "message.output_text.logprobs"),
        },
        "instructions": AS_DESCRIBED,
        "max_output_tokens": COUNT,
        "metadata": METADATA,
        "parallel_tool_calls": AS_DESCRIBED,
        "stream": AS_DESCRIBED,
        "stream_options": {
            "type": "object",
            "properties": {"include_obfuscation": {"type": ["boolean", "null"]}},
        },
        "temperature": AS_DESCRIBED,
        "text": record([], format=or_null(RESPONSE_FORMAT)),
        "tool_choice": word("none", "auto", "required"),
        "tools": {
            "type": "array",
            "maxItems": 1,
            "items": record(["type", "name"], type=word("function"), **FUNCTION["properties"]),
        },
        "top_logprobs": TOP_LOGPROBS,
        "top_p": AS_DESCRIBED,
    },
}
# Beside what OpenAI's description demands: without an input there is nothing to answer.
REQUIRED = {"/responses": ["model", "input"]}


def resolved(spec: Json, schema: Json) -> Json:
    """The schema itself where it is a reference."""
    while "$ref" in schema:
        schema = spec["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def members(spec: Json, schema: Json) -> tuple[dict[str, Json], list[str]]:
    """Properties, and the names of those required, over all parts of a schema."""
    schema = resolved(spec, schema)
    properties: dict[str, Json] = {}
    required: list[str] = []
    for part in schema.get("allOf", []):
        more, needed = members(spec, part)
        properties |= more
        required += needed
    return properties | schema.get("properties", {}), required + schema.get("required", [])


def request_schema(spec: Json, path: str) -> Json:
    return spec["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


def served(full: Json) -> Json:
    """OpenAI's description with requests narrowed to what is served."""
    spec = copy.deepcopy(full)
    for path, kept in REQUESTS.items():
        properties, required = members(spec, request_schema(spec, path))
        needed = REQUIRED.get(path, required)
        content = spec["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        content["schema"] = {
            "type": "object",
            "properties": {
                name: schema if name in needed else or_null(schema)
                for name, schema in ((name, narrowed or properties[name]) for name, narrowed in kept.items())
            },
            "required": needed,
        }
    return spec


def with_streams(full: Json) -> Json:
    """OpenAI's description, where an answer can be a stream of which `stream_schema` says what it holds."""
    spec = copy.deepcopy(full)
    for path in STREAMS:
        spec["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"] = {}
    return spec


# What a stream's events hold.
STREAMS = {
    "/chat/completions": "CreateChatCompletionStreamResponse",
    "/completions": "CreateCompletionResponse",
    "/responses": "ResponseStreamEvent",
}


def stream_schema(full: Json, path: str) -> Json:
    """
    What the data of each event of an operation's stream must be. A completion's has the form of the whole answer, with
    which OpenAI's description leaves it; but what is not known before the end is `null` until then, as it is with OpenAI.
    """
    components = copy.deepcopy(full["components"])
    completion = components["schemas"]["CreateCompletionResponse"]["properties"]
    response = components["schemas"]["Response"]["allOf"][-1]["properties"]
    choice = completion["choices"]["items"]["properties"]
    for owner, member in ((completion, "usage"), (choice, "finish_reason"), (response, "usage")):
        owner[member] = or_null(owner[member])
    return {"$ref": f"#/components/schemas/{STREAMS[path]}", "components": components}
