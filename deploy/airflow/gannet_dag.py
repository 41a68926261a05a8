"""gannet under Airflow, 3 or from 2.10 on: four DAGs, of which most need only one.

gannet_fetch      one list; what follows reads the counts, and is skipped where nothing was new
gannet_shards     one list, divided by host over mapped tasks
gannet_schedules  the schedules of a gannet.toml, one time each
gannet_api        a job for a daemon elsewhere, over HTTP; only where a URL is set

README.md says what to set. No value gets into a command's text: they are variables of its environment.
"""

import json
import os
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

try:
    from airflow.sdk import Param, PokeReturnValue, Variable, dag, get_current_context, task
    from airflow.sdk.exceptions import AirflowFailException
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.exceptions import AirflowFailException
    from airflow.models import Variable
    from airflow.models.param import Param
    from airflow.operators.python import get_current_context
    from airflow.sensors.base import PokeReturnValue

try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # Airflow 2 without the provider
    from airflow.operators.bash import BashOperator


def setting(name: str, default: str = "") -> str:
    """The variable gannet_NAME, from the environment alone: this runs whenever Airflow looks at the file."""
    return os.environ.get(f"AIRFLOW_VAR_GANNET_{name}".upper(), default)


PROGRAM = setting("program", "gannet")
CONFIG = setting("config", "/etc/gannet/gannet.toml")
API_URL = setting("api_url").rstrip("/")

LIST = {
    "source": Param(
        setting("source", "/etc/gannet/pictures.list"),
        type="string",
        minLength=1,
        description="The list: a path or an http(s) URL",
    ),
    "output": Param(
        setting("output", "/var/lib/gannet/airflow"),
        type="string",
        minLength=1,
        description="The folder that keeps the files; one run at a time works with it",
    ),
    "max_failures": Param(
        setting("max_failures", "0"),
        type="string",
        pattern=r"^[0-9]+([.][0-9]+)?%?$",
        description="Failures that are tolerated: a number, or a share such as 5%",
    ),
}

# Airflow keeps the last line of stdout and stderr together. gannet's summary is one line on stdout; printed once gannet
# has ended, nothing of the log can come after it.
SUMMARY_LAST = """
code=$?
printf '%s\\n' "$summary"
exit "$code"
"""

FETCH = (
    """
mkdir -p -- "$OUTPUT" || exit
summary=$("$PROGRAM" fetch --output "$OUTPUT" --report "$OUTPUT/report.json" --report "$OUTPUT/report.xml" \
    --max-failures "$MAX_FAILURES" ${SHARD:+--shard "$SHARD"} --progress never --json --exit-unchanged 99 -- "$SOURCE")
"""
    + SUMMARY_LAST
)

ONCE = (
    """
names=()
if [ -n "$SCHEDULES" ]; then mapfile -t names <<<"$SCHEDULES"; fi
summary=$("$PROGRAM" daemon --config "$CONFIG" --exit-unchanged 99 --once "${names[@]}")
"""
    + SUMMARY_LAST
)

DAG = {
    "schedule": setting("schedule", "@daily"),
    "start_date": datetime(2026, 1, 1, tzinfo=timezone.utc),
    "catchup": False,
    # A store belongs to one process.
    "max_active_runs": 1,
    "tags": ["gannet"],
    # Another run may hold the store, the list may be away. What is there already is not fetched again.
    "default_args": {"retries": int(setting("retries", "2")), "retry_delay": timedelta(minutes=5)},
}

BASH = {
    "append_env": True,
    "skip_on_exit_code": 99,
    "output_processor": json.loads,
}


@dag(dag_id="gannet_fetch", params=LIST, **DAG)
def one_list():
    fetch = BashOperator(
        task_id="fetch",
        bash_command=FETCH,
        env={
            "PROGRAM": PROGRAM,
            "SOURCE": "{{ params.source }}",
            "OUTPUT": "{{ params.output }}",
            "MAX_FAILURES": "{{ params.max_failures }}",
            "SHARD": "",
        },
        **BASH,
    )

    @task
    def use(summary: dict) -> dict:
        """Stands for what is done with new files. Not reached where nothing was new."""
        counts = summary["counts"]
        print(f"job {summary['job']}: {counts['stored']} stored, {counts['changed']} changed of {counts['targets']}")
        return counts

    use(fetch.output)


