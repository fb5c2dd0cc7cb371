"""distilabel 1.5.3's OpenAI client on the requests of a job file; run by benchmarks/refine.py in its environment."""

import json
import sys
import time
from pathlib import Path

from distilabel.models.llms import OpenAILLM

job = json.loads(Path(sys.argv[1]).read_text())
first = job["requests"][0]
llm = OpenAILLM(model=first["model"], base_url=f"{job['url']}/v1", api_key="none")
llm.load()
finished = 0
start, cpu = time.perf_counter(), time.process_time()
# It has no limit of its own: what its pipelines send at once is one batch.
for at in range(0, len(job["requests"]), job["in_flight"]):
    outputs = llm.generate_outputs(
        inputs=[request["messages"] for request in job["requests"][at : at + job["in_flight"]]],
        max_new_tokens=first["max_tokens"],
        temperature=first["temperature"],
        extra_body={"response_format": first["response_format"]},
    )
    finished += sum(str(output["generations"][0]).endswith("}") for output in outputs)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
print(json.dumps({"seconds": seconds, "cpu": cpu, "finished": finished}))
