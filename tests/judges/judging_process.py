"""`python judging_process.py PROJECT JUDGE.toml [batch | FOLDER]`: label what waits; made to be killed."""

import signal
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from judges.batch import label_slates
from judges.batch_api import BatchApi
from judges.batch_files import BatchFiles
from judges.config import load_judge
from judges.endpoint_judge import EndpointJudge
from labeling.store import Store

# As the command does: a Ctrl-C counts also where the tests run in the background and inherited it as ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
project, judge_file, *by = sys.argv[1:]
store = Store(project)
judge = load_judge(Path(judge_file), Path(__file__).parents[2] / "data")
if by:
    assert isinstance(judge, EndpointJudge)
    endpoint = judge.endpoint
    way = BatchApi(endpoint, judge.file) if by == ["batch"] else BatchFiles(Path(by[0]), endpoint.model)
    judge = replace(judge, batch=way)
try:
    label_slates(judge, store.slates(), store, lambda label: print(label.slate_id))
except KeyboardInterrupt:
    sys.exit(130)
