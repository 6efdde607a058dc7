"""Code written for cuda, run for real on the CPU."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checks import NoMeter, checks_of, names
from measuring import measured, measured_function
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from memlint.measure.job import Job, Target
from memlint.measure.recording import Phase, Recording
from memlint.measure.worker.backend import Unsupported
from memlint.measure.worker.backends.cpu import make

JOB = Job(Target("script", "idioms"), "cpu", ".")
IDIOMS = Path(__file__).parent / "fake_idioms.py"
OF_PREDICTION = frozenset(
    "boolean_mask copy_to_host format_tensor grad_scaler if_tensor known_values_die_with_a_write "
    "known_values_of_a_view memory_queries properties compile_eager".split()
)
"""They assert what is assumed without values, or the name of the card; the session leaves the compiler out."""


@pytest.mark.parametrize("name", sorted(set(names(IDIOMS)) - OF_PREDICTION))
def test_an_idiom_that_prediction_runs_runs_for_real(name: str) -> None:
    torch.manual_seed(0)
    check = checks_of(IDIOMS)[name]
    with make(JOB).running(NoMeter()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check()


def test_code_that_never_says_cuda_is_measured_as_if_it_did() -> None:
    def function() -> None:
        nn.Linear(64, 64)(torch.zeros(8, 64)).sum().backward()

    recording = measured_function(function)
    assert sorted(storage.size for storage in recording.storages)[-2:] == [64 * 64 * 4] * 2
    assert [assumption.what for assumption in recording.assumptions] == [
        "nothing in this code says cuda: all of its tensors count as device memory"
    ]


def test_host_memory_does_not_count_once_the_code_says_cuda() -> None:
    def function() -> None:
        torch.zeros(1 << 20)
        kept = torch.zeros(1 << 20)
        torch.zeros(64).to("cuda")
        del kept

    recording = measured_function(function)
    assert [storage.size for storage in recording.storages] == [256]
    assert recording.events == [0, ~0]
    assert recording.assumptions == []


def test_the_allocator_is_answered_from_the_log() -> None:
    seen = []

    def function() -> None:
        x = torch.zeros(1000, device="cuda")
        seen.append(torch.cuda.memory_allocated())
        del x
        seen.extend([torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()])
        torch.cuda.reset_peak_memory_stats()
        seen.append(torch.cuda.max_memory_allocated())

    measured_function(function)
    assert seen == [4096, 0, 4096, 0]


def test_words_for_devices() -> None:
    def function() -> None:
        x = torch.ones(4).cuda()
        assert (x.device, x.is_cuda, x.is_cpu, x.get_device()) == (torch.device("cuda", 0), True, False, 0)
        assert x.type() == "torch.cuda.FloatTensor"
        assert isinstance(x, torch.cuda.FloatTensor) and not isinstance(x, torch.cuda.HalfTensor)
        assert isinstance(x, torch.Tensor)
        assert x.type("torch.HalfTensor").device.type == "cpu"
        assert x.type(torch.cuda.DoubleTensor).dtype is torch.float64
        assert x.to("cuda") is x and x.cuda() is x and x.to(torch.float32) is x
        assert x.to("cuda", torch.float16).is_cuda and x.half().is_cuda
        assert x.to(torch.zeros(1)).device.type == "cpu"
        assert x.cpu().numpy().tolist() == [1.0] * 4
        assert x.new_tensor([1, 2]).is_cuda and x.new_zeros(3).is_cuda and not x.new_zeros(3, device="cpu").is_cuda
        assert torch.zeros_like(x).is_cuda and not torch.zeros_like(x, device="cpu").is_cuda
        host = torch.zeros(4)
        host.copy_(x)
        assert not host.is_cuda
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            np.asarray(x)
        with torch.device("cuda"):
            assert torch.zeros(2).is_cuda and torch.tensor([1.0]).is_cuda and nn.Linear(2, 2).weight.is_cuda

    measured_function(function)


def test_what_pytorch_s_own_code_makes_for_device_memory_counts() -> None:
    """`slice_scatter`'s backward pass makes zeros as its gradient's options say; the program's own are the host's."""
    made = []

    def function() -> None:
        x = torch.zeros(1000, device="cuda", requires_grad=True)
        y = torch.slice_scatter(x * 2, torch.zeros(500, device="cuda", requires_grad=True), start=500)
        y.register_hook(lambda _gradient: made.append(torch.zeros(3000)))
        y.sum().backward()
        made.append(torch.zeros(3000))

    recording = measured_function(function)
    zeros = [storage for storage in recording.storages if storage.operator == "aten::zeros"]
    assert [(storage.size, storage.phase) for storage in zeros if storage.phase is Phase.BACKWARD] == [
        (2000, Phase.BACKWARD)
    ]
    assert not [storage for storage in recording.storages if storage.size == 12000]


def test_a_gradient_of_a_norm_over_all_of_its_input() -> None:
    def function() -> None:
        norm = nn.RMSNorm(8).cuda()
        norm(torch.ones(8, device="cuda", requires_grad=True)).sum().backward()
        assert norm.weight.grad is not None and norm.weight.grad.shape == (8,)

    measured_function(function)


def test_default_device() -> None:
    def function() -> None:
        torch.set_default_device("cuda")
        try:
            assert nn.Linear(2, 2)(torch.ones(1, 2)).is_cuda
        finally:
            torch.set_default_device(None)

    measured_function(function)


def test_as_tensor_does_not_share_with_the_host() -> None:
    values = np.zeros(4)

    def function() -> None:
        device = torch.as_tensor(values, device="cuda")
        device += 1
        assert values.tolist() == [0.0] * 4

    measured_function(function)


@pytest.mark.parametrize("fast", [torch.float16, torch.bfloat16])
def test_autocast_has_the_lists_of_cuda(fast: torch.dtype) -> None:
    def function() -> None:
        x = torch.randn(4, 16, device="cuda")
        layer, norm = nn.Linear(16, 16).cuda(), nn.LayerNorm(16).cuda()
        assert not torch.is_autocast_enabled()
        with torch.autocast("cuda", dtype=fast):
            assert torch.is_autocast_enabled() and torch.get_autocast_dtype("cuda") is fast
            y = layer(x)
            found = {
                "linear": y.dtype,
                "relu": y.relu().dtype,
                "softmax": y.softmax(-1).dtype,
                "layer_norm": norm(y).dtype,
                "exp": y.exp().dtype,
                "sum": y.sum().dtype,
                "mse": F.mse_loss(y, torch.zeros_like(y)).dtype,
                "cat": torch.cat([y, x]).dtype,
                "gelu": F.gelu(y).dtype,
                "norm": y.norm(2).dtype,
            }
        single = {"softmax", "layer_norm", "exp", "sum", "mse", "cat", "norm"}
        assert found == {name: torch.float32 if name in single else fast for name in found}
        assert layer(x).dtype is torch.float32

    measured_function(function)


def attention(query: torch.Tensor, mask: torch.Tensor | None, causal: bool) -> torch.Tensor:
    """By hand, in double precision."""
    q, k, v = (query.double() for _ in range(3))
    scores = q @ k.transpose(-1, -2) / query.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), float("-inf"))
    if mask is not None:
        scores = scores + mask.double()
    return scores.softmax(-1) @ v


@pytest.mark.parametrize(
    ("dtype", "masked", "kernel"),
    [(torch.float16, False, "flash"), (torch.float32, False, "efficient"), (torch.float32, True, "efficient")],
)
def test_fused_attention_computes_what_attention_is(dtype: torch.dtype, masked: bool, kernel: str) -> None:
    given = torch.randn(2, 4, 32, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.randn(32, 32, generator=torch.Generator().manual_seed(1)) if masked else None
    results = []

    def function() -> None:
        x = given.to("cuda", dtype).requires_grad_()
        out = F.scaled_dot_product_attention(
            x, x, x, attn_mask=None if mask is None else mask.to("cuda", dtype), is_causal=mask is None
        )
        out.square().sum().backward()
        assert x.grad is not None
        results.extend([out.detach().cpu(), x.grad.cpu()])

    recording = measured_function(function)
    exact = given.double().requires_grad_()
    q = exact
    out = attention(q, mask, causal=mask is None)
    out.square().sum().backward()
    assert exact.grad is not None
    tolerance = 2e-2 if dtype is torch.float16 else 1e-4
    assert torch.allclose(results[0].double(), out, atol=tolerance)
    assert torch.allclose(results[1].double(), exact.grad, atol=20 * tolerance)
    assert [choice.kernel for choice in recording.kernels] == [kernel]
    assert max(storage.size for storage in recording.storages) < 2 * 4 * 32 * 32 * 8  # no matrix of weights


def test_dropout_keeps_a_mask_of_one_byte() -> None:
    def function() -> None:
        x = torch.ones(1024, device="cuda", requires_grad=True)
        F.dropout(x, 0.5).sum().backward()
        assert x.grad is not None
        assert set(x.grad.tolist()) == {0.0, 2.0}

    recording = measured_function(function)
    dropped = [storage.size for storage in recording.storages if storage.operator == "aten::native_dropout"]
    assert sorted(dropped) == [1024, 4096]


def test_rms_norm_is_one_operation_and_has_the_right_gradient() -> None:
    given = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    grads = []

    def function() -> None:
        x = given.cuda().requires_grad_()
        weight = torch.linspace(0.5, 2, 32).cuda().requires_grad_()
        F.rms_norm(x, (32,), weight, 1e-6).square().sum().backward()
        grads.extend([x.grad, weight.grad])

    recording = measured_function(function)
    x, weight = given.double().requires_grad_(), torch.linspace(0.5, 2, 32).double().requires_grad_()
    (x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight).square().sum().backward()
    assert x.grad is not None and weight.grad is not None
    assert torch.allclose(grads[0].double(), x.grad, atol=1e-4)
    assert torch.allclose(grads[1].double(), weight.grad, atol=1e-4)
    assert "aten::_fused_rms_norm" in {storage.operator for storage in recording.storages}


SCALED = """
import torch
from torch import nn
model = nn.Linear(16, 1).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cuda", init_scale=2.0**14)
for step in range(10):
    optimizer.zero_grad()
    with torch.autocast("cuda", dtype=torch.float16):
        loss = model(torch.full((8, 16), 1e3 if step == 1 else 1.0).cuda()).sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
