#!/usr/bin/env python3
"""Runs the Jenkinsfile with stand-ins for Jenkins's steps (standin.groovy) and a real gannet, offline.

    python test.py PROGRAM GROOVY…

GROOVY is the command that runs a Groovy script, such as `groovy`; the Python is one that has junitparser.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from junitparser import JUnitXml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from testing import HOSTS, ODD, PICTURES, Checks, knows, origins, url  # noqa: E402


def main(program: Path, groovy: list[str], folder: Path) -> int:
    checks = Checks()
    path = folder / "bin"
    path.mkdir()
    (path / "gannet").symlink_to(program)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GANNET")}
    env = kept | {
        "PATH": f"{path}:{os.environ['PATH']}",
        # The origin is on loopback.
        "GANNET_FETCH__PRIVATE_NETWORKS": "true",
        "PWNED": str(folder / "pwned"),
    }
    workspaces = folder / "workspaces"
    workspaces.mkdir()

    def build(**parameters: str) -> tuple[str, list[dict]]:
        """The result of a build, and its stages."""
        values = [f"{name}={value}" for name, value in parameters.items()]
        done = subprocess.run(
            [*groovy, str(HERE / "standin.groovy"), str(HERE / "Jenkinsfile"), str(workspaces), *values],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
        )
        if done.returncode:
            raise SystemExit(f"groovy ended with {done.returncode}")
        told = json.loads(done.stdout.splitlines()[-1])
        build.triggers = told["triggers"]
        return told["result"], told["stages"]

    def of(stages: list[dict], key: str) -> set:
        return {stage.get(key) for stage in stages}

    def cases(stages: list[dict]) -> tuple[int, int]:
        """Targets and failures in all reports that Jenkins would read. A shard without targets has a test case too."""
        reports = [JUnitXml.fromfile(file) for stage in stages for file in stage.get("junit", [])]
        found = [case for report in reports for suite in report for case in suite]
        return sum("127.0.0." in case.name for case in found), sum(report.failures for report in reports)

    port = origins()
    urls = [url(port, host, n) for host in range(len(HOSTS)) for n in range(PICTURES)]
    lists = folder / ODD
    lists.mkdir()
    whole = lists / "all.list"
    whole.write_text("\n".join(urls))
    holed = lists / "holed.list"
    holed.write_text("\n".join([*urls, url(port, 0, 0).replace(".png", ".gone")]))

    parameters = {"SOURCE": str(whole), "OUTPUT": str(folder / "out" / ODD)}
    result, stages = build(**parameters)
    fetched, said = stages[:4], json.dumps(stages, indent=1)
    checks.hold("every night", build.triggers, ["H 3 * * *"])
    checks.hold("first build: success", result, "SUCCESS", said)
    names = [f"list / {shard}/4 / fetch" for shard in range(1, 5)] + ["schedules"]
    checks.hold("four shards, no schedules", [stage["name"] for stage in stages], names, said)
    checks.hold("the schedules are left out", stages[-1]["result"], "SKIPPED", said)
    checks.hold("test cases, read back", cases(fetched), (len(urls), 0), said)
    reports = [json.loads(Path(file).read_text()) for stage in fetched for file in stage["archived"]]
    checks.hold("archived reports", sum(report["counts"]["stored"] for report in reports), len(urls), said)
    archived = [Path(file).name for stage in fetched for file in stage["archived"]]
    checks.hold("each of another name", archived, [f"shard-{shard}-of-4.json" for shard in range(1, 5)])

    result, stages = build(**parameters)
    said = json.dumps(stages, indent=1)
    checks.hold("again: success", result, "SUCCESS", said)
    checks.hold("again: nothing was new", of(stages[:4], "code") | of(stages[:4], "result"), {99, "NOT_BUILT"}, said)

    parameters["SOURCE"] = str(holed)
    result, stages = build(**parameters)
    said = json.dumps(stages, indent=1)
    checks.hold("one is gone: unstable", result, "UNSTABLE", said)
    checks.hold("one shard has it", sorted(stage["code"] for stage in stages[:4]), [3, 99, 99, 99], said)
    checks.hold("its test case, read back", cases(stages[:4]), (len(urls) + 1, 1), said)
    parameters["OUTPUT"] = str(folder / "tolerant")
    result, stages = build(**parameters, MAX_FAILURES="50%")
    checks.hold("within what is tolerated: success", result, "SUCCESS", json.dumps(stages, indent=1))

    parameters["SOURCE"] = str(folder / "missing.list")
    result, stages = build(**parameters)
    said = json.dumps(stages, indent=1)
    checks.hold("no list: failure", (result, of(stages[:4], "code")), ("FAILURE", {1}), said)
    result, stages = build(**parameters, MAX_FAILURES="many")
    said = json.dumps(stages, indent=1)
    checks.hold("wrong usage: failure", (result, of(stages[:4], "code")), ("FAILURE", {2}), said)
    checks.hold("and no report of an earlier build", cases(stages[:4]), (0, 0), said)

    if knows(program, "daemon"):
        config = folder / "gannet.toml"
        text = f"[storage]\nroot = {json.dumps(str(folder / 'scheduled'))}\n"
        for name, number in (("one", 71), ("two", 72), ("three", 73)):
            (lists / name).write_text(f"http://{HOSTS[0]}:{port}/{number}.png\n")
            text += f'[[schedule]]\nname = "{name}"\ncron = "@daily"\nsource = {json.dumps(str(lists / name))}\n'
            text += f'report = ["reports/{name}.xml"]\n'
        config.write_text(text)
        parameters = {"SOURCE": "", "CONFIG": str(config), "SCHEDULES": "one\r\ntwo"}
        result, stages = build(**parameters)
        once, said = stages[-1], json.dumps(stages, indent=1)
        checks.hold("two schedules: success", (result, once["result"]), ("SUCCESS", "SUCCESS"), said)
        summary = json.loads(Path(once["archived"][0]).read_text().splitlines()[-1])
        checks.hold("they and no other", [job["schedule"] for job in summary["jobs"]], ["one", "two"], said)
        checks.hold("their test cases", cases([once]), (2, 0), said)
        result, stages = build(**parameters)
        checks.hold("again: nothing was new", (result, stages[-1]["result"]), ("SUCCESS", "NOT_BUILT"))
    else:
        print("skipped: this gannet has no daemon")

    checks.hold("no name was taken for a command", (folder / "pwned").exists(), False)
    return checks.failed


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: test.py PROGRAM GROOVY…")
    with tempfile.TemporaryDirectory(prefix="gannet-jenkins-") as temporary:
        failed = main(Path(sys.argv[1]).resolve(strict=True), sys.argv[2:], Path(temporary))
    sys.exit(f"{failed} checks failed" if failed else 0)
