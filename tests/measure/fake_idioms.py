"""Idioms of user code that says `cuda`, each of which must run on a machine without a card.

A script: see `checks.py`. Some of them abort the process on an unprepared CPU build.
"""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from checks import NoMeter, check, run_checks
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from memlint.measure.job import Job, Target
from memlint.measure.worker.backends.fake import make


def on_cuda(tensor: Any) -> None:
    assert isinstance(tensor, torch.Tensor)
    assert tensor.device == torch.device("cuda", 0), tensor.device
    assert tensor.is_cuda


def linear() -> nn.Linear:
    return nn.Linear(4, 4).to("cuda")


def batch(*shape: int, **options: Any) -> torch.Tensor:
    return torch.randn(*(shape or (2, 4)), device="cuda", **options)


# ---- making tensors


@check
def backward() -> None:
    model = linear()
    model(batch()).sum().backward()
    on_cuda(model.weight.grad)


@check
def factories() -> None:
    for tensor in (
        torch.empty(4, device="cuda"),
        torch.randn(4, device="cuda"),
        torch.zeros(4, device="cuda:0"),
        torch.tensor([1.0, 2.0], device="cuda"),
        torch.arange(10, device="cuda"),
        torch.as_tensor(np.zeros(3), device="cuda"),
        torch.zeros(2).new_zeros(3, device="cuda"),
        torch.randint(0, 3, (4,), device="cuda"),
        torch.full((2,), 3, device=torch.device("cuda")),
        torch.eye(3, device="cuda"),
        torch.linspace(0, 1, 5, device=0),
    ):
        on_cuda(tensor)


@check
def dot_cuda() -> None:
    on_cuda(torch.randn(4).cuda())


@check
def dot_cuda_non_blocking() -> None:
    on_cuda(torch.randn(4).pin_memory().cuda(non_blocking=True))


@check
def to_cuda() -> None:
    on_cuda(torch.randn(4).to("cuda"))


@check
def to_index() -> None:
    on_cuda(torch.randn(4).to(0))


@check
def to_device() -> None:
    on_cuda(torch.randn(4).to(torch.device("cuda", 0)))


@check
def to_like() -> None:
    on_cuda(torch.randn(4).to(batch()))


@check
def second_card_is_refused() -> None:
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.cuda.set_device(1)


@check
def legacy_tensor() -> None:
    tensor = torch.cuda.FloatTensor(4)
    on_cuda(tensor)
    assert isinstance(tensor, torch.cuda.FloatTensor)
    assert not isinstance(torch.zeros(4), torch.cuda.FloatTensor)


@check
def from_numpy() -> None:
    on_cuda(torch.from_numpy(np.zeros(4, "f")).cuda())


@check
def generator() -> None:
    generator = torch.Generator("cuda").manual_seed(3)
    assert generator.device.type == "cuda"
    on_cuda(torch.randn(4, device="cuda", generator=generator))


@check
def with_device() -> None:
    with torch.device("cuda"):
        on_cuda(nn.Linear(4, 4).weight)


@check
def set_default_device() -> None:
    torch.set_default_device("cuda")
    try:
        on_cuda(torch.randn(3))
    finally:
        torch.set_default_device(None)


# ---- modules


@check
def module_cuda() -> None:
    on_cuda(nn.Linear(4, 4).cuda().weight)


@check
def module_to() -> None:
    on_cuda(nn.Linear(4, 4).to("cuda").weight)


@check
def module_device_keyword() -> None:
    on_cuda(nn.Linear(4, 4, device="cuda").weight)


@check
def module_with_padding_index() -> None:
    on_cuda(nn.Embedding(1000, 300, padding_idx=0).cuda().weight)


@check
def module_to_dtype() -> None:
    model = nn.Linear(4, 4).to("cuda", torch.bfloat16)
    assert model.weight.dtype is torch.bfloat16
    assert model(batch(dtype=torch.bfloat16)).dtype is torch.bfloat16


