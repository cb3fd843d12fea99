import collections
import types

import jax
import numpy as np
import pytest

from benchmarks import kernels

# As XLA prints them, with the computation inside a fusion shortened.
PROGRAM = """
ENTRY %main.9 {
  %conv.1 = f32[8,24,16,4]{3,2,1,0} convolution(%a, %b), window={size=3x3}, metadata={op_name="jit(f)/jvp(PMM.training)/PMM.maps/trunk/layer1_0/conv2/conv_general_dilated" stack_frame_id=5}
  %cudnn-conv.4 = (f32[4,3,3,4]{3,2,1,0}, u8[0]{0}) custom-call(%a, %b), metadata={op_type="x" op_name="jit(f)/transpose(jvp(PMM.training))/PMM.maps/trunk/layer1_0/conv2/conv_general_dilated"}
  %convolution.4 = f32[4,3,3,4]{3,2,1,0} convolution(%c, %d), window={size=24x16}
  %dot.5 = f32[4,4]{1,0} dot(%a, %b), metadata={op_name="jit(f)/transpose(jvp(PMM.training))/PMM.maps/trunk/layer1_0/conv2/cond/branch_0_fun/jit(gradients_by_tiles)/dot_general"}
  %cudnn-conv-bw-input.7 = (f32[8,24,16,4]{3,2,1,0}, u8[0]{0}) custom-call(%a, %b), metadata={op_name="jit(f)/transpose(jvp(PMM.training))/PMM.maps/trunk/layer1_0/conv2/cond/branch_0_fun/transpose(jvp())/conv_general_dilated"}
  %conv.3 = f32[8,24,16,4]{3,2,1,0} convolution(%a, %b), metadata={op_name="jit(f)/transpose(jvp(PMM.training))/PMM.maps/trunk/layer1_0/conv2/conv_general_dilated"}
  %loop_multiply_fusion.2 = f32[16]{0} fusion(%d), kind=kLoop, metadata={op_name="jit(f)/transpose(jvp(PMM.training))/PMM.maps/trunk/layer1_0/bn2/mul"}
  %pool.1 = f32[8,24,16,4]{3,2,1,0} fusion(%d), kind=kLoop, metadata={op_name="jit(f)/jvp(PMM.training)/PMM.maps/trunk/reduce_window_max"}
  %relu.1 = f32[8,24,16,4]{3,2,1,0} fusion(%d), kind=kLoop, metadata={op_name="jit(f)/jvp(PMM.training)/PMM.maps/trunk/layer1_0/jit(relu)/max"}
  %cam.1 = f32[8,4]{1,0} fusion(%d), kind=kLoop, metadata={op_name="jit(f)/jvp(PMM.training)/transpose(jvp(StageHead))/reduction/dot_general"}
  %loss.1 = f32[] fusion(%d), kind=kLoop, metadata={op_name="jit(f)/jvp(jit(log_softmax))/sub"}
  %adam.1 = f32[4,3,3,4]{3,2,1,0} fusion(%d), kind=kLoop, metadata={op_name="jit(f)/mul"}
  %copy.1 = f32[8,4]{1,0} copy(%d)
  ROOT %while.6 = (s32[], /*index=1*/f32[4]{0}) while(%t), condition=%x, body=%y, metadata={op_name="jit(f)/while"}
}
"""  # noqa: E501
PARAMS = {
    "trunk": {
        "layer1_0": {
            "conv2": {"kernel": np.zeros((3, 3, 4, 4))},
            "bn2": {"scale": np.zeros(16), "bias": np.zeros(16)},
        }
    },
    "heads_0": {"reduction": {"kernel": np.zeros((4, 8)), "bias": np.zeros(8)}},
}
KINDS = {
    "conv.1": "convolution, forward",
    "cudnn-conv.4": "convolution, weight gradient",
    "convolution.4": "convolution, weight gradient",
    "dot.5": "convolution, weight gradient",
    "cudnn-conv-bw-input.7": "convolution, backward",
    "conv.3": "convolution, backward",
    "loop_multiply_fusion.2": "batch norm, backward",
    "pool.1": "stem, forward",
    "relu.1": "activation, forward",
    "cam.1": "Grad-CAM",
    "loss.1": "losses, mixing",
    "adam.1": "augmentation, optimizer",
    "copy.1": "without a name",
    "other.1": "unknown",
}