SCALES.append(scaler.get_scale())
"""


def test_a_step_that_the_scaler_leaves_out_is_a_step() -> None:
    recording: Recording = measured(SCALED, Path("scaled.py"), steps=4, SCALES=[])
    assert [step.kind for step in recording.steps] == ["training"] * 4
    losses = [len(step.input_shapes) for step in recording.steps]
    assert losses == [0, 1, 1, 1] or losses == [1, 1, 1, 1]


def test_a_file_is_loaded_to_the_device(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.ones(256)}, path)

    def function() -> None:
        assert torch.load(path, map_location="cuda")["weight"].is_cuda
        assert not torch.load(path)["weight"].is_cuda
        torch.save(torch.ones(8).cuda(), path.with_suffix(".device.pt"))
        assert torch.load(path.with_suffix(".device.pt")).is_cuda

    recording = measured_function(function)
    assert 1024 in [storage.size for storage in recording.storages]


def test_torch_compile_runs_eagerly_and_says_so() -> None:
    def function() -> None:
        model = torch.compile(nn.Linear(4, 4).cuda())
        model(torch.ones(1, 4, device="cuda"))

    recording = measured_function(function)
    assert [assumption.what for assumption in recording.assumptions] == ["torch.compile left out: the code ran eagerly"]


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers_compute_what_they_do_on_the_cpu(kind: str, bidirectional: bool) -> None:
    torch.manual_seed(0)
    layer = getattr(nn, kind)(6, 5, num_layers=2, batch_first=True, bidirectional=bidirectional)
    given = torch.randn(3, 4, 6)
    results = []

    def run(device: str) -> None:
        layer.to(device).zero_grad()
        x = given.detach().to(device).requires_grad_()
        out, state = layer(x)
        (out.square().sum() + sum(final.sum() for final in (state if kind == "LSTM" else (state,)))).backward()
        results.append([out.detach().cpu(), x.grad.cpu(), *(p.grad.cpu() for p in layer.parameters())])

    run("cpu")
    recording = measured_function(lambda: run("cuda"))
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(*results, strict=True))
    fused = {"LSTM": "aten::_thnn_fused_lstm_cell", "GRU": "aten::_thnn_fused_gru_cell", "RNN": "aten::tanh"}
    assert fused[kind] in {storage.operator for storage in recording.storages}


def test_what_a_card_would_run_in_another_way_is_said() -> None:
    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 8)

        def forward(self, x: torch.Tensor) -> None:
            self.lstm(x)
            self.lstm(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2])))

    recording = measured_function(lambda: Model().eval().cuda()(torch.zeros(3, 2, 8, device="cuda")))
    said = [(choice.operation, choice.kernel, choice.count) for choice in recording.kernels]
    assert said == [("lstm", "PyTorch's own cells", 1)] * 2


@pytest.mark.parametrize("out", [False, True])
def test_products_in_another_precision_run_as_on_a_card(out: bool) -> None:
    a, b = torch.randn(3, 8, 8).half(), torch.randn(3, 8, 8).half()
    wide = torch.zeros(3, 8, 8)

    def function() -> None:
        one, other, added = a.cuda(), b.cuda(), wide.cuda()
        before = torch.cuda.memory_allocated()
        options = {"out_dtype": torch.float32, **({"out": added[0]} if out else {})}
        given = torch.addmm(added[0], one[0], other[0], **options)
        assert torch.cuda.memory_allocated() - before == (0 if out else 512)
        torch.testing.assert_close(given.cpu(), a[0].float() @ b[0].float())
        given = torch.bmm(one, other, out_dtype=torch.float32)
        torch.testing.assert_close(given.cpu(), a.float() @ b.float())

    measured_function(function)


def test_a_copied_state_is_counted() -> None:
    def function() -> None:
        state = nn.Linear(64, 64, bias=False).cuda().state_dict()
        before = torch.cuda.memory_allocated()
        kept = copy.deepcopy(state)
        assert kept["weight"].is_cuda
        assert torch.cuda.memory_allocated() - before == 64 * 64 * 4

    measured_function(function)


MASK = torch.ones(6, 6, dtype=torch.bool).triu(1)
PADDING = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])


@pytest.mark.parametrize("masks", [{}, {"src_mask": MASK}, {"src_key_padding_mask": PADDING}])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("grad_off", [torch.no_grad, torch.inference_mode])
def test_layers_fuse_in_evaluation_as_they_do_on_a_card(masks: Any, first: bool, grad_off: Any) -> None:
    """The same numbers as PyTorch's own fused layer, bit by bit where both run the same kernels."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=first).eval()
    x = torch.randn(2, 6, 16)
    given: list[torch.Tensor] = []

    def on(device: str) -> torch.Tensor:
        moved = {name: mask.to(device) for name, mask in masks.items()}
        with grad_off():
            return copy.deepcopy(layer).to(device)(x.to(device), **moved)

    expected = on("cpu")
    host = measured_function(lambda: given.append(on("cpu")))
    device = measured_function(lambda: given.append(on("cuda").cpu()))
    assert torch.equal(given[0], expected)
    torch.testing.assert_close(given[1], expected, atol=1e-6, rtol=1e-5)
    for recording in (host, device):
        operators = {storage.operator for storage in recording.storages}
        assert "aten::_addmm_activation" in operators, "the feed-forward part is fused"
        assert ("aten::_transform_bias_rescale_qkv" in operators) == (bool(masks) or recording is host)
    fused = [choice.kernel for choice in device.kernels]
    assert fused == ([] if masks else ["efficient"])


