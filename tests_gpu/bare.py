"""A program of `gpu_programs` without any instrument: `bare.py STEPS` prints its peaks and seconds as JSON."""

from __future__ import annotations

import gc
import json
import sys
import time

import gpu_programs
import torch


def main() -> None:
    # As under the instrument: when Python collects cycles must not decide what is allocated.
    gc.disable()
    seconds = []
    for _ in range(int(sys.argv[1])):
        started = time.perf_counter()
        gpu_programs.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    stats = torch.cuda.memory_stats()
    peaks = {kind: stats[f"{kind}_bytes.all.peak"] for kind in ("allocated", "reserved", "requested", "active")}
    sys.stdout.write(json.dumps({"peaks": peaks, "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
