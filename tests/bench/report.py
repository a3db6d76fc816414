"""Prints the kernel benchmark as ratios of one run: report.py RESULTS.json"""

import json
import sys


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        runs = json.load(file)["benchmarks"]
    times = {run["name"].removesuffix("/real_time"): run["real_time"] for run in runs}
    speeds = {run["name"].removesuffix("/real_time"): run["bytes_per_second"] / 1e9 for run in runs}
    print("Plain rounding of a 4096 x 4096 layer; ratios of time within this run")
    print(f"{'kernel':<24}{'threads':>8}{'GB/s of source':>16}{'x memcpy':>10}{'LibTorch takes':>16}")
    for name in times:
        if not name.startswith("fused/"):
            continue
        _, case, threads = name.split("/")
        copy = times[f"memcpy_source/{case.split('_')[0]}"]
        rival = times.get(f"libtorch/{case}/{threads}")
        line = f"{case:<24}{threads:>8}{speeds[name]:>16.2f}{times[name] / copy:>10.2f}"
        print(line + (f"{rival / times[name]:>15.1f}x" if rival else ""))


main()
