"""What `headrace run worker --app tests.bench.worker_app:app` finds: the app of the job named in the environment."""

from __future__ import annotations

import os

from tests.bench.cards import JOB, Job, app_of

app = app_of(Job.from_text(os.environ[JOB]))
