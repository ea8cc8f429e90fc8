"""A SLURM of its own for tests: controller, two nodes with two fake GPUs each, on loopback, in a temporary folder."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol", "scancel")
SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")
NULL_DEVICE = os.makedev(1, 3)

SLURM_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ctld}
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits for the life of its credential, which is two minutes else
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldParameters=enable_configless
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0
GresTypes=gpu
DefMemPerCPU=500
ReturnToService=2
SlurmdTimeout=10
KillWait=2
MessageTimeout=10
{nodes}
PartitionName=all Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no SLURM can be started here; "" where one can."""
    missing = [name for name in PROGRAMS if _program(name) is None]
    if missing:
        return f"needs SLURM and munge, missing {', '.join(missing)} (scripts/install.sh test installs them for root)"
    return "" if os.geteuid() == 0 else "needs root: slurmd and mknod of the fake GPUs do"


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN)))


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass
class Cluster:
    """A running SLURM; `env` is what its commands need."""

    names: tuple[str, ...] = ("n0", "n1")
    gpus: int = 2
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="slurm")))
    daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self) -> "Cluster":
        try:
            self._configure()
            self._start_munge()
            self._start("slurmctld", "-D", "-i", "-f", self.folder / "slurm.conf")
            for name in self.names:
                self.start_node(name)
            self.wait(lambda: self._idle() == set(self.names), "the nodes are idle")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error) -> None:
        self.stop()

    def _configure(self) -> None:
        # munge wants its socket where others may reach it
        self.folder.chmod(0o755)
        (self.folder / "state").mkdir()
        ctld, *ports = _free_ports(1 + len(self.names))
        nodes = [self._node_line(name, port) for name, port in zip(self.names, ports, strict=True)]
        text = SLURM_CONF.format(
            host=socket.gethostname().split(".")[0], ctld=ctld, folder=self.folder, nodes="\n".join(nodes),
            names=",".join(self.names),
        )  # fmt: skip
        (self.folder / "slurm.conf").write_text(text)
        for k in range(self.gpus):
            os.mknod(self.folder / f"gpu{k}", 0o666 | stat.S_IFCHR, NULL_DEVICE)
        files = f"{self.folder}/gpu[0-{self.gpus - 1}]"
        (self.folder / "gres.conf").write_text(f"Name=gpu File={files}\n")
        # with proctrack/linuxproc SLURM needs no control groups, but reads this file
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")

    def _node_line(self, name: str, port: int) -> str:
        return (
            f"NodeName={name} NodeAddr=127.0.0.1 NodeHostname={socket.gethostname().split('.')[0]} Port={port} "
            f"CPUs=2 RealMemory=64000 Gres=gpu:{self.gpus} State=UNKNOWN"
        )

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        socket_file = self.folder / "munge.socket"
        files = {"key-file": key, "socket": socket_file, "pid-file": self.folder / "munge.pid",
                 "log-file": self.folder / "munge.log", "seed-file": self.folder / "munge.seed"}  # fmt: skip
        self._start("munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items()))
        self.wait(socket_file.is_socket, "munge answers")

    def start_node(self, name: str) -> None:
        """Start slurmd of one node, again after `kill_node` too."""
        (self.folder / f"spool-{name}").mkdir(exist_ok=True)
        self._start("slurmd", "-D", "-N", name, "-f", self.folder / "slurm.conf", key=f"slurmd-{name}")

    def _start(self, program: str, *args, key: str = "") -> None:
        with open(self.folder / f"{key or program}.out", "ab") as log:
            command = [_program(program), *map(str, args)]
            env = {**os.environ, **self.env}
            self.daemons[key or program] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip

    def run(self, *command: str, check: bool = True) -> str:
        """Output of a SLURM command."""
        env = {**os.environ, **self.env}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def _idle(self) -> set[str]:
        lines = self.run("sinfo", "-h", "-N", "-o", "%N %t", check=False).split("\n")
        return {line.split()[0] for line in lines if line.endswith(" idle")}

    def jobs(self) -> dict[int, tuple[str, str]]:
        """State and name of every job that the controller knows, by its number."""
        lines = self.run("squeue", "-h", "-t", "all", "-o", "%i %T %j").splitlines()
        return {int(line.split()[0]): tuple(line.split()[1:3]) for line in lines}

    def running(self, part: str) -> list[int]:
        """Numbers of the running jobs whose name has `part` in it."""
        return [job for job, (state, name) in self.jobs().items() if state == "RUNNING" and part in name]

    def processes(self, job: int) -> list[int]:
        """Process ids of a job's own processes, not of slurmstepd."""
        mark = f"SLURM_JOB_ID={job}".encode()
        return [pid for pid, environ in self._environments() if mark in environ.split(b"\0")]

    def _environments(self):
        ours = f"SLURM_CONF={self.env['SLURM_CONF']}".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                environ = path.read_bytes()
            except OSError:
                continue
            if ours in environ.split(b"\0") and int(path.parent.name) != os.getpid():
                yield int(path.parent.name), environ

    def kill_node(self, name: str) -> None:
        """End a node as a power cut does: slurmd, the steps it manages, and what runs in them."""
        slurmd = self.daemons.pop(f"slurmd-{name}")
        slurmd.kill()
        slurmd.wait()
        for pid in self._of_node(name):
            _kill(pid)
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=power")

    def _of_node(self, name: str) -> list[int]:
        inside = [pid for pid, env in self._environments() if f"SLURMD_NODENAME={name}".encode() in env.split(b"\0")]
        steps = {_parent(pid) for pid in inside}
        return [*(pid for pid in steps if _command(pid).startswith("slurmstepd")), *inside]

    def wait(self, ready, what: str, seconds: float = 30.0):
        """What `ready()` gives once it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            dead = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            if dead:
                raise RuntimeError(f"{dead} ended: {self._logs()}")
            found = ready()
            if found:
                return found
            time.sleep(0.1)
        raise TimeoutError(f"not within {seconds} s: {what}. {self._logs()}")

    def _logs(self) -> str:
        files = [*self.folder.glob("*.log"), *self.folder.glob("*.out")]
        return "\n".join(f"{p.name}: {p.read_text(errors='replace')[-1500:]}" for p in files)

    def stop(self) -> None:
        """End every process of this SLURM and remove its folder."""
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()
        for pid, _ in list(self._environments()):
            _kill(pid)
        shutil.rmtree(self.folder, ignore_errors=True)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""
