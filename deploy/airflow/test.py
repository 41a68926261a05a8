#!/usr/bin/env python3
"""Runs the DAGs of gannet_dag.py with `airflow dags test`, offline, and looks at what became of their tasks.

    python test.py PROGRAM

PROGRAM is gannet; the Python is one that has Airflow and junitparser: `.ci/airflow` makes it. Everything is in a
temporary folder, and the servers are on loopback.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from junitparser import JUnitXml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from testing import HOSTS, ODD, PICTURES, Checks, Quiet, knows, origins, serve, url  # noqa: E402


class Api(Quiet):
    """As much of gannet's API as a DAG needs: a job is ongoing when asked for the first time, then over:
    incomplete where its album is `half`, else completed."""

    jobs: dict[str, dict] = {}
    asked: dict[str, int] = {}
    refused = 0

    def json(self, status: int, value: dict) -> None:
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def authorized(self) -> bool:
        if self.headers.get("Authorization") == "Bearer secret of the test":
            return True
        Api.refused += 1
        self.json(401, {"title": "unauthorized"})
        return False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.authorized() and self.path == "/api/v1/jobs":
            key = self.headers["Idempotency-Key"]
            Api.jobs.setdefault(key, {"id": f"job-{len(Api.jobs)}", "posted": body})
            self.json(202, {"id": Api.jobs[key]["id"], "state": "queued"})

    def do_GET(self) -> None:
        if not self.authorized():
            return
        job = self.path.removeprefix("/api/v1/jobs/")
        Api.asked[job] = Api.asked.get(job, 0) + 1
        is_half = any(made["id"] == job and made["posted"].get("album") == "half" for made in Api.jobs.values())
        over = "incomplete" if is_half else "completed"
        state = "ongoing" if Api.asked[job] == 1 else over
        stored = 6 if is_half else 7
        self.json(200, {"id": job, "state": state, "counts": {"targets": 7, "stored": stored}, "failures": 7 - stored})


class Airflow:
    def __init__(self, folder: Path, program: Path, **variables: str):
        self.home = folder / "airflow"
        dags = folder / "dags"
        dags.mkdir()
        shutil.copy(HERE / "gannet_dag.py", dags)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "GANNET"))}
        self.env = kept | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW_VAR_GANNET_PROGRAM": str(program),
            "AIRFLOW_VAR_GANNET_RETRIES": "0",
            "AIRFLOW_VAR_GANNET_POLL": "1",
            # The origin is on loopback.
            "GANNET_FETCH__PRIVATE_NETWORKS": "true",
            "PWNED": str(folder / "pwned"),
            **{f"AIRFLOW_VAR_GANNET_{name}".upper(): value for name, value in variables.items()},
        }
        self.say("db", "migrate")
        self.say("dags", "reserialize")

    def say(self, *args: str, check: bool = True) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *args],
            env=self.env,
            cwd=self.home.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        if check and done.returncode:
            raise SystemExit(f"airflow {' '.join(args)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def query(self, sql: str, *values: str) -> list[tuple]:
        with closing(sqlite3.connect(self.home / "airflow.db")) as database:
            return database.execute(sql, values).fetchall()

    def run(self, dag: str, day: int, **params) -> dict[str, list]:
        """One run; the states of its tasks, of mapped ones in the order of their index, and what they left for others."""
        self.said = self.say("dags", "test", dag, f"2026-02-{day:02}", "--conf", json.dumps(params), check=False)
        (run,) = self.query("SELECT run_id FROM dag_run WHERE dag_id = ? ORDER BY id DESC LIMIT 1", dag)[0]
        states: dict[str, list] = {}
        for task, state in self.query(
            "SELECT task_id, state FROM task_instance WHERE dag_id = ? AND run_id = ? ORDER BY task_id, map_index", dag, run
        ):
            states.setdefault(task, []).append(state)
        self.left = {
            task: json.loads(value)
            for task, value in self.query(
                "SELECT task_id, value FROM xcom WHERE dag_id = ? AND run_id = ? AND key = 'return_value' "
                "ORDER BY map_index DESC",
                dag,
                run,
            )
        }
        return states


def main(program: Path, folder: Path) -> int:
    port = origins()
    urls = [url(port, host, n) for host in range(len(HOSTS)) for n in range(PICTURES)]
    lists = folder / ODD
    lists.mkdir()
    (lists / "all.list").write_text("\n".join(urls))
    (lists / "half.list").write_text("\n".join([*urls[:2], f"http://{HOSTS[0]}:{port}/gone.png"]))
    (lists / "two.list").write_text("\n".join(f"http://{HOSTS[0]}:{port}/{number}.png" for number in (97, 98)))
    config = folder / "gannet.toml"
    config.write_text(
        f"[storage]\nroot = {json.dumps(str(folder / 'scheduled'))}\n"
        f'[[schedule]]\nname = "all"\ncron = "@daily"\nsource = {json.dumps(str(lists / "all.list"))}\n'
        f'[[schedule]]\nname = "two"\ncron = "@daily"\nsource = {json.dumps(str(lists / "two.list"))}\n'
    )

    checks = Checks()
    api = serve(Api, HOSTS[0])
    airflow = Airflow(folder, program, config=str(config), api_url=f"http://{HOSTS[0]}:{api.server_address[1]}/")
    print(airflow.say("version").strip().splitlines()[-1])
    checks.hold("the file has no import error", airflow.query("SELECT filename, stacktrace FROM import_error"), [])
    dags = [dag for (dag,) in airflow.query("SELECT dag_id FROM dag ORDER BY dag_id")]
    checks.hold("its DAGs", dags, ["gannet_api", "gannet_fetch", "gannet_schedules", "gannet_shards"])

    whole = {"source": str(lists / "all.list"), "output": str(folder / "one" / ODD)}
    checks.hold("first run: stores", airflow.run("gannet_fetch", 1, **whole), {"fetch": ["success"], "use": ["success"]}, airflow.said)
    checks.hold("what follows reads the counts", airflow.left.get("use", {}).get("stored"), len(urls), airflow.said)
    checks.hold("the summary is the task's result", airflow.left.get("fetch", {}).get("state"), "completed", airflow.said)
    checks.hold("second run: skipped", airflow.run("gannet_fetch", 2, **whole), {"fetch": ["skipped"], "use": ["skipped"]}, airflow.said)

    half = {"source": str(lists / "half.list"), "output": str(folder / "half")}
    wanted = {"fetch": ["failed"], "use": ["upstream_failed"]}
    checks.hold("one of three is gone: fails", airflow.run("gannet_fetch", 3, **half), wanted, airflow.said)
    junit = JUnitXml.fromfile(str(folder / "half" / "report.xml"))
    checks.hold("its JUnit report, read back", (junit.tests, junit.failures, junit.errors), (3, 1, 0))
    cases = [case for suite in junit for case in suite]
    checks.hold("one case a target", sorted(case.is_passed for case in cases), [False, True, True])
    wanted = {"fetch": ["success"], "use": ["success"]}
    half["output"] = str(folder / "tolerant")
    checks.hold("within max_failures", airflow.run("gannet_fetch", 4, max_failures="50%", **half), wanted, airflow.said)

    shards = {"source": whole["source"], "output": str(folder / "shards" / ODD), "shards": 3}
    states = airflow.run("gannet_shards", 1, **shards)
    checks.hold("three shards: stored by some", (len(states.get("fetch", [])), states.get("total")), (3, ["success"]), airflow.said)
    checks.hold("none of them failed", set(states.get("fetch", [])) <= {"success", "skipped"}, True, airflow.said)
    checks.hold("together they have all", airflow.left.get("total", {}).get("stored"), len(urls), airflow.said)
    wanted = {"shards": ["success"], "fetch": ["skipped"] * 3, "total": ["skipped"]}
    checks.hold("three shards again: skipped", airflow.run("gannet_shards", 2, **shards), wanted, airflow.said)

    post = {"source": "/etc/gannet/pictures.list", "album": ODD}
    states = airflow.run("gannet_api", 1, **post)
    checks.hold("without its token the API refuses", (states.get("post"), Api.refused > 0), (["failed"], True), airflow.said)
    airflow.env["AIRFLOW_VAR_GANNET_API_TOKEN"] = "secret of the test"
    wanted = {"post": ["success"], "wait": ["success"], "use": ["success"]}
    checks.hold("a job over HTTP", airflow.run("gannet_api", 2, **post), wanted, airflow.said)
    checks.hold("what was posted", [job["posted"] for job in Api.jobs.values()], [post])
    checks.hold("asked for until it was done", list(Api.asked.values()), [2])
    checks.hold("what follows reads its counts", airflow.left.get("use"), {"targets": 7, "stored": 7}, airflow.said)
    half = {"source": post["source"], "album": "half"}
    states = airflow.run("gannet_api", 3, **half)
    checks.hold("an incomplete job fails the task", (states.get("wait"), states.get("use")), (["failed"], ["upstream_failed"]), airflow.said)
    checks.hold("within max_failures", airflow.run("gannet_api", 4, max_failures="15%", **half), wanted, airflow.said)
    checks.hold("no token in what Airflow says", "secret of the test" in airflow.said, False)

    if knows(program, "daemon"):
        wanted = {"once": ["success"], "use": ["success"]}
        checks.hold("one schedule: stores", airflow.run("gannet_schedules", 1, schedules=["all"]), wanted, airflow.said)
        checks.hold("its counts", airflow.left.get("use", {}).get("stored"), len(urls), airflow.said)
        wanted = {"once": ["skipped"], "use": ["skipped"]}
        checks.hold("again: skipped", airflow.run("gannet_schedules", 2, schedules=["all"]), wanted, airflow.said)
        airflow.run("gannet_schedules", 3)
        ran = [job["schedule"] for job in airflow.left.get("once", {}).get("jobs", [])]
        checks.hold("without names: all of them", sorted(ran), ["all", "two"], airflow.said)
    else:
        print("skipped: this gannet has no daemon")

    checks.hold("no name was taken for a command", (folder / "pwned").exists(), False)
    return checks.failed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: test.py PROGRAM")
    with tempfile.TemporaryDirectory(prefix="gannet-airflow-") as temporary:
        failed = main(Path(sys.argv[1]).resolve(strict=True), Path(temporary))
    sys.exit(f"{failed} checks failed" if failed else 0)