def test_weights_that_a_layer_gives_in_evaluation() -> None:
    torch.manual_seed(0)
    layer, x = nn.MultiheadAttention(16, 2, batch_first=True).eval(), torch.randn(2, 6, 16)
    given: list[Any] = []
    with torch.no_grad():
        expected = layer(x, x, x)
        recording = measured_function(lambda: given.append(layer(x, x, x)))
    assert all(torch.equal(one, other) for one, other in zip(given[0], expected, strict=True))
    made = {storage.operator: storage.size for storage in recording.storages}
    assert made["aten::_transform_bias_rescale_qkv"] == 3 * 2 * 6 * 16 * 4
    assert made["aten::bmm"] == 2 * 2 * 6 * 6 * 4, "softmax is in place, and the result takes the queries' memory"


@pytest.mark.parametrize("places", [(0, 0, 0), (0, 1, 1), (0, 1, 2), (0, 0, 1)])
def test_the_fused_operator_itself_gives_what_pytorch_gives(places: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer, tensors = nn.MultiheadAttention(16, 2, batch_first=True), [torch.randn(2, 6, 16) for _ in range(3)]
    weights = (layer.in_proj_weight, layer.in_proj_bias, layer.out_proj.weight, layer.out_proj.bias)
    given: list[Any] = []

    def attend() -> Any:
        return torch._native_multi_head_attention(*(tensors[place] for place in places), 16, 2, *weights)

    with torch.no_grad():
        expected = attend()
        measured_function(lambda: given.append(attend()))
    assert all(torch.equal(one, other) for one, other in zip(given[0], expected, strict=True))


def test_an_encoder_that_would_leave_its_padding_out_says_so() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()

    def function() -> None:
        with torch.no_grad():
            encoder.to("cuda")(torch.zeros(2, 6, 16, device="cuda"), src_key_padding_mask=PADDING.to("cuda"))

    (assumption,) = measured_function(function).assumptions
    assert "keeps its padding" in assumption.what


def test_log_sigmoid_keeps_nothing_for_the_backward_pass() -> None:
    values = torch.linspace(-30, 30, 256)
    gradients = []

    def function() -> None:
        on_card = values.to("cuda").requires_grad_()
        F.logsigmoid(on_card).sum().backward()
        assert on_card.grad is not None
        gradients.append(on_card.grad.cpu())

    recording = measured_function(function)
    assert [s.size for s in recording.storages if s.operator == "aten::log_sigmoid_forward"] == [1024]
    expected = values.clone().requires_grad_()
    F.logsigmoid(expected).sum().backward()
    assert expected.grad is not None and torch.equal(gradients[0], expected.grad)


def test_forward_mode_is_refused() -> None:
    def function() -> None:
        ones = torch.ones(2, device="cuda")
        torch.func.jvp(torch.tanh, (ones,), (ones,))

    with pytest.raises(Unsupported, match="forward-mode"):
        measured_function(function)


def test_nested_tensors_are_refused() -> None:
    with pytest.raises(Unsupported, match="nested tensors"):
        measured_function(lambda: torch.nested.nested_tensor([torch.zeros(2)], device="cuda"))


def test_a_bare_number_names_a_card() -> None:
    def function() -> None:
        assert torch.device(0) == torch.device("cuda", 0)
        assert nn.Linear(2, 2).to(torch.device(0)).weight.is_cuda

    measured_function(function)


def test_an_operation_without_a_kernel_for_the_cpu_is_named() -> None:
    def function() -> None:
        image, weight = torch.ones(1, 2, 4, 4, device="cuda"), torch.ones(2, 2, 1, 1, device="cuda")
        torch.cudnn_convolution(image, weight, [0, 0], [1, 1], [1, 1], 1, False, False, False)

    with pytest.raises(Unsupported, match=r"aten\.cudnn_convolution\.default has a kernel for GPUs only"):
        measured_function(function)
