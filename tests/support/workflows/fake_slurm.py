"""SLURM's commands as shell scripts that answer from files, for tests of what our engine makes of the answers."""

import os
from pathlib import Path

COMMON = """#!/bin/sh
F='{folder}'
echo "{name} $*" >> "$F/calls"
if [ -s "$F/{name}_fails" ]; then
    left=$(head -n 1 "$F/{name}_fails")
    if [ "$left" -gt 0 ]; then
        sed -i "1s/.*/$((left - 1))/" "$F/{name}_fails"
        sed -n '2,$p' "$F/{name}_fails" >&2
        exit 1
    fi
fi
"""
BODY = {
    "sbatch": """
refused=$(cat "$F/refused" 2>/dev/null)
case "$*" in *"$refused"*) [ -z "$refused" ] || { echo "sbatch: error: invalid partition" >&2; exit 1; } ;; esac
id=$(($(cat "$F/next") + 1)); echo $id > "$F/next"
for script do :; done
if [ -e "$F/runs" ]; then sh "$script" > "$F/out-$id" 2>&1; state=COMPLETED; else state=PENDING; fi
echo "$id|$state|None" >> "$F/states"
cat "$F/said" 2>/dev/null || echo "Submitted batch job $id"
""",
    "squeue": """
case "$*" in *"%T"*) cat "$F/states" ;; *) cat "$F/names" ;; esac
""",
    "scontrol": """
cat "$F/job" 2>/dev/null || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
""",
    "sacct": """
cat "$F/accounts" 2>/dev/null || { echo "Slurm accounting storage is disabled" >&2; exit 1; }
""",
    "scancel": """
: > "$F/names"
""",
}


class FakeSlurm:
    """The commands, in a folder to put on PATH.

    Parameters
    ----------
    folder : Path
        Where commands and answers are kept; made by this.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name, body in BODY.items():
            (folder / name).write_text(COMMON.format(folder=folder, name=name) + body)
            (folder / name).chmod(0o755)
        self.answer(next="100\n", states="", names="")

    @property
    def path(self) -> str:
        """PATH with these commands first."""
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"

    def answer(self, **files: str) -> None:
        """What commands answer from now on, by the name of the file that they read.

        states, names : of squeue with states, and of squeue with names; job, accounts : of scontrol and sacct;
        refused : part of the words with which sbatch refuses; runs : sbatch runs the script; said : by sbatch.
        """
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def fail(self, command: str, said: str, times: int = 1_000_000) -> None:
        """Let a command fail so often."""
        (self.folder / f"{command}_fails").write_text(f"{times}\n{said}\n")

    def calls(self, command: str = "") -> list[str]:
        """The calls of a command, oldest first."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(command)]
