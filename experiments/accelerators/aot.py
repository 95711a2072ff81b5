"""Compile programs for a GPU or a TPU on a machine that has neither, and read what the compiler made of them.

    python -m experiments.accelerators.aot TARGET NAME ...

prints a line of JSON for each named program. It is a process of its own, since libtpu crashes on some programs.
"""

import glob
import json
import math
import os
import re
import sys
import tempfile

SHAPES = {
    "bfloat16 (8192, 8192)": ((8192, 8192), "bfloat16"),
    "bfloat16 (16, 512, 1024)": ((16, 512, 1024), "bfloat16"),
    "float32 (1024, 4096)": ((1024, 4096), "float32"),
    "bfloat16 (256, 512)": ((256, 512), "bfloat16"),
}
FAMILY = (
    "dropout", "drop_path", "channel_dropout", "token_dropout", "alpha_dropout", "feature_alpha_dropout",
    "gaussian_dropout", "gaussian_noise", "drop_block", "concrete_dropout",
)  # fmt: skip
LENGTHS = (1024, 2048, 4096, 8192, 16384)  # of attention
RATES = ("0.1", "0.5", "traced")
MODES = ("forward", "forward and backward")
HBM = 819e9 / 0.94e9  # bytes a cycle of a TPU v5e
VECTOR = 4096  # bytes of a vector register, which a store writes
TPUS = {"v5e": ("v5e:2x2", (2, 2, 1)), "v5p": ("v5p:2x2x1", (2, 2, 1)), "v6e": ("v6e:2x2", (2, 2, 1))}
H100 = {  # NVIDIA's public figures of the H100 SXM5 80 GB, by the names of XLA's GpuDeviceInfoProto
    "threads_per_block_limit": 1024, "threads_per_warp": 32, "threads_per_core_limit": 2048, "core_count": 132,
    "fpus_per_core": 128, "shared_memory_per_block": 48 * 2**10, "shared_memory_per_core": 228 * 2**10,
    "shared_memory_per_block_optin": 227 * 2**10, "registers_per_core_limit": 2**16, "registers_per_block_limit": 2**16,
    "block_dim_limit_x": 2**31 - 1, "block_dim_limit_y": 2**16 - 1, "block_dim_limit_z": 2**16 - 1,
    "memory_bandwidth": 3_352_320_000_000, "l2_cache_size": 50 * 2**20, "clock_rate_ghz": 1.98,
    "device_memory_size": 80 * 10**9,
}  # fmt: skip


def names(target, quick=False) -> list[str]:
    """The programs for a target."""
    whats = ["jdrop", "flax", "x * c"] + (["jdrop xla"] if target == "h100" else [])
    found = []
    for shape in list(SHAPES)[-1:] if quick else list(SHAPES)[:-1]:
        for what in whats:
            for rate in RATES if what.startswith("jdrop") else RATES[:1]:
                found += [f"{what} | {shape} | {rate} | {mode}" for mode in MODES[: 1 if what == "x * c" else 2]]
    if quick:
        return found
    if target == "h100":
        found += [f"block {layer} | {kind}" for layer in ("none", "jdrop", "flax") for kind in ("plain", "checkpoint")]
        found += ["seeds | 1", "seeds | 5"]
    if target in ("h100", "v5e"):
        found += ["vmap | 100", "mc_dropout | 100", "samples | 100", "attention flax | 4096"]
        found += [f"attention jdrop | {length}" for length in LENGTHS]
        found += [f"family {name} | forward and backward" for name in FAMILY]
    if target == "v5e":
        found += [f"mesh {kind} | {count}" for kind in ("explicit", "auto") for count in ("4", "256")]
    return found


class Compiler:
    """What compiles for a target."""

    def __init__(self, target):
        os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_SKIP_MDS_QUERY": "1"}
        self.target, self.dump, self.topologies = target, tempfile.mkdtemp(), {}
        if target in TPUS:
            os.environ["LIBTPU_INIT_ARGS"] = f"--xla_jf_dump_to={self.dump} --xla_jf_dump_llo_text=true"
        else:
            os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"

    def devices(self, count=4):
        if count not in self.topologies:
            self.topologies[count] = self._devices(count)
        return self.topologies[count]

    def _devices(self, count):
        import jax
        from jax.experimental import topologies

        if self.target in TPUS:
            name, host = TPUS[self.target]
            name = "v5e:16x16" if count == 256 else name
            return topologies.get_topology_desc(
                platform="tpu", topology_name=name, chips_per_host_bounds=host, num_slices=1
            ).devices
        jax.devices("cpu")  # JAX looks for its plugins
        fields = "\n".join(f"{name}: {value}" for name, value in H100.items())
        config = f"gpu_device_info {{ {fields} cuda_compute_capability {{ major: 9 }} }}\n"
        config += 'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } device_description_str: "NVIDIA H100"'
        return topologies.get_topology_desc(
            platform="cuda", topology_name="h100", topology="1x1x1", target_config=config
        ).devices

    def __call__(self, function, *arguments, shardings=None) -> dict:
        import jax
        from jax.sharding import SingleDeviceSharding

        place = SingleDeviceSharding(self.devices()[0]) if shardings is None else None
        shardings = jax.tree.map(lambda _: place, arguments) if shardings is None else shardings
        arguments = jax.tree.map(
            lambda a, sharding: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), arguments, shardings
        )
        for old in glob.glob(f"{self.dump}/*"):
            os.remove(old)
        compiled = jax.jit(function).lower(*arguments).compile()
        text = compiled.as_text()
        launched, loops = launches(text)
        return {
            "launches": launched,
            "loops": loops,
            "scratch": compiled.memory_analysis().temp_size_in_bytes,
            "moved": moved(text),
            "collectives": len(COLLECTIVES.findall(text)),
            "bundles": self.bundles(),
        }

    def bundles(self):
        """Instruction bundles a vector store of a TPU's largest kernel: its cycles, if it is straight-line code."""
        best = (0, 1)
        for path in glob.glob(f"{self.dump}/*final_hlo-static-per-bundle-utilization.txt"):
            with open(path) as file:
                rows = [
                    [int(n) for n in line.split()] for line in file if re.fullmatch(r"[\d\s]+", line.strip() or "-")
                ]
            rows = [row for row in rows if len(row) == 10][1:]  # the first says how many units there are
            stores = sum(row[7] for row in rows)
            best = max(best, (len(rows), stores)) if stores >= 32 else best
        return best[0] / best[1]


