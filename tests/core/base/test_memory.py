"""What memory is left, from the files in which Linux says so, and what is refused for it."""

import pytest

from napari_neuraldiffuser.core.base import memory


@pytest.fixture
def linux(tmp_path, monkeypatch):
    """Files of a machine with 8 GB left, and a way to put it into control groups."""
    texts = {"/proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n", "/proc/self/cgroup": ""}
    groups = tmp_path / "cgroup"
    real = memory.Path

    class Fake(type(real())):
        def read_text(self, *given, **more):
            return texts[str(self)] if str(self) in texts else real(self).read_text(*given, **more)

    monkeypatch.setattr(memory, "Path", Fake)
    monkeypatch.setattr(memory, "GROUPS", Fake(groups))
    return texts, groups


def write(folder, **values):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def test_what_the_machine_has(linux):
    assert memory.available() == 8_192_000_000


def test_the_limit_of_a_job_or_of_what_it_lies_in(linux):
    texts, groups = linux
    texts["/proc/self/cgroup"] = "0::/slurm/job_1/step_0\n"
    write(groups / "slurm/job_1/step_0", memory__max="max", memory__current=10)
    write(groups / "slurm/job_1", memory__max=3_000_000_000, memory__current=2_500_000_000)
    write(groups / "slurm/job_1", memory__stat="anon 5\ninactive_file 1000000000")
    # pages of files are given back
    assert memory.available() == 1_500_000_000
    write(groups / "slurm", memory__max=2_600_000_000, memory__current=2_500_000_000)
    assert memory.available() == 100_000_000


def test_version_1_of_control_groups(linux):
    texts, groups = linux
    texts["/proc/self/cgroup"] = "5:cpu:/a\n4:memory:/a\n"
    write(groups / "memory/a", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=7)
    assert memory.available() == 8_192_000_000
    write(groups / "memory/a", memory__limit_in_bytes=1_000_000, memory__usage_in_bytes=400_000)
    assert memory.available() == 600_000


def test_this_machine_says_something_and_takes_a_little():
    assert memory.available() > 1_000_000
    memory.check_fits(1000, "a little")


@pytest.mark.parametrize(("left", "told"), [(5e9, "12.0 GB for 5.0 GB free"), (0, "12.0 GB for 0 kB free")])
def test_what_is_too_large_is_told_with_both_sizes(monkeypatch, left, told):
    monkeypatch.setattr(memory, "available", lambda: int(left))
    with pytest.raises(memory.MemoryNeeded, match=f"the images must fit into memory, got ({told}). Take fewer"):
        memory.check_fits(12e9, "the images")


def test_where_nobody_says_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: None)
    memory.check_fits(1e18, "all the images there are")


def test_work_is_halved_while_memory_does_not_suffice():
    tried, freed = [], []

    def compute(most):
        tried.append(most)
        if most > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 5 bytes")
        return "done"

    with pytest.warns(memory.FewerAtOnce, match=r"7 images at once, now 4|4 images at once, now 2") as told:
        assert memory.halving(compute, 7, "images", lambda: freed.append(1)) == "done"
    assert tried == [7, 4, 2]
    assert len(freed) == len(told) == 2


@pytest.mark.parametrize("error", [MemoryError("full"), ValueError("shapes differ")])
def test_one_that_does_not_fit_and_a_bug_are_raised(error):
    def compute(most):
        raise error

    with pytest.raises(type(error)):
        memory.halving(compute, 1 if isinstance(error, MemoryError) else 8, "images", lambda: None)
