"""bespokelabs-curator 0.1.31 on the requests of a job file; run by benchmarks/refine.py in its environment."""

import json
import os
import sys
import time
from pathlib import Path

job = json.loads(Path(sys.argv[1]).read_text())
os.environ |= {
    "OPENAI_API_KEY": "none",
    "TELEMETRY_ENABLED": "false",
    "CURATOR_CACHE_DIR": f"{job['folder']}/cache",  # its reply store
    "CURATOR_DISABLE_RICH_DISPLAY": "true",
    "HF_HUB_OFFLINE": "1",
}

import tiktoken  # noqa: E402 - curator reads the environment when it is imported
from bespokelabs import curator  # noqa: E402


class Words:
    """Stands for the tokenizer that curator downloads to count tokens: a split at blanks costs it less."""

    def encode(self, text, **_):
        return text.split()


tiktoken.get_encoding = tiktoken.encoding_for_model = lambda _: Words()


class Rewriter(curator.LLM):
    def prompt(self, row):
        return row["messages"]

    def parse(self, row, response):
        return [{"reply": response}]


first = job["requests"][0]
rewriter = Rewriter(
    model_name=first["model"],
    backend="openai",
    backend_params={
        "base_url": f"{job['url']}/v1",
        "max_concurrent_requests": job["in_flight"],
        "max_requests_per_minute": 1_000_000,
        "max_tokens_per_minute": 1_000_000_000,
        "max_retries": 0,
        "require_all_responses": False,
        "invalid_finish_reasons": ["content_filter"],
    },
    generation_params={key: first[key] for key in ("temperature", "max_tokens", "response_format")},
)
rows = [{"messages": request["messages"]} for request in job["requests"]]
start, cpu = time.perf_counter(), time.process_time()
done = rewriter(rows)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
replies = (done.dataset if hasattr(done, "dataset") else done)["reply"]
print(json.dumps({"seconds": seconds, "cpu": cpu, "finished": sum(str(reply).endswith("}") for reply in replies)}))