def kinds(times):
    summary = kernels.summarize(collections.Counter(times), PROGRAM, PARAMS)
    return {kind["kind"]: kind["milliseconds"] for kind in summary["kinds"]}


@pytest.mark.parametrize(("instruction", "kind"), KINDS.items())
def test_what_an_instruction_is_part_of(instruction, kind):
    assert kinds({(instruction, instruction): 2.0}) == {kind: 2.0}


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("loop_multiply_fusion_2", "batch norm, backward"),
        ("sm90_xmma_wgrad_implicit_gemm", "convolution, weight gradient"),
        ("sm90_xmma_fprop_implicit_gemm", "convolution, forward"),
        ("nvjet_hsh_128x256", "product of a library"),
        ("something", "unknown"),
    ],
)
def test_kernels_of_a_graph_are_known_by_their_names(kernel, kind):
    """A GPU's profiler reports at most the graph that they belong to."""
    assert kinds({("while.6", kernel): 2.0}) == {kind: 2.0}
    assert kinds({(None, kernel): 2.0}) == {kind: 2.0}


def test_shares_are_of_all_kernels_the_largest_first():
    """A loop is in the trace beside its content, and is not counted twice."""
    times = {("conv.1", "k"): 1.0, ("relu.1", "k"): 3.0, ("conv.1", "l"): 4.0}
    times["while.6", "while.6"] = 90.0
    assert kernels.summarize(collections.Counter(times), PROGRAM, PARAMS) == {
        "milliseconds": 8.0,
        "kinds": [
            {"kind": "convolution, forward", "milliseconds": 5.0, "share": 0.625},
            {"kind": "activation, forward", "milliseconds": 3.0, "share": 0.375},
        ],
    }


def test_what_is_small_is_summed_up(monkeypatch):
    monkeypatch.setattr(kernels, "KINDS", 1)
    times = {("conv.1", "k"): 5.0, ("relu.1", "k"): 2.0, ("pool.1", "k"): 1.0}
    assert kinds(times) == {"convolution, forward": 5.0, "rest": 3.0}


def test_a_trace_without_kernels():
    empty = kernels.summarize(collections.Counter(), PROGRAM, PARAMS)
    assert empty == {"milliseconds": 0, "kinds": []}


def event(name, milliseconds, **stats):
    return types.SimpleNamespace(name=name, duration_ns=milliseconds * 1e6, stats=stats.items())


def profile(**planes):
    """Planes of lines of events, like `jax.profiler.ProfileData`."""
    return types.SimpleNamespace(
        planes=[
            types.SimpleNamespace(
                name=name.replace("__", ":"),
                lines=[types.SimpleNamespace(name=n, events=e) for n, e in lines.items()],
            )
            for name, lines in planes.items()
        ]
    )


def test_a_gpus_kernels_are_those_of_its_streams():
    kernel = event("loop_add", 2.0, hlo_op="add.1", correlation_id=3)
    data = profile(
        **{
            "/device__GPU__0": {
                "Stream #13(Compute)": [kernel, kernel, event("memset", 0.5)],
                "XLA Ops": [kernel],
            },
            "/device__GPU__1": {"Stream #13(Compute)": [kernel]},
            "/host__CPU": {"python": [event("add.1", 9.0, hlo_op="add.1")]},
        }
    )
    times = {("add.1", "loop_add"): 4.0, (None, "memset"): 0.5}
    assert kernels.kernel_times(data, "gpu") == times


# A warning about the types of JAX's trace reader, under Python 3.12.
@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__:DeprecationWarning")
def test_a_trace_of_a_product(tmp_path):
    square = np.ones((512, 512), np.float32)
    product = jax.jit(lambda x: jax.numpy.sin(x @ x)).lower(square).compile()
    jax.block_until_ready(product(square))
    trace = kernels.trace(lambda: jax.block_until_ready(product(square)), tmp_path)
    times = kernels.kernel_times(trace, "cpu")
    assert times
    summary = kernels.summarize(times, product.as_text(), {})
    assert summary["milliseconds"] == pytest.approx(sum(times.values()))
    assert [kind["kind"] for kind in summary["kinds"]] == ["augmentation, optimizer"]
