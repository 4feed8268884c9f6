"""ONNX Runtime GenAI: `python ort-genai.py <onnx file> <threads> <contextSize>`.

Needs onnxruntime-genai and onnx. The graph is the same, but for the input `num_logits_to_keep`, which GenAI does not
feed: it becomes a constant 0 (all positions, which GenAI makes room for), in a folder of its own.
"""
import json
import os
import sys
import tempfile
import time

import onnx
import onnxruntime_genai as og

file, threads, context = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def answer(document):
    sys.stdout.write(f"\n@ {json.dumps(document)}\n")
    sys.stdout.flush()


def prepare(folder):
    model = onnx.load(file)
    graph = model.graph
    keep = [value for value in graph.input if value.name == "num_logits_to_keep"]
    for value in keep:
        graph.input.remove(value)
        shape = [1] * len(value.type.tensor_type.shape.dim)
        graph.initializer.append(
            onnx.helper.make_tensor(value.name, value.type.tensor_type.elem_type, shape, [0])
        )
    onnx.save(model, os.path.join(folder, "model.onnx"))
    with open(os.path.join(os.path.dirname(file), "..", "config.json")) as source:
        config = json.load(source)
    heads = config["num_attention_heads"]
    inputs = {value.name for value in graph.input}
    names = {"input_ids": "input_ids", "attention_mask": "attention_mask", "position_ids": "position_ids"}
    document = {
        "model": {
            "bos_token_id": config.get("bos_token_id") or 0,
            "eos_token_id": config["vocab_size"] - 1,
            "pad_token_id": 0,
            "context_length": config["max_position_embeddings"],
            "vocab_size": config["vocab_size"],
            "type": "llama",
            "decoder": {
                "session_options": {"intra_op_num_threads": threads, "log_id": "onnxruntime-genai"},
                "filename": "model.onnx",
                "head_size": config.get("head_dim") or config["hidden_size"] // heads,
                "hidden_size": config["hidden_size"],
                "num_attention_heads": heads,
                "num_key_value_heads": config["num_key_value_heads"],
                "num_hidden_layers": sum(1 for name in inputs if name.endswith(".key")),
                "inputs": {
                    **{name: value for name, value in names.items() if name in inputs},
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {"max_length": context, "do_sample": False, "past_present_share_buffer": True},
    }
    with open(os.path.join(folder, "genai_config.json"), "w") as target:
        json.dump(document, target)


def rss():
    with open("/proc/self/statm") as source:
        return int(source.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


with tempfile.TemporaryDirectory() as folder:
    start = time.perf_counter()
    prepare(folder)
    model = og.Model(folder)
    answer({"loadMs": (time.perf_counter() - start) * 1e3})
    for line in sys.stdin:
        request = json.loads(line)
        prompt, decode = request["prompt"], request["decode"]
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=len(prompt) + decode + 1, do_sample=False)
        generator = og.Generator(model, params)
        start = time.perf_counter()
        generator.append_tokens(prompt)
        generator.generate_next_token()
        prefill = (time.perf_counter() - start) * 1e3
        token_ms, ids = [], [int(generator.get_next_tokens()[0])]
        for _ in range(decode):
            start = time.perf_counter()
            generator.generate_next_token()
            token_ms.append((time.perf_counter() - start) * 1e3)
            ids.append(int(generator.get_next_tokens()[0]))
        del generator
        answer({"prefillMs": prefill, "tokenMs": token_ms, "ids": ids[:decode], "rss": rss()})