@check
def module_to_and_back() -> None:
    model = nn.Linear(4, 4).to("cuda").cpu()
    assert model.weight.device.type == "cpu"
    assert model(torch.randn(2, 4)).shape == (2, 4)


@check
def tied_weights_stay_tied() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10, bias=False))
    model[1].weight = model[0].weight
    model.to("cuda")
    assert model[1].weight is model[0].weight
    assert len(list(model.parameters())) == 1


@check
def optimizer_before_to() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.Adam(model.parameters())
    model.to("cuda")
    assert optimizer.param_groups[0]["params"][0] is model.weight
    on_cuda(optimizer.param_groups[0]["params"][0])


@check
def close_tensors() -> None:
    x = torch.randn(4, device="cuda")
    assert torch.allclose(x, x.clone())
    assert torch.allclose(x * 0, torch.zeros(4, device="cuda"), atol=1e-3)
    assert not torch.allclose(torch.zeros(4, device="cuda"), torch.ones(4, device="cuda"))


@check
def deepcopy() -> None:
    on_cuda(copy.deepcopy(linear()).weight)
    on_cuda(copy.deepcopy(linear().state_dict())["weight"])


@check
def state_dict_to_module() -> None:
    model = linear()
    model.load_state_dict({name: value.cpu() for name, value in linear().state_dict().items()})
    on_cuda(model.weight)


@check
def load_to_cuda() -> None:
    buffer = io.BytesIO()
    weight = torch.arange(6.0)
    torch.save({"whole": weight, "part": weight[2:4], "parameter": nn.Parameter(torch.ones(2))}, buffer)
    for options in ({"map_location": "cuda"}, {"map_location": lambda storage, _: storage.cuda()}):
        buffer.seek(0)
        loaded = torch.load(buffer, **options)
        on_cuda(loaded["whole"])
        on_cuda(loaded["parameter"])
        assert loaded["part"].shape == (2,)
        assert loaded["part"].untyped_storage() is loaded["whole"].untyped_storage()
        assert loaded["part"].tolist() == [2.0, 3.0]


@check
def data_parallel() -> None:
    on_cuda(nn.DataParallel(nn.Linear(4, 4).cuda())(batch()))


@check
def compile_eager() -> None:
    on_cuda(torch.compile(nn.Linear(4, 4).cuda(), backend="eager")(batch()))


# ---- training


@check
def adam() -> None:
    model = linear()
    optimizer = torch.optim.AdamW(model.parameters())
    model(batch()).sum().backward()
    optimizer.step()
    state = optimizer.state[model.weight]
    on_cuda(state["exp_avg"])
    assert state["step"].device.type == "cpu"


@check
def adam_foreach() -> None:
    model = linear()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    model(batch()).sum().backward()
    optimizer.step()
    on_cuda(optimizer.state[model.weight]["exp_avg"])


@check
def adam_fused() -> None:
    model = linear()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(batch()).sum().backward()
    optimizer.step()
    on_cuda(optimizer.state[model.weight]["exp_avg"])
    on_cuda(optimizer.state[model.weight]["step"])


@check
def sgd_momentum() -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(batch()).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    on_cuda(optimizer.state[model.weight]["momentum_buffer"])


@check
def clip_gradients() -> None:
    model = linear()
    model(batch()).sum().backward()
    on_cuda(nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True))


@check
def autocast() -> None:
    with torch.autocast("cuda", dtype=torch.float16):
        assert linear()(batch()).dtype is torch.float16


@check
def autocast_bfloat16() -> None:
    with torch.autocast(device_type="cuda", dtype=torch.bfloat16):
        out = linear()(batch())
        assert out.dtype is torch.bfloat16
        assert F.softmax(out, -1).dtype is torch.float32


@check
def autocast_of_torch_cuda_amp() -> None:
    with torch.cuda.amp.autocast():
        assert linear()(batch()).dtype is torch.float16


