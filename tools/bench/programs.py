"""Programs, and what they take."""
import pathlib
import subprocess
import sys
import tempfile

MEASURED = pathlib.Path(__file__).with_name("measured.py")


class Result:
    """Of a program that succeeded: standard output, wall seconds, CPU seconds of all threads, peak RSS in bytes."""

    def __init__(self, *command, env=None):
        words = [str(word) for word in command]
        with tempfile.NamedTemporaryFile("r") as figures:
            done = subprocess.run([sys.executable, "-I", "-S", MEASURED, figures.name, *words], env=env,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if done.returncode != 0:
                raise SystemExit(f"bench: {' '.join(words)}: status {done.returncode}\n{done.stderr}")
            seconds, cpu, memory = figures.read().split()
        self.out, self.seconds, self.cpu, self.memory = done.stdout, float(seconds), float(cpu), int(memory)