COLLECTIVES = re.compile(r" (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
_INSTRUCTION = re.compile(r"^  (?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_KERNELS = "fusion|custom-call|copy|dot|convolution|sort|rng-bit-generator|reduce|call"
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "copy-start", "copy-done", "partition-id"}
_BITS = {"pred": 8, "bf16": 16, "f8e4m3fn": 8, "f8e5m2": 8}


def computations(text) -> tuple[dict, str]:
    """(name -> instructions as (name, type, operation, the rest), the name of the entry) of an HLO text."""
    found, current, entry = {}, None, None
    for line in text.splitlines():
        if (head := re.match(r"^(ENTRY )?%?([\w.\-]+) .*\{$", line)) and not line.startswith("HloModule"):
            current = found.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current.append(match.groups())
    return found, entry


def launches(text) -> tuple[int, int]:
    """(kernels that run one after another, loops), with the bodies of loops of a known trip count multiplied out."""
    found, entry = computations(text)

    def count(name):
        total = loops = 0
        for _, _, operation, rest in found.get(name, ()):
            total += bool(re.fullmatch(_KERNELS, operation))
            if operation == "while":
                trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
                inner, nested = count(re.search(r"body=%?([\w.\-]+)", rest)[1])
                total += (inner + 1) * (int(trips[1]) if trips else 1)
                loops += 1 + nested
        return total, loops

    return count(entry)


def moved(text) -> int:
    """Bytes of the operands and results of all kernels of the entry: XLA's own count leaves out those of Pallas."""
    found, entry = computations(text)
    sizes = {name: size(kind) for name, kind, _, _ in found[entry]}
    total = 0
    for name, _, operation, rest in found[entry]:
        if operation not in _FREE:
            operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
            total += sizes[name] + sum(sizes.get(operand, 0) for operand in operands)
    return total


def size(kind) -> int:
    """Bytes of an HLO type."""
    total = 0
    for dtype, axes in re.findall(r"([a-z]\w*)\[([\d,]*)\]", kind):
        bits = _BITS.get(dtype) or int(re.sub(r"\D", "", dtype) or 0)
        total += math.prod(int(n) for n in axes.split(",") if n) * bits // 8
    return total


def program(compiler, name) -> dict:
    """Compile a program by its name in `names`."""
    import jax
    import jax.numpy as jnp

    what, *details = name.split(" | ")
    key = jax.eval_shape(lambda: jax.random.key(0))
    if details[0] in SHAPES:
        shape, dtype = SHAPES[details[0]]
        x = jax.ShapeDtypeStruct(shape, dtype)
        if what == "x * c":
            return compiler(lambda key, x: x * jnp.asarray(1.1, x.dtype), key, x)
        rate = [jax.ShapeDtypeStruct((), jnp.float32)] if details[1] == "traced" else []
        drop = _dropout(what, None if rate else float(details[1]))
        return compiler(drop if details[2] == MODES[0] else with_gradient(drop), key, x, *rate)
    from experiments.accelerators import programs

    return programs.compiled(compiler, what, details[0])


def with_gradient(drop):
    """The output of `drop(key, x, *rate)`, and its pullback of x."""
    import jax

    def both(key, x, *rate):
        y, pull = jax.vjp(lambda x: drop(key, x, *rate), x)
        return y, *pull(x)

    return both


def _dropout(what, rate):
    import flax.linen as nn

    import jdrop

    if what == "flax":
        layer = nn.Dropout(rate)
        return lambda key, x: layer.apply({}, x, deterministic=False, rngs={"dropout": key})
    implementation = "xla" if what == "jdrop xla" else None
    if rate is None:
        return lambda key, x, rate: jdrop.dropout(key, x, rate, implementation=implementation)
    return lambda key, x: jdrop.dropout(key, x, rate, implementation=implementation)


def main(target, *chosen):
    compiler = Compiler(target)
    for name in chosen:
        print("RESULT " + json.dumps({"name": name} | program(compiler, name)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
