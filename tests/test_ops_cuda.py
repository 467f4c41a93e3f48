"""The Triton kernels against the float64 reference, their operators, and when they are chosen.

Without a CUDA device they run in Triton's interpreter, on a few atoms (tests/conftest.py asks for it before Triton is
imported); with one, the same tests run on it, and those marked `gpu` at realistic sizes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attention_cases import (
    ATOM,
    IRON,
    MOLECULE,
    NAMES,
    OUTPUT_BAR,
    SALT,
    assert_agrees,
    batch_of,
    evaluated,
    reference_output,
    weights,
)
from authors_format import golden_batch, golden_model
from processes import assert_same_gradients, check_compiled, gradients, tiny_model
from refusals import refused
from torch import Tensor, multiprocessing as mp

from crystalframer import ops
from crystalframer.config import (
    FRAME_METHODS,
    CosineBasis,
    DecayConfig,
    DistanceBasis,
    FrameConfig,
    FrameMethod,
    ModelConfig,
)
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import ConfigError
from crystalframer.maths import segments
from crystalframer.maths.edges import Edges
from crystalframer.model.network import CrystalFramer
from crystalframer.ops import compilers
from crystalframer.ops.reference import AttentionInputs
from crystalframer.presets import preset
from crystalframer.testing import random_crystal

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONFIG = ModelConfig(n_heads=4, d_model=32, distance=DistanceBasis(n_centers=24))
ODD = ModelConfig(
    n_heads=3,
    d_model=15,
    distance=DistanceBasis(n_centers=7, max_distance=5.0),
    cosine=CosineBasis(n_centers=8, width=1.0),
)


@pytest.fixture(autouse=True)
def _few_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The interpreter takes its time by the operation, not by the size of its tensors."""
    from crystalframer.ops import cuda

    if DEVICE == "cpu":
        monkeypatch.setattr(cuda, "BLOCK", 32)
        monkeypatch.setattr(cuda, "BLOCK_OF_SETS", 64)
    yield


def on_kernels(given: AttentionInputs) -> Tensor:
    with ops.use("cuda"):
        return ops.framed_attention(given)


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_agrees_with_the_reference(method: FrameMethod) -> None:
    batch = batch_of(random_crystal(1, 3), random_crystal(2, 3), radius=3.6)
    assert_agrees(on_kernels, batch, replace(CONFIG, frame=FrameConfig(method)), device=DEVICE)


@pytest.mark.parametrize(("method", "crystals"), [("max", (SALT, ATOM)), ("static-max", (IRON, MOLECULE))])
def test_ties_go_the_same_way_as_in_the_reference(method: FrameMethod, crystals: tuple[Crystal, ...]) -> None:
    """Rock salt and a lone atom, a one-atom cell and a linear molecule: nearly everything ties."""
    batch = batch_of(*crystals, radius=3.0)
    assert_agrees(on_kernels, batch, replace(ODD, frame=FrameConfig(method)), device=DEVICE)


def test_the_first_of_equals_without_a_tie_rule() -> None:
    config = replace(ODD, frame=FrameConfig(tie_margin=0.0))
    assert_agrees(on_kernels, batch_of(SALT, radius=3.0), config, device=DEVICE)


@pytest.mark.parametrize("method", ["max", "static-max"])
def test_noise_is_that_of_the_reference(method: FrameMethod) -> None:
    """Noise as large as the scores, so that it alone chooses: another seed, another frame."""
    config = replace(ODD, frame=FrameConfig(method, noise=10.0))
    batch = batch_of(random_crystal(1, 2), radius=3.0)
    outputs = []
    for seed in (2**40 + 3, -7):
        assert_agrees(on_kernels, batch, config, seed, device=DEVICE)
        edges = Edges.of(batch.to(DEVICE))
        outputs.append(evaluated(on_kernels, weights(2, config), edges, config, seed)["output"])
    assert (outputs[0] - outputs[1]).abs().max() > 0.1


