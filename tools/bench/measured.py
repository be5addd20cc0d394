#!/usr/bin/env python3
"""Run a program and say what it took: wall seconds, CPU seconds of all its threads, peak RSS in bytes.

    measured.py FILE PROGRAM [ARGUMENT...]      the three figures go to FILE, the status is the program's

It is a process of its own, and small, because Linux counts the peak of the process that starts a program as the program's own:
started by the bench, with its gigabyte of arrays, nothing could be told. What is below this script's own 10 MB cannot be either.
"""
import os
import sys
import time


def main():
    start = time.perf_counter()
    child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    with open(sys.argv[1], "w", encoding="ascii") as out:
        out.write(f"{seconds} {usage.ru_utime + usage.ru_stime} {usage.ru_maxrss * 1024}")
    return os.waitstatus_to_exitcode(status) % 256


if __name__ == "__main__":
    sys.exit(main())
