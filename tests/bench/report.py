"""Prints the kernel benchmark as ratios of one run: report.py RESULTS.json"""

import json
import re
import statistics
import sys


def rounding(times, speeds):
    print("Plain rounding of a 4096 x 4096 layer; ratios of time within this run")
    print(f"{'kernel':<24}{'threads':>8}{'GB/s of source':>16}{'x memcpy':>10}{'LibTorch takes':>16}")
    for name in sorted(times):
        if not name.startswith("fused/"):
            continue
        _, case, threads = name.split("/")
        copy = times[f"memcpy_source/{case.split('_')[0]}"]
        rival = times.get(f"libtorch/{case}/{threads}")
        line = f"{case:<24}{threads:>8}{speeds[name]:>16.2f}{times[name] / copy:>10.2f}"
        print(line + (f"{rival / times[name]:>15.1f}x" if rival else ""))


def feedback(times):
    print("\nRounding with feedback (LDLQ) of a 4096 x 4096 layer, factorization included")
    print(f"{'threads':<8}{'seconds':>9}{'x at::mm of as many operations':>33}{'LibTorch takes':>16}")
    for threads in (1, 2):
        time = times[f"ldlq/{threads}"]
        product, rival = times[f"square_product/{threads}"] * 2 / 3, times[f"ldlq_libtorch/{threads}"]
        print(f"{threads:<8}{time / 1e3:>9.2f}{time / product:>33.2f}{rival / time:>15.1f}x")
    busy = times["ldlq_beside_a_busy_neighbour/2"]
    print(f"2 threads with one processor kept busy by another: {busy / times['ldlq/2']:.2f}x the quiet time")


def tables(times):
    print("\nTables of values against integers, bf16, one thread")
    for name, integers in (("e2m1", "int4"), ("e4m3", "int8")):
        plain = times["fused/bf16_row/1" if integers == "int8" else "fused/bf16_row_int4/1"]
        ldlq = times["ldlq/1" if integers == "int8" else "ldlq_int4/1"]
        print(f"{name}: plain rounding {times[f'fused/bf16_row_{name}/1'] / plain:.2f}x {integers}, "
              f"LDLQ {times[f'ldlq_{name}/1'] / ldlq:.2f}x")


def quantizers(times):
    print("\nWhole quantizers, a 3072 x 3072 layer, INT8, 2 threads")
    learned, published = times["learned_rounding/2"], 100 * times["published_loop/2"]
    print(f"learned_rounding, defaults, no calibration: {learned / 1e3:.2f} s; its published loop takes {published / learned:.0f}x")
    gptq, quip = times["calibrated/gptq/2"], times["calibrated/quip/2"]
    print(f"gptq, rotated: {gptq / 1e3:.2f} s; quip: {quip / gptq:.2f}x")


def formats(times):
    print("\nA whole layer into each format against INT8 in rows: rtn of BF16 4096 x 4096, one thread; gptq of 2048 x 2048, two threads")
    for name in sorted(times):
        kind, _, rest = name.partition("/")
        if kind != "store":
            continue
        format = rest.split("/")[0]
        plain, gptq = times[name] / times["store/int8/1"], times[f"gptq_to/{format}/2"] / times["gptq_to/int8/2"]
        print(f"{format:<16} rtn {plain:>6.2f}x   gptq {gptq:>6.2f}x")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        runs = json.load(file)["benchmarks"]
    times, speeds = {}, {}
    for run in runs:
        if run["run_type"] != "iteration":
            continue
        name = re.sub(r"/(real_time|iterations:\d+|repeats:\d+)", "", run["name"])
        # Of repetitions the median: they are shuffled among the others, so that a machine that slows down slows all.
        times.setdefault(name, []).append(run["real_time"])
        speeds.setdefault(name, []).append(run.get("bytes_per_second", 0) / 1e9)
    times = {name: statistics.median(values) for name, values in times.items()}
    speeds = {name: statistics.median(values) for name, values in speeds.items()}
    rounding(times, speeds)
    feedback(times)
    tables(times)
    formats(times)
    quantizers(times)


main()