FRAMES = {
    "noise": FrameConfig(second_axis="sine", noise=10.0),
    "drawn": FrameConfig(weighted_margin=0.1),
    "drawn by sine": FrameConfig(weighted_margin=3.0, second_axis="sine"),
    "nearest drawn by sine": FrameConfig("static-max", weighted_margin=2.0, second_axis="sine"),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_training_takes_the_edges_of_the_reference(frame: FrameConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """In sets of one member and of all neighbours, along a line and of none. No code in plain torch serves."""
    from crystalframer.ops import cuda

    for name in ("build_frames", "frames_from_edges"):
        monkeypatch.setattr(cuda, name, None)
    monkeypatch.setattr(cuda, "BLOCK", 8)
    batch = batch_of(random_crystal(1, 2), SALT, IRON, MOLECULE, ATOM, radius=3.0, enlarge=False)
    for seed in (2**40 + 3, 7):
        assert_agrees(on_kernels, batch, replace(ODD, frame=frame), seed, device=DEVICE)


def test_ties_by_the_rule_sine_for_both_hands() -> None:
    """Pyramids of three equal neighbours: with one hand another frame would be chosen."""
    pyramids = Crystal(np.array([32, 52]), np.array([[0.0, 0, 0], [-1.7, -1.7, -1.7]]), 3.0 * (np.eye(3) - 1))
    config = replace(ODD, frame=FrameConfig(second_axis="sine", both_hands=True))
    assert_agrees(on_kernels, batch_of(pyramids, radius=3.6, enlarge=False), config, device=DEVICE)


@pytest.mark.parametrize(
    ("frame", "reach"),
    [(FrameConfig("none"), 2.0), (FrameConfig(), 4.0), (FRAMES["drawn by sine"], 2.0), (FRAMES["drawn by sine"], 3.0)],
)
def test_the_envelope_is_that_of_the_reference(
    frame: FrameConfig, reach: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients, for neighbours within, at and beyond the reach of heads, and for atoms that see none."""
    from crystalframer.ops import cuda

    monkeypatch.setattr(cuda, "BLOCK", 8)
    config = replace(ODD, frame=frame, decay=DecayConfig(reach=reach))
    crystals = (SALT, MOLECULE, ATOM, random_crystal(1, 2))
    assert_agrees(on_kernels, batch_of(*crystals, radius=4.0, enlarge=False), config, 1, device=DEVICE)


@pytest.mark.parametrize(
    ("name", "crystals", "reach"),
    [
        ("drawn", (SALT, MOLECULE, ATOM), 2.0),
        ("drawn by sine", (random_crystal(1, 2),), None),
        ("nearest drawn by sine", (IRON, MOLECULE), None),
    ],
)
def test_evaluation_sums_over_sets(
    name: str, crystals: tuple[Crystal, ...], reach: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Octahedra and cubes, more axes than are gathered at once, a line, an atom alone; several blocks of edges."""
    from crystalframer.ops import cuda, reference

    monkeypatch.setattr(cuda, "BLOCK_OF_SETS", 8)
    monkeypatch.setattr(cuda, "MOST_AXES", 8)
    config = replace(ODD, n_heads=2, d_model=10, frame=FRAMES[name], decay=DecayConfig(reach=reach))
    given, exact = without_gradients(batch_of(*crystals, radius=3.0, enlarge=False), config)
    expected = reference.framed_attention(exact).output
    monkeypatch.setattr(reference, "framed_attention", None)
    assert float((on_kernels(given).cpu() - expected).abs().max() / expected.abs().max()) <= OUTPUT_BAR


def without_gradients(batch: CrystalBatch, config: ModelConfig) -> tuple[AttentionInputs, AttentionInputs]:
    """Inputs of an evaluation on the device, and in float64."""
    tensors: list[Any] = weights(batch.n_atoms, config)
    exact = AttentionInputs(*tensors, edges=Edges.of(batch.to(dtype=torch.float64)), config=config)
    edges = Edges.of(batch.to(DEVICE))
    return AttentionInputs(*(t.to(edges.lengths) for t in tensors), edges=edges, config=config), exact


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of NumPy, which interprets the kernels
@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("name", ["query", "key"])
def test_nan_reaches_what_sees_it_and_nothing_else(name: str, seed: int | None) -> None:
    config = replace(ODD, frame=FrameConfig(weighted_margin=1e-3, second_axis="sine"))
    edges = Edges.of(batch_of(random_crystal(1, 2), MOLECULE, radius=3.0, enlarge=False).to(DEVICE))
    tensors: list[Any] = [t if t is None else t.to(edges.lengths) for t in weights(4, config)]
    with torch.no_grad():
        whole = on_kernels(AttentionInputs(*tensors, edges=edges, config=config, noise_seed=seed))
        tensors[NAMES.index(name)][0, 2] = torch.nan
        found = on_kernels(AttentionInputs(*tensors, edges=edges, config=config, noise_seed=seed))
    atoms = edges.query[edges.key == 0].unique() if name == "key" else torch.tensor([0])
    assert found[atoms, 2].isnan().all()
    found[atoms, 2] = whole[atoms, 2]
    assert torch.equal(found, whole)


def test_blocks_of_edges_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that are no powers of two, atoms of more edges than a block and of fewer."""
    from crystalframer.ops import cuda

    monkeypatch.setattr(cuda, "BLOCK", 16)
    batch = batch_of(random_crystal(3, 1), MOLECULE, radius=6.0)
    assert int(torch.bincount(batch.edge_index[0]).max()) > 32
    assert_agrees(on_kernels, batch, ODD, device=DEVICE)


def test_a_model_gives_the_same_predictions_and_gradients() -> None:
    """Through autograd of two layers, without gradients, and under bfloat16 autocast of the dense layers."""
    model, batch = tiny_model().to(DEVICE), batch_of(random_crystal(1, 2), radius=3.0).to(DEVICE)
    predictions, by_weight = [], []
    names: tuple[ops.Implementation, ...] = ("reference", "cuda")
    for name in names:
        with ops.use(name):
            with torch.no_grad():
                plain = model(batch)
            with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
                low = model(batch)
            assert torch.equal(plain, model(batch).detach())
            by_weight.append(gradients(model, batch))
        predictions.append(torch.cat([plain, low.float()]))
    torch.testing.assert_close(predictions[1], predictions[0], rtol=1e-4, atol=1e-5)
    assert_same_gradients(by_weight[1], by_weight[0], 1e-4)


def test_training_follows_a_prediction() -> None:
    """What is kept of a prediction in inference mode serves a training."""
    from crystalframer.ops import cuda

    cuda._polynomials_on.cache_clear()
    batch = batch_of(random_crystal(1, 2), radius=3.0).to(DEVICE)
    model = CrystalFramer(preset("tiny").config.model, torch.Generator().manual_seed(0)).to(DEVICE)
    with ops.use("cuda"):
        with torch.inference_mode():
            expected = model(batch)
        found = model(batch)
        found.sum().backward()
    assert torch.equal(found.detach(), expected)


def test_gradients_are_the_same_every_time() -> None:
    """Bit for bit: nothing is summed in an order that depends on which program ends first."""
    edges = Edges.of(batch_of(random_crystal(1, 3), radius=3.0).to(DEVICE))
    runs = [evaluated(on_kernels, weights(3, ODD), edges, ODD) for _ in range(2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


@pytest.mark.parametrize("n_columns", [16, 5])
def test_means_of_segments(n_columns: int) -> None:
    """Some of them empty or longer than a block of rows; with the gradient, and the gradient of the gradient."""
    segment = torch.tensor([0] * 11 + [2] * 3 + [3] + [5] * 8, device=DEVICE)
    values = torch.randn(len(segment), n_columns, device=DEVICE, requires_grad=True)
    exact = segments.segment_mean(values.detach().double(), segment, 7)
    with ops.use("cuda"):
        found = ops.segment_mean(values, segment, 7)
    torch.testing.assert_close(found.double(), exact)
    factor = torch.randn(7, n_columns, device=DEVICE, requires_grad=True)
    (gradient,) = torch.autograd.grad((factor * found).sum(), values, create_graph=True)
    sizes = segment.bincount(minlength=7).clamp(min=1)[:, None]
    torch.testing.assert_close(gradient, (factor / sizes)[segment])
    (second,) = torch.autograd.grad(gradient.square().sum(), factor)
    torch.testing.assert_close(second, 2 * factor / sizes * (segment.bincount(minlength=7)[:, None] / sizes))


def test_rows_of_a_table_and_their_gradient() -> None:
    table = torch.randn(6, 3, device=DEVICE, requires_grad=True)
    row = torch.tensor([4, 0, 4, 4, 2], device=DEVICE)
    factor = torch.randn(5, 3, device=DEVICE)
    with ops.use("cuda"):
        found = ops.lookup(table, row)
    assert torch.equal(found, table[row])
    (gradient,) = torch.autograd.grad((factor * found).sum(), table)
    (expected,) = torch.autograd.grad((factor * table[row]).sum(), table)
    torch.testing.assert_close(gradient, expected)


def test_operators_pass_torchs_own_checks() -> None:
    """Schema, fake tensors, autograd registration."""
    from crystalframer.ops import cuda

    edges = Edges.of(batch_of(random_crystal(1, 2), radius=2.5).to(DEVICE))
    ends = cuda._ends(edges)
    geometry = (edges.lengths, edges.directions, edges.is_self)
    q, k, v = (torch.randn(2, 2, 4, device=DEVICE, requires_grad=True) for _ in range(3))
    precision = torch.rand(2, 2, device=DEVICE, requires_grad=True)
    attention = torch.rand(len(edges.query), 2, device=DEVICE, requires_grad=True)
    axes = torch.randn(2, 2, 3, 3, device=DEVICE)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    check: Any = partial(torch.library.opcheck, test_utils=tests)
    check(cuda.attend, (q, k, precision, edges.lengths, *ends, 0.08))
    check(cuda.accumulate, (attention, ends.first_edge[1:].clone(), v, axes, *geometry, *ends, 4, 0.5, 1.0, 4))
    logits, seed = attention.detach(), torch.tensor(1, device=DEVICE)
    seen = (logits, logits, *geometry, ends.first_edge)
    check(cuda.max_frames, (*seen, seed, False, True, False, 1e-3, 0.0, True))
    check(cuda.cosines_of_sets, (*seen, False, True, 0.1, 4))
    values, first = torch.randn(3, 5, device=DEVICE, requires_grad=True), torch.tensor([0, 1, 3], device=DEVICE)
    check(cuda.segment_sums, (values, torch.tensor([0, 1, 1], device=DEVICE), first))


def test_torch_compiles_it_as_one_graph() -> None:
    """In a process of its own: the checks of types that other tests run under cannot be compilers."""
    mp.spawn(check_compiled, ("max", "cuda", DEVICE), nprocs=1)  # type: ignore[attr-defined]


# --- choice -----------------------------------------------------------------------------------------------------------


def serving(device: str, dtype: torch.dtype = torch.float32) -> str:
    return ops.serving(torch.device(device), dtype)


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Sets what happens when the first kernel is tried on a GPU."""
    from crystalframer.ops import triton_probe

    compilers.compiler_is_there.cache_clear()
    monkeypatch.setattr(triton_probe, "run", lambda: None)
    yield lambda run: monkeypatch.setattr(triton_probe, "run", run)
    compilers.compiler_is_there.cache_clear()


@pytest.mark.usefixtures("as_in_production", "probe")
def test_choice_by_device_and_precision() -> None:
    cases = {("cuda", torch.float32): "cuda", ("cpu", torch.float32): "cpu", ("mps", torch.float32): "reference"}
    cases |= {(device, torch.float64): "reference" for device in ("cuda", "cpu")}
    for (device, dtype), expected in cases.items():
        assert serving(device, dtype) == expected
    with ops.use("reference"):
        assert serving("cuda") == "reference"


@pytest.mark.usefixtures("as_in_production")
def test_who_insists_gets_it_or_an_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with ops.use("cpu"), refused(ConfigError, "float32 on a cpu", "float32 on cuda:0", field="implementation"):
        serving("cuda:0")
    with ops.use("cuda"), refused(ConfigError, "float64 on cuda", field="implementation"):
        serving("cuda", torch.float64)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with ops.use("cuda"), refused(ConfigError, "float32 on cpu", field="implementation"):
        serving("cpu")
    monkeypatch.setattr(ops, "find_spec", lambda name: None)
    with ops.use("cuda"), refused(ConfigError, "pip install triton", field="implementation"):
        serving("cuda")


@pytest.mark.usefixtures("as_in_production", "probe")
def test_without_triton_the_reference_serves_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="Triton is not installed.*pip install triton") as seen:
        assert [serving("cuda") for _ in range(3)] == ["reference"] * 3
    assert len(seen) == 1


def test_one_kernel_is_tried() -> None:
    """In the interpreter, where there is no GPU."""
    from crystalframer.ops import triton_probe

    triton_probe.run(DEVICE)


NO_COMPILER = """
import warnings
import torch
from triton.runtime.build import compile_module_from_src
from crystalframer import ops
from crystalframer.ops import compilers, triton_probe

def without_a_c_compiler():
    compile_module_from_src(src="int x;", name="probe")

def on_a_gpu_that_triton_does_not_know():
    triton_probe._store[(1,)](torch.zeros(1))

for run, why in ((without_a_c_compiler, "C compiler"), (on_a_gpu_that_triton_does_not_know, "driver")):
    triton_probe.run = run
    compilers.compiler_is_there.cache_clear()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = [ops.serving(torch.device("cuda"), torch.float32) for _ in range(3)]
    print(found, len(seen), "Triton cannot compile for this GPU" in str(seen[0].message), why in str(seen[0].message))
"""


def test_where_triton_cannot_compile_the_reference_serves_with_one_warning(tmp_path: Path) -> None:
    """Triton itself raises the errors."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": str(tmp_path)}
    environment.pop("CC", None)
    command = [sys.executable, "-c", NO_COMPILER]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["['reference', 'reference', 'reference'] 1 True True"] * 2


def test_a_full_gpu_is_not_one_without_a_compiler(probe: Callable[[Callable[[], None]], None]) -> None:
    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    probe(full)
    with pytest.raises(torch.OutOfMemoryError):
        compilers.compiler_is_there("cuda")
    probe(lambda: None)
    assert compilers.compiler_is_there("cuda")


# --- what the GPU gets ------------------------------------------------------------------------------------------------

COMPILE_FOR_HOPPER = """
import subprocess, sys
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from crystalframer.ops import triton_frames, triton_kernels, triton_ties

INTEGERS = ("n_heads",)
NUMBERS = ("scale", "factor", "spacing", "sharpness", "noise", "margin", "steepness")
LONG = ("key_atom", "query_atom", "first_edge", "last_edge", "incoming", "first_incoming", "first", "seed")
POINTERS = {"is_self": "*i1", **dict.fromkeys(LONG, "*i64")}
SIZES = dict(HEADS=8, D_HEAD=16, D=16, N_CENTERS=64, CENTERS=64, DEGREE=40, DEGREES=64, ROW=24, BLOCK=16, ENDS=True)
SIZES |= dict(N_COLUMNS=128, COLUMNS=128)
jobs = {name: (getattr(triton_kernels, name), SIZES) for name in sys.argv[1:]}
RULES = dict(NEAREST=False, SINE=True)
jobs |= {
    "noisy_frames": (triton_frames.max_frames, SIZES | RULES | dict(NOISY=True, DRAWN=False)),
    "drawn_frames": (triton_frames.max_frames, SIZES | RULES | dict(NOISY=False, DRAWN=True)),
    "cosines_of_sets": (triton_ties.cosines_of_sets, SIZES | RULES | dict(MOST=32, BLOCK=32)),
}
tools = Path(triton.__file__).parent / "backends/nvidia/bin"
for job, (kernel, sizes) in jobs.items():
    kind = lambda n: "i32" if n in INTEGERS else "fp32" if n in NUMBERS else POINTERS.get(n, "*fp32")
    names = kernel.arg_names
    constants = {(names.index(n),): sizes[n] for n in names if n in sizes}
    signature = {n: "constexpr" if n in sizes else kind(n) for n in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if signature[n].startswith("*")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": 1, "enable_fp_fusion": True}
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]
    Path("kernel.cubin").write_bytes(binary)
    usage = subprocess.run([tools / "cuobjdump", "-res-usage", "kernel.cubin"], capture_output=True, text=True).stdout
    code = subprocess.run([tools / "nvdisasm", "-c", "kernel.cubin"], capture_output=True, text=True).stdout
    stack = next(word for word in usage.split() if word.startswith("STACK:"))
    print(job, stack.removeprefix("STACK:"), code.count("FFMA") + code.count("FMUL"), code.count("SHFL"), sep=";")
"""


def test_kernels_compile_for_hopper_and_keep_sums_in_registers(tmp_path: Path) -> None:
    """No local memory; and no more multiplications and shuffles than the layouts that the kernels count on take.

    Another layout repeats work in idle lanes (four times the multiplications) or sums across lanes (thousands of
    shuffles); results stay right, so that only this sees it.
    """
    names = ("attend", "attend_backward", "gather_to_keys", "accumulate", "accumulate_backward", "segment_sums")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", COMPILE_FOR_HOPPER, *names]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = [line.split(";") for line in result.stdout.splitlines()]
    found = {name: [int(number) for number in numbers] for name, *numbers in rows}
    assert found.keys() == {*names, "noisy_frames", "drawn_frames", "cosines_of_sets"}
    stacks = {name: stack for name, (stack, _, _) in found.items()}
    assert stacks.pop("cosines_of_sets") <= 64, "some numbers of its loops wait there, none of the innermost"
    assert stacks == dict.fromkeys(stacks, 0)
    # An edge of a block of 16: 80 multiplications for the cosines and 26 for the distances of the forward pass; half of
    # the cosines' are additions in the backward pass.
    assert 16 * 106 <= found["accumulate"][1] <= 16 * 140
    assert 16 * 66 <= found["accumulate_backward"][1] <= 16 * 100
    assert found["accumulate"][2] <= 120 and found["accumulate_backward"][2] <= 200
    # Twice: moments along gathered axes are summed in two places.
    assert 2 * 80 <= found["cosines_of_sets"][1] <= 2 * 250


# --- on a GPU, at realistic sizes -------------------------------------------------------------------------------------

UNTIED = [0, 1, 2, 3, 4]
"""Golden crystals without symmetry."""


@pytest.mark.gpu
@pytest.mark.parametrize("method", FRAME_METHODS)
def test_agrees_at_full_size(method: FrameMethod) -> None:
    config = ModelConfig(frame=FrameConfig(method))
    crystals = [random_crystal(n, n) for n in range(3, 33)]
    if method in ("max", "static-max", "none"):  # principal axes of symmetric surroundings are not determined
        crystals += [SALT, IRON, MOLECULE, ATOM]
    assert_agrees(on_kernels, batch_of(*crystals, radius=config.radius), config, device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("reach", [None, 5.0])
def test_weighted_sets_at_full_size(reach: float | None) -> None:
    """Draws and sums; and the host waits for nothing but the result."""
    frame = FrameConfig(weighted_margin=0.1, second_axis="sine", both_hands=True)
    config = ModelConfig(frame=frame, decay=DecayConfig(reach=reach))
    crystals = [*(random_crystal(n, n) for n in range(3, 18)), SALT, IRON, MOLECULE, ATOM]
    batch = batch_of(*crystals, radius=config.radius, enlarge=config.enlarges_radius)
    assert_agrees(on_kernels, batch, config, 3, device="cuda")
    given, exact = without_gradients(batch, config)
    expected = reference_output(exact)
    assert float((on_kernels(given).cpu() - expected).abs().max() / expected.abs().max()) <= OUTPUT_BAR
    training = replace(given, noise_seed=torch.tensor(3, device="cuda"))
    on_kernels(training)
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_kernels(given)
        on_kernels(training)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["max", "max_light", "no", "max_static"])
def test_golden_inputs(name: str, tmp_path: Path) -> None:
    """Those without symmetry: where edges tie, rounding decides which is the first."""
    model = golden_model(name, tmp_path, torch.float32)
    exact = golden_model(name, tmp_path, torch.float64)
    batch = golden_batch(ModelConfig().radius, torch.float32, UNTIED)
    with torch.no_grad(), ops.use("cuda"):
        found = model.to("cuda")(batch.to("cuda")).cpu()
    expected = exact(batch.to(dtype=torch.float64)).detach()
    assert float((found - expected).abs().max()) <= 2e-5 * float(expected.abs().max())


def losses(device: str, batch: CrystalBatch) -> list[float]:
    """With an eps at which AdamW does not magnify rounding: its first steps are else ±lr, whatever the gradient."""
    model = CrystalFramer(ModelConfig(), torch.Generator().manual_seed(0)).to(device)
    model.calibrate(batch.to(device))
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-4, eps=1e-3)
    targets = torch.linspace(-1, 1, batch.n_crystals, device=device)[:, None]
    found = []
    for step in range(20):
        optimiser.zero_grad()
        loss = (model(batch.to(device), noise_seed=step) - targets).abs().mean()
        loss.backward()
        optimiser.step()
        found.append(float(loss.detach()))
    return found


@pytest.mark.gpu
def test_twenty_training_steps_follow_the_cpu() -> None:
    batch = batch_of(*(random_crystal(n, 2 + n % 8) for n in range(16)), radius=ModelConfig().radius)
    on_cpu, on_gpu = losses("cpu", batch), losses("cuda", batch)
    assert on_cpu[-1] < on_cpu[0]
    torch.testing.assert_close(torch.tensor(on_gpu), torch.tensor(on_cpu), rtol=1e-4, atol=0.0)
