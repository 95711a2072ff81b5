"""What compilers emit is counted as by hand, and an absent or crashing one is named."""

import csv
import subprocess
import sys
from types import SimpleNamespace

import pytest

from experiments.accelerators import aot
from experiments.accelerators import main as accelerators

HLO = """HloModule jit_f, is_scheduled=true

%body (p: (f32[8], s32[])) -> (f32[8], s32[]) {
  %p = (f32[8]{0}, s32[]) parameter(0)
  %g = f32[8]{0} get-tuple-element(%p), index=0
  %f.1 = f32[8]{0} fusion(%g), kind=kLoop, calls=%fused
  %d = f32[8]{0} copy(%f.1)
  ROOT %t = (f32[8]{0}, s32[]) tuple(%d, %g)
}

ENTRY %main (a: bf16[4,8]) -> bf16[4,8] {
  %a = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)
  %c = u32[1,3]{1,0} constant({...})
  %k = bf16[4,8]{1,0} custom-call(%c, %a), custom_call_target="tpu_custom_call", backend_config={"x": "%a"}
  %s = (f32[8]{0}, s32[]) tuple(%a, %c)
  %w = (f32[8]{0}, s32[]) while(%s), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %r = bf16[4,8]{1,0} all-gather-start(%k), dimensions={0}
  ROOT %o = (bf16[4,8]{1,0}, pred[16]{0}) fusion(%k, %r), kind=kLoop, calls=%fused.2
}
"""


def test_launches_and_loops():
    """The custom call and the fusion, and five turns of a fusion, a copy and the loop's own."""
    assert aot.launches(HLO) == (2 + 5 * (2 + 1), 1)


def test_bytes_moved():
    """Of the call 12 + 64 + 64; of the loop's carry 36 + 36; of the gather 64 + 64; of the fusion 64 + 64 + 64 + 16."""
    assert aot.moved(HLO) == 140 + 72 + 128 + 208


def test_collectives():
    assert len(aot.COLLECTIVES.findall(HLO)) == 1


@pytest.mark.parametrize(("kind", "size"), [("f32[]", 4), ("(bf16[2,3]{1,0}, u32[5]{0})", 32), ("pred[7]{0}", 7)])
def test_sizes(kind, size):
    assert aot.size(kind) == size


def test_without_a_compiler_nothing_is_compiled(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(accelerators, "COMPILERS", dict.fromkeys(accelerators.COMPILERS, "no_such_compiler"))
    assert accelerators.run(SimpleNamespace(only=None, quick=True, out=tmp_path)) == 1
    printed = capsys.readouterr().out
    assert printed.count("no_such_compiler is not installed") == 4
    assert not any(tmp_path.iterdir())


def test_a_program_that_crashes_the_compiler_is_left_out(monkeypatch, capsys):
    """The others are compiled by a process that starts after it."""
    calls, start = [], subprocess.Popen

    def popen(command, **options):
        calls.append(command[4:])
        script = (
            "import json, os, sys\nfor name in sys.argv[1:]:\n"
            "    os._exit(11) if name == 'b' else print('RESULT', json.dumps({'name': name}), flush=True)"
        )
        return start([sys.executable, "-c", script, *command[4:]], **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    assert accelerators.compile_all("v5e", ["a", "b", "c"]) == {"a": {}, "b": None, "c": {}}
    assert calls == [["a", "b", "c"], ["c"]]
    assert "the compiler crashed on 'b'" in capsys.readouterr().out


@pytest.mark.slow
def test_the_table_and_the_picture(tmp_path, monkeypatch):
    """With figures for every program; rows of a target that is not asked for are kept."""

    def compiled(target, names):
        result = {"launches": 2, "loops": 0, "scratch": 0, "moved": 100, "collectives": 0, "bundles": 9.4}
        return dict.fromkeys(names, result)

    monkeypatch.setattr(accelerators, "compile_all", compiled)
    monkeypatch.setattr(accelerators.importlib.util, "find_spec", lambda name: name)
    accelerators.run(SimpleNamespace(only=None, quick=False, out=tmp_path))
    first = (tmp_path / "accelerators.csv").read_text()
    rows = list(csv.DictReader(first.splitlines()))
    assert {row["device"] for row in rows} == set(accelerators.COMPILERS)
    found = {row["what"]: (row["jdrop"], row["met"]) for row in rows if "8192), rate 0.1, forward" in row["of"]}
    assert found["bundles, x the memory floor"] == ("0.9998", "aim")
    assert found["kernel: launches a pass"] == ("1.0", "yes")
    assert (tmp_path / "accelerators.png").stat().st_size > 10_000
    accelerators.run(SimpleNamespace(only=["h100"], quick=False, out=tmp_path))
    assert (tmp_path / "accelerators.csv").read_text() == first


@pytest.mark.skipif(not __import__("importlib").util.find_spec("libtpu"), reason="needs the compiler for TPUs")
def test_a_tpu_s_compiler_emits_one_kernel():
    name = "jdrop | bfloat16 (256, 512) | 0.1 | forward"
    result = accelerators.compile_all("v5e", [name])[name]
    assert (result["launches"], result["loops"], result["scratch"]) == (1, 0, 0)
