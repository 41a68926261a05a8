#!/usr/bin/env python3
"""Runs the DAGs of gannet_dag.py with `airflow dags test`, offline, and looks at what became of their tasks.

    python test.py PROGRAM

PROGRAM is gannet; the Python is one that has Airflow and junitparser: `.ci/airflow` makes it. Everything is in a
temporary folder, and the servers are on loopback.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from junitparser import JUnitXml

HERE = Path(__file__).resolve().parent
# Hosts of their own, so that shards have something to divide.
HOSTS = [f"127.0.0.{last}" for last in range(1, 6)]
PICTURES = 4
# Names that a shell or a template would trip over, if they ever got into a command's text.
ODD = "a 'b' \"c\" $(touch pwned) `touch pwned` ; touch pwned ; é"


def picture(seed: int) -> bytes:
    """A PNG, 16 by 16, of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([seed * 37 % 256, seed * 91 % 256, seed % 256]) * 16) * 16
    header = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


class Origin(Quiet):
    """`/N.png` is a picture that never changes, everything else is not found."""

    def do_GET(self) -> None:
        name = self.path.removeprefix("/").removesuffix(".png")
        if not name.isdigit():
            return self.answer(404)
        body = picture(int(name))
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if self.headers.get("If-None-Match") == tag:
            return self.answer(304, ETag=tag)
        self.answer(200, body, ETag=tag, Content_Type="image/png")


class Api(Quiet):
    """As much of gannet's API as a DAG needs: a job is ongoing when asked for the first time, then completed."""

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
        state = "ongoing" if Api.asked[job] == 1 else "completed"
        self.json(200, {"id": job, "state": state, "counts": {"targets": 7, "stored": 7}})


def serve(handler: type[Quiet], address: str, port: int = 0) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer((address, port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Airflow:
    def __init__(self, folder: Path, program: Path, **variables: str):
        self.home = folder / "airflow"
        dags = folder / "dags"
        dags.mkdir()
        shutil.copy(HERE / "gannet_dag.py", dags)
        # Where a command of an odd name would leave its traces.
        self.cwd = folder / "cwd"
        self.cwd.mkdir()
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
            **{f"AIRFLOW_VAR_GANNET_{name}".upper(): value for name, value in variables.items()},
        }
        self.say("db", "migrate")
        self.say("dags", "reserialize")

    def say(self, *args: str, check: bool = True) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *args],
            env=self.env,
            cwd=self.cwd,
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


failures = 0


def check(what: str, found, wanted, airflow: Airflow | None = None) -> None:
    global failures
    good = found == wanted
    print(f"{'ok  ' if good else 'FAIL'} {what}", flush=True)
    if not good:
        failures += 1
        print(f"     found  {found!r}\n     wanted {wanted!r}")
        if airflow:
            print(airflow.said)


def knows(program: Path, command: str) -> bool:
    return subprocess.run([program, command, "--help"], capture_output=True).returncode == 0