@check
def grad_scaler() -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cuda")
    with torch.autocast("cuda", dtype=torch.float16):
        loss = model(batch()).sum()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 65536.0
    on_cuda(optimizer.state[model.weight]["momentum_buffer"])


@check
def checkpoint_without_reentry() -> None:
    inputs = batch(requires_grad=True)
    checkpoint(linear(), inputs, use_reentrant=False).sum().backward()
    on_cuda(inputs.grad)


@check
def checkpoint_with_reentry() -> None:
    inputs = batch(requires_grad=True)
    checkpoint(linear(), inputs, use_reentrant=True).sum().backward()
    on_cuda(inputs.grad)


@check
def double_backward() -> None:
    inputs = batch(requires_grad=True)
    (grad,) = torch.autograd.grad(linear()(inputs).pow(2).sum(), inputs, create_graph=True)
    grad.pow(2).sum().backward()
    on_cuda(inputs.grad)


# ---- values


@check
def item() -> None:
    assert isinstance(batch().sum().item(), float)


@check
def float_of_tensor() -> None:
    assert isinstance(float(batch().sum()), float)


@check
def if_tensor() -> None:
    positive = bool(batch().sum() > 0)
    assert not positive


@check
def isnan_any() -> None:
    assert not bool(torch.isnan(batch()).any())


@check
def isfinite_of_loss() -> None:
    assert batch().sum().isfinite().item()


@check
def assertion_holds() -> None:
    values = batch()
    assert (values < 1e9).all()


@check
def known_lengths() -> None:
    lengths = torch.tensor([3, 7, 5]).cuda()
    assert int(lengths.max()) == 7
    assert lengths.tolist() == [3, 7, 5]
    mask = torch.arange(7, device="cuda")[None] < lengths[:, None]
    assert int(mask.sum()) == 15
    assert batch(3, 7, 4)[mask].shape == (15, 4)
    assert batch(3, 7).masked_select(mask).shape == (15,)
    assert mask.nonzero().shape == (15, 2)


@check
def known_values_die_with_a_write() -> None:
    counter = torch.zeros(1, dtype=torch.long, device="cuda")
    counter += 5
    assert counter.item() == 5
    counter += torch.randint(0, 9, (1,), device="cuda")
    assert counter.item() == 1  # not known any more: assumed


@check
def known_values_of_a_view() -> None:
    table = torch.zeros(4, dtype=torch.long, device="cuda")
    table[1:3] = 7
    assert table.tolist() == [0, 7, 7, 0]
    table[2] = torch.randint(0, 9, (), device="cuda")
    assert table.tolist() == [1, 1, 1, 1]


@check
def nonzero() -> None:
    assert batch(4).nonzero().shape == (4, 1)


@check
def boolean_mask() -> None:
    values = batch(4, 3)
    assert values[values > 0].shape == (12,)


@check
def boolean_assignment() -> None:
    values = batch(4, 3)
    values[values > 0] = 0.0
    on_cuda(values)


@check
def to_numpy() -> None:
    assert batch(4).cpu().numpy().shape == (4,)


@check
def to_list() -> None:
    assert len(batch(4).tolist()) == 4


@check
def copy_to_host() -> None:
    host = torch.ones(2, 4)
    host.copy_(batch())
    assert host.sum() == 0


@check
def print_tensor() -> None:
    assert "cuda:0" in repr(batch())


@check
def nothing_is_traced() -> None:
    assert not isinstance(batch(), torch._subclasses.FakeTensor)


@check
def format_tensor() -> None:
    assert f"{batch().sum():.3f}" == "1.000"
    assert f"{torch.tensor(2.5).cuda():.1f}" == "2.5"


@check
def unique() -> None:
    assert torch.unique(torch.tensor([1, 1, 2]).cuda()).tolist() == [1, 2]
    on_cuda(torch.unique(torch.randint(0, 3, (10,), device="cuda")))


@check
def index_by_tensor() -> None:
    on_cuda(batch(4, 3)[torch.tensor(2, device="cuda")])