@dag(
    dag_id="gannet_shards",
    params=LIST | {"shards": Param(int(setting("shards", "4")), type="integer", minimum=1, maximum=256)},
    **DAG,
)
def one_list_in_shards():
    @task
    def shards() -> list[dict[str, str]]:
        """What each of the mapped tasks works on: a share of the hosts, with a folder of its own."""
        params = get_current_context()["params"]
        count = params["shards"]
        return [
            {
                "PROGRAM": PROGRAM,
                "SOURCE": params["source"],
                "OUTPUT": os.path.join(params["output"], f"shard-{index}-of-{count}"),
                "MAX_FAILURES": params["max_failures"],
                "SHARD": f"{index}/{count}",
            }
            for index in range(1, count + 1)
        ]

    fetch = BashOperator.partial(task_id="fetch", bash_command=FETCH, **BASH).expand(env=shards())

    # Shards with nothing new are skipped; where all of them are, so is this.
    @task(trigger_rule="none_failed_min_one_success")
    def total(summaries: list[dict]) -> dict:
        counts: dict[str, int] = {}
        for summary in summaries:
            for outcome, number in summary["counts"].items():
                counts[outcome] = counts.get(outcome, 0) + number
        print(counts)
        return counts

    total(fetch.output)


@dag(
    dag_id="gannet_schedules",
    params={"schedules": Param([], type="array", items={"type": "string"}, description="Their names; none: all")},
    **DAG,
)
def schedules_once():
    once = BashOperator(
        task_id="once",
        bash_command=ONCE,
        env={
            "PROGRAM": PROGRAM,
            "CONFIG": CONFIG,
            "SCHEDULES": "{{ params.schedules | join('\n') }}",
        },
        **BASH,
    )

    @task
    def use(summary: dict) -> dict:
        for job in summary["jobs"]:
            print(f"{job['schedule']}: job {job['job']} {job['state']}, {job['counts']}")
        return summary["counts"]

    use(once.output)


def call(method: str, path: str, body: dict | None = None, **headers: str) -> dict:
    """One request to gannet's API; the JSON of its answer."""
    token = Variable.get("gannet_api_token", None)
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(
        f"{API_URL}/api/v1{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{method} {path}: {error.code} {error.read(4000).decode(errors='replace')}") from None


@dag(
    dag_id="gannet_api",
    params={
        "source": LIST["source"],
        "album": Param(setting("album"), type="string", description="Empty: as the daemon's settings say"),
        "max_failures": LIST["max_failures"],
    },
    **DAG,
)
def job_over_http():
    @task
    def post() -> str:
        """Posts the job. A retry of the task finds the same job by its key."""
        context = get_current_context()
        params = context["params"]
        body = {"source": params["source"]} | ({"album": params["album"]} if params["album"] else {})
        key = quote(f"{context['dag_run'].dag_id}/{context['dag_run'].run_id}")
        return call("POST", "/jobs", body, **{"Idempotency-Key": key})["id"]

    @task.sensor(poke_interval=int(setting("poll", "30")), timeout=24 * 3600, mode="reschedule")
    def wait(job: str) -> PokeReturnValue:
        answer = call("GET", f"/jobs/{quote(job, safe='')}")
        state = answer["state"]
        if state == "incomplete" and not answer.get("error"):
            # It ran, and what came is kept. Failures within `max_failures` are none of the task.
            most = get_current_context()["params"]["max_failures"]
            targets, failures = answer["counts"]["targets"], answer["failures"]
            allowed = float(most[:-1]) * targets / 100 if most.endswith("%") else float(most)
            state = "completed" if failures <= allowed else state
        if state in ("incomplete", "failed", "cancelled"):
            raise AirflowFailException(f"job {job} {state}: {json.dumps(answer)}")
        return PokeReturnValue(is_done=state == "completed", xcom_value=answer)

    @task
    def use(job: dict) -> dict:
        print(f"job {job['id']}: {job['counts']}")
        return job["counts"]

    use(wait(post()))


one_list()
one_list_in_shards()
schedules_once()
if API_URL:
    job_over_http()
