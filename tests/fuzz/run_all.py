"""Runs every fuzz target for some seconds: run_all.py PROGRAMS CORPUS FOUND SECONDS [NAME...]

PROGRAMS has the libFuzzer programs fuzz_NAME, CORPUS/NAME their seeds. FOUND/NAME keeps the inputs that reach new code, for the next
time. An input that ends a program is in FOUND as NAME-crash-... Prints a line per target; the status is 1 if one has found something.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile


def run(programs, corpus, found, seconds, name):
    """(inputs, the last lines of a program that ended badly)"""
    own = found / name
    own.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        done = subprocess.run(
            [str(programs / f"fuzz_{name}"), f"-max_total_time={seconds}", "-print_final_stats=1", "-timeout=20", "-rss_limit_mb=4096",
             f"-artifact_prefix={found}/{name}-", str(own), str(corpus / name)],
            env={**os.environ, "TMPDIR": folder}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    text = done.stderr.decode(errors="replace")
    counted = re.findall(r"stat::number_of_executed_units:\s*(\d+)", text) or re.findall(r"^#(\d+)\s", text, re.MULTILINE) or ["0"]
    return int(counted[-1]), "" if done.returncode == 0 else "\n".join(text.splitlines()[-40:])


def main():
    programs, corpus, found = (pathlib.Path(word).resolve() for word in sys.argv[1:4])
    seconds = int(sys.argv[4])
    names = sys.argv[5:] or sorted(path.name for path in corpus.iterdir())
    total, failures = 0, {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {pool.submit(run, programs, corpus, found, seconds, name): name for name in names}
        for done in concurrent.futures.as_completed(runs):
            inputs, failure = done.result()
            total += inputs
            print(f"{runs[done]:<20} {inputs:>12,} inputs{'  FOUND SOMETHING' if failure else ''}", flush=True)
            if failure:
                failures[runs[done]] = failure
    print(f"{'total':<20} {total:>12,} inputs, {len(failures)} findings")
    for name, failure in failures.items():
        print(f"\n--- {name}: the input is {found}/{name}-*\n{failure}")
    sys.exit(1 if failures else 0)


main()