@check
def argmax_accuracy() -> None:
    assert isinstance((batch(4, 3).argmax(1) == torch.zeros(4, device="cuda")).sum().item(), int)


@check
def multinomial() -> None:
    on_cuda(torch.multinomial(torch.ones(4, device="cuda"), 2))


@check
def topk() -> None:
    on_cuda(batch(4, 3).topk(2)[0])


@check
def one_hot() -> None:
    assert F.one_hot(torch.tensor([0, 2]).cuda()).shape == (2, 3)


@check
def distributions() -> None:
    on_cuda(torch.distributions.Normal(batch(), batch().exp()).rsample())
    on_cuda(torch.distributions.Categorical(logits=batch()).sample())


# ---- layers


@check
def dropout() -> None:
    on_cuda(F.dropout(batch(), 0.5, True))


@check
def attention() -> None:
    query = torch.randn(1, 2, 8, 16, device="cuda", requires_grad=True)
    out = F.scaled_dot_product_attention(query, query, query, is_causal=True)
    assert "Efficient" in out.grad_fn.name(), out.grad_fn
    out.sum().backward()
    on_cuda(query.grad)


@check
def attention_in_half() -> None:
    query = torch.randn(1, 2, 8, 64, device="cuda", dtype=torch.float16, requires_grad=True)
    out = F.scaled_dot_product_attention(query, query, query, is_causal=True)
    assert "Flash" in out.grad_fn.name(), out.grad_fn
    with sdpa_kernel(SDPBackend.MATH):
        out = F.scaled_dot_product_attention(query, query, query, is_causal=True)
    assert "Flash" not in out.grad_fn.name(), out.grad_fn


@check
def attention_in_inference_mode() -> None:
    with torch.inference_mode():
        query = torch.randn(1, 2, 8, 64, device="cuda", dtype=torch.float16)
        on_cuda(F.scaled_dot_product_attention(query, query, query))


@check
def convolution() -> None:
    out = nn.Conv2d(3, 8, 3).to("cuda")(batch(2, 3, 8, 8))
    out.sum().backward()
    on_cuda(out)


@check
def batch_norm() -> None:
    layer = nn.BatchNorm2d(3).to("cuda")
    out = layer(batch(2, 3, 8, 8))
    out.sum().backward()
    assert "Cudnn" in out.grad_fn.name(), out.grad_fn
    layer.eval()(batch(2, 3, 8, 8)).sum().backward()


@check
def rms_norm() -> None:
    inputs = batch(requires_grad=True)
    out = nn.RMSNorm(4).cuda()(inputs)
    assert "FusedRmsNorm" in out.grad_fn.name(), out.grad_fn
    out.sum().backward()
    on_cuda(inputs.grad)


@check
def lstm() -> None:
    out, _ = nn.LSTM(4, 8, num_layers=2, bidirectional=True, dropout=0.1).to("cuda")(batch(5, 2, 4))
    out.sum().backward()
    on_cuda(out)


@check
def gru() -> None:
    out, _ = nn.GRU(4, 8).to("cuda")(batch(5, 2, 4))
    out.sum().backward()
    on_cuda(out)


@check
def cross_entropy() -> None:
    loss = F.cross_entropy(batch(4, 10, requires_grad=True), torch.randint(0, 10, (4,), device="cuda"))
    loss.backward()
    on_cuda(loss)


@check
def embedding() -> None:
    on_cuda(nn.Embedding(10, 4).cuda()(torch.randint(0, 10, (3,), device="cuda")))


@check
def transformer_layer() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).cuda().eval()
    with torch.no_grad():
        on_cuda(layer(batch(2, 5, 16)))


# ---- the card


@check
def memory_queries() -> None:
    assert torch.cuda.memory_allocated() == 3 << 20
    assert torch.cuda.max_memory_allocated("cuda") == 5 << 20
    assert torch.cuda.memory_reserved(0) >= 5 << 20
    assert torch.cuda.memory_stats()["allocated_bytes.all.peak"] == 5 << 20
    free, total = torch.cuda.mem_get_info()
    assert 0 < free < total
    assert "CUDA memory summary" in torch.cuda.memory_summary()
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == 3 << 20


