"""Cuts OpenAI's description of its interface (OpenAPI 3.1, JSON) down to what `cqil serve` answers.

    python tools/conformance/prune_spec.py openapi.json > testdata/openai/openapi.json

Left out are other operations, schemas that no operation left refers to, prose and vendors' extensions. What is
said of requests and answers stays as it is, but for two things:

- `nullable` is no word of OpenAPI 3.1, where nothing heeds it; it becomes the type `null`.
- Operations name the errors that any of them can end with, which OpenAI's description leaves out.
"""

import json
import sys
from typing import Any

SERVED = {
    "/chat/completions": "post",
    "/completions": "post",
    "/embeddings": "post",
    "/models": "get",
    "/models/{model}": "get",
    "/responses": "post",
}
ERRORS = ("400", "401", "404", "413", "429", "503")
PROSE = {"description", "summary", "example", "externalDocs", "tags", "title"}
REFERENCE = "#/components/"

Json = dict[str, Any]


def bare(value: Any, names_follow: bool = False) -> Any:
    """The same without prose and extensions. `names_follow`: the keys are names that somebody gave, not keywords."""
    if isinstance(value, list):
        return [bare(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {
        key: bare(item, names_follow=key in ("properties", "schemas") and not names_follow)
        for key, item in value.items()
        if names_follow or (key not in PROSE and not key.startswith("x-"))
    }
    return kept if names_follow else with_null(kept)


def with_null(schema: Json) -> Json:
    if schema.pop("nullable", False) is not True:
        return schema
    if "enum" in schema:
        schema["enum"] = [*schema["enum"], None]
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def references(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(references, value))
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
    return own.union(*map(references, value.values()))


def component(spec: Json, reference: str) -> Json:
    kind, name = reference.removeprefix(REFERENCE).split("/")
    return spec["components"][kind][name]


def reachable(spec: Json, paths: Json) -> dict[str, Json]:
    """Everything that the paths refer to, over however many steps, by kind and name."""
    known: set[str] = set()
    left = references(paths)
    while left:
        reference = left.pop()
        known.add(reference)
        left |= references(component(spec, reference)) - known
    kept: dict[str, Json] = {}
    for reference in sorted(known):
        kind, name = reference.removeprefix(REFERENCE).split("/")
        kept.setdefault(kind, {})[name] = component(spec, reference)
    return kept


def operation(spec: Json, path: str, method: str) -> Json:
    found = spec["paths"][path][method]
    error = {"application/json": {"schema": {"$ref": f"{REFERENCE}schemas/ErrorResponse"}}}
    errors = {status: {"description": "An error", "content": error} for status in ERRORS}
    good = {status: answer for status, answer in found["responses"].items() if status.startswith("2")}
    for answer in good.values():
        answer["description"] = "The answer"
    return {key: found[key] for key in ("operationId", "parameters", "requestBody") if key in found} | {
        "responses": good | errors
    }


def prune(full: Json) -> Json:
    spec = bare(full)
    paths = {path: {method: operation(spec, path, method)} for path, method in SERVED.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpenAI's interface, as far as it is served here",
            "version": full["info"]["version"],
            "license": {"name": "MIT", "url": "https://github.com/openai/openai-openapi/blob/master/LICENSE"},
        },
        "servers": [{"url": "/v1"}],
        "security": [{"ApiKeyAuth": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"ApiKeyAuth": {"type": "http", "scheme": "bearer"}},
            **reachable(spec, paths),
        },
    }


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def lines(group: Json) -> str:
    return "{\n" + ",\n".join(f"{compact(key)}:{compact(value)}" for key, value in group.items()) + "\n}"


def written(spec: Json) -> str:
    """JSON with a line for each operation and schema: small, and changes can be read."""
    head = {key: spec[key] for key in ("openapi", "info", "servers", "security")}
    components = ",\n".join(f"{compact(kind)}:{lines(group)}" for kind, group in spec["components"].items())
    return f'{compact(head)[:-1]},\n"paths":{lines(spec["paths"])},\n"components":{{\n{components}\n}}}}\n'


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        sys.stdout.write(written(prune(json.load(file))))