def main(program: Path, folder: Path) -> None:
    first = serve(Origin, HOSTS[0])
    port = first.server_address[1]
    for host in HOSTS[1:]:
        serve(Origin, host, port)
    urls = [f"http://{host}:{port}/{index * 10 + n}.png" for index, host in enumerate(HOSTS) for n in range(PICTURES)]
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

    api = serve(Api, HOSTS[0])
    airflow = Airflow(folder, program, config=str(config), api_url=f"http://{HOSTS[0]}:{api.server_address[1]}/")
    print(airflow.say("version").strip().splitlines()[-1])
    check("the file has no import error", airflow.query("SELECT filename, stacktrace FROM import_error"), [])
    dags = [dag for (dag,) in airflow.query("SELECT dag_id FROM dag ORDER BY dag_id")]
    check("its DAGs", dags, ["gannet_api", "gannet_fetch", "gannet_schedules", "gannet_shards"])

    whole = {"source": str(lists / "all.list"), "output": str(folder / "one" / ODD)}
    check("first run: stores", airflow.run("gannet_fetch", 1, **whole), {"fetch": ["success"], "use": ["success"]}, airflow)
    check("what follows reads the counts", airflow.left.get("use", {}).get("stored"), len(urls), airflow)
    check("the summary is the task's result", airflow.left.get("fetch", {}).get("state"), "completed", airflow)
    check("second run: skipped", airflow.run("gannet_fetch", 2, **whole), {"fetch": ["skipped"], "use": ["skipped"]}, airflow)

    half = {"source": str(lists / "half.list"), "output": str(folder / "half")}
    wanted = {"fetch": ["failed"], "use": ["upstream_failed"]}
    check("one of three is gone: fails", airflow.run("gannet_fetch", 3, **half), wanted, airflow)
    junit = JUnitXml.fromfile(str(folder / "half" / "report.xml"))
    check("its JUnit report, read back", (junit.tests, junit.failures, junit.errors), (3, 1, 0))
    cases = [case for suite in junit for case in suite]
    check("one case a target", sorted(case.is_passed for case in cases), [False, True, True])
    wanted = {"fetch": ["success"], "use": ["success"]}
    half["output"] = str(folder / "tolerant")
    check("within max_failures", airflow.run("gannet_fetch", 4, max_failures="50%", **half), wanted, airflow)

    shards = {"source": whole["source"], "output": str(folder / "shards" / ODD), "shards": 3}
    states = airflow.run("gannet_shards", 1, **shards)
    check("three shards: stored by some", (len(states.get("fetch", [])), states.get("total")), (3, ["success"]), airflow)
    check("none of them failed", set(states.get("fetch", [])) <= {"success", "skipped"}, True, airflow)
    check("together they have all", airflow.left.get("total", {}).get("stored"), len(urls), airflow)
    wanted = {"shards": ["success"], "fetch": ["skipped"] * 3, "total": ["skipped"]}
    check("three shards again: skipped", airflow.run("gannet_shards", 2, **shards), wanted, airflow)

    post = {"source": "/etc/gannet/pictures.list", "album": ODD}
    states = airflow.run("gannet_api", 1, **post)
    check("without its token the API refuses", (states.get("post"), Api.refused > 0), (["failed"], True), airflow)
    airflow.env["AIRFLOW_VAR_GANNET_API_TOKEN"] = "secret of the test"
    wanted = {"post": ["success"], "wait": ["success"], "use": ["success"]}
    check("a job over HTTP", airflow.run("gannet_api", 2, **post), wanted, airflow)
    check("what was posted", [job["posted"] for job in Api.jobs.values()], [post])
    check("asked for until it was done", list(Api.asked.values()), [2])
    check("what follows reads its counts", airflow.left.get("use"), {"targets": 7, "stored": 7}, airflow)
    check("no token in what Airflow says", "secret of the test" in airflow.said, False)

    if knows(program, "daemon"):
        wanted = {"once": ["success"], "use": ["success"]}
        check("one schedule: stores", airflow.run("gannet_schedules", 1, schedules=["all"]), wanted, airflow)
        check("its counts", airflow.left.get("use", {}).get("stored"), len(urls), airflow)
        wanted = {"once": ["skipped"], "use": ["skipped"]}
        check("again: skipped", airflow.run("gannet_schedules", 2, schedules=["all"]), wanted, airflow)
        airflow.run("gannet_schedules", 3)
        ran = [job["schedule"] for job in airflow.left.get("once", {}).get("jobs", [])]
        check("without names: all of them", sorted(ran), ["all", "two"], airflow)
    else:
        print("skipped: this gannet has no daemon")

    check("no name was taken for a command", [str(path) for path in folder.rglob("pwned")], [])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: test.py PROGRAM")
    with tempfile.TemporaryDirectory(prefix="gannet-airflow-") as temporary:
        main(Path(sys.argv[1]).resolve(strict=True), Path(temporary))
    sys.exit(f"{failures} checks failed" if failures else 0)