@check
def properties() -> None:
    assert torch.cuda.is_available()
    assert torch.cuda.device_count() == 1
    assert torch.cuda.current_device() == 0
    assert torch.cuda.get_device_capability() == (8, 0)
    assert "A100" in torch.cuda.get_device_name(0)
    assert torch.cuda.get_device_properties("cuda:0").total_memory > 79 << 30
    assert torch.cuda.is_bf16_supported()
    assert torch.accelerator.current_accelerator().type == "cuda"


@check
def identifier() -> None:
    assert len(str(torch.cuda.get_device_properties(0).uuid)) == 36


@check
def synchronize_and_empty_cache() -> None:
    torch.cuda.set_device(0)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


@check
def streams_and_events() -> None:
    stream = torch.cuda.Stream()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    with torch.cuda.stream(stream):
        on_cuda(batch())
    end.record()
    torch.cuda.current_stream().wait_stream(stream)
    batch().record_stream(stream)
    assert start.elapsed_time(end) > 0


@check
def seeds() -> None:
    torch.manual_seed(0)
    torch.cuda.manual_seed_all(0)
    state = torch.cuda.get_rng_state()
    torch.cuda.set_rng_state(state)
    with torch.random.fork_rng():
        batch()


@check
def device_context() -> None:
    with torch.cuda.device(0):
        on_cuda(batch())


@check
def settings() -> None:
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.set_float32_matmul_precision("high")


@check
def nvtx() -> None:
    torch.cuda.nvtx.range_push("step")
    torch.cuda.nvtx.range_pop()


@check
def packed_sequences() -> None:
    layer = nn.LSTM(4, 8, batch_first=True).to("cuda")
    for lengths, in_order in ((torch.tensor([5, 3, 2]), True), (torch.tensor([2, 5, 3]), False)):
        packed = nn.utils.rnn.pack_padded_sequence(batch(3, 5, 4), lengths, batch_first=True, enforce_sorted=in_order)
        on_cuda(packed.data)
        assert packed.data.shape == (10, 4)
        assert packed.batch_sizes.tolist() == [3, 3, 2, 1, 1]
        outputs, _ = nn.utils.rnn.pad_packed_sequence(layer(packed)[0], batch_first=True)
        on_cuda(outputs)
        assert outputs.shape == (3, 5, 8)
        outputs.sum().backward()
    on_cuda(layer.weight_ih_l0.grad)


# ---- the host


@check
def pinned_memory() -> None:
    staged = torch.empty(2, 4, pin_memory=True)
    assert staged.is_pinned() and staged.pin_memory().is_pinned()
    on_cuda(staged.to("cuda", non_blocking=True))
    with torch.autograd.graph.save_on_cpu(pin_memory=True):
        loss = linear()(batch()).exp().sum()
    loss.backward()


@check
def gradients_of_each_sample() -> None:
    model = linear()
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(weights: dict[str, torch.Tensor], sample: torch.Tensor) -> Any:
        return torch.func.functional_call(model, weights, (sample,)).square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, batch())
    on_cuda(gradients["weight"])
    assert gradients["weight"].shape == (2, 4, 4)


@check
def loader() -> None:
    data = TensorDataset(torch.randn(8, 4), torch.zeros(8))
    for pinned in (False, True):
        for inputs, _ in DataLoader(data, batch_size=4, shuffle=True, pin_memory=pinned):
            on_cuda(inputs.cuda(non_blocking=pinned))


@check
def host_stays_real() -> None:
    assert torch.arange(4).sum().item() == 6
    assert torch.nn.Linear(3, 3)(torch.ones(1, 3)).abs().sum().item() > 0


if __name__ == "__main__":
    with make(Job(Target("script", "idioms"), "fake", ".")).running(NoMeter(allocated=3 << 20, peak=5 << 20)):
        run_checks()
