"""A driver in thirty lines: any program in any language that writes line protocol can be one.

    [adapters.lab]
    protocol = "exec"
    command = ["python3", "oven.py", "oven7"]
    folder = "examples/exec"
    path = "leon/paint/{host}/{measurement}/{field}"

It answers for one thing only: write whole lines, and flush. If it dies it is started again; if nothing is taken, its
`print` waits; when the plant stops it gets SIGTERM; should the plant be killed, its standard input ends.
"""

import math
import select
import sys
import time


def read_device(at: float) -> dict[str, float]:
    """Here a real driver would ask its device; what goes wrong it says on stderr and ends with."""
    return {"temperature": 180 + 5 * math.sin(at / 60), "pressure": 4 + math.sin(at / 7) / 10}


def main(host: str = "oven7", every_s: str = "1") -> None:
    """Write a line each second for as long as somebody wants it."""
    while not select.select([sys.stdin], [], [], float(every_s))[0]:
        now = time.time()
        fields = ",".join(f"{name}={value:.3f}" for name, value in read_device(now).items())
        print(f"oven,host={host} {fields} {int(now * 1e9)}", flush=True)


main(*sys.argv[1:])
