"""datatrove 0.10.1's inference runner on the requests of a job file; run by benchmarks/refine.py in its environment."""

import asyncio
import json
import sys
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.writers import JsonlWriter

job = json.loads(Path(sys.argv[1]).read_text())
finished = []


async def rollout(document, generate):
    result = await generate(document.metadata["request"])
    finished.append(result.finish_reason == "stop")
    return result


runner = InferenceRunner(
    rollout_fn=rollout,
    config=InferenceConfig(
        server_type="endpoint",
        model_name_or_path=job["requests"][0]["model"],
        endpoint_url=job["url"],
        max_concurrent_generations=job["in_flight"],
        max_concurrent_documents=2 * job["in_flight"],
    ),
    output_writer=JsonlWriter(f"{job['folder']}/out", output_filename="${rank}_${chunk_index}.jsonl"),
    checkpoints_local_dir=f"{job['folder']}/checkpoints",  # its reply store
)
documents = [Document(text="x", id=str(n), metadata={"request": one}) for n, one in enumerate(job["requests"])]
start, cpu = time.perf_counter(), time.process_time()
asyncio.run(runner.run_async(documents))
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
print(json.dumps({"seconds": seconds, "cpu": cpu, "finished": sum(finished)}))
