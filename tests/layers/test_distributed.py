"""Layers in DDP and FSDP2: two processes on half a batch each end where one on all of it does."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from recurra import LSTM, Recurrent
from recurra.testing import assert_within_eps

B, T, D, H = 4, 6, 3, 5
LENGTHS = torch.tensor([6, 2, 1, 5])


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.below = Recurrent("gru", D, H, bidirectional=True)
        self.above = LSTM(2 * H, H, batch_first=True)

    def forward(self, x, lengths):
        y, _ = self.below(x, lengths=lengths)
        return self.above(y, lengths=lengths)[0]


def made():
    torch.manual_seed(0)
    return Model().double(), torch.randn(B, T, D, dtype=torch.float64)


def steps(model, x, lengths):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(x, lengths).square().sum(dim=(1, 2)).mean().backward()
        optimizer.step()


def work(rank, where, wrap):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{where}/rendezvous", rank=rank, world_size=2)
    model, x = made()
    if wrap == "ddp":
        wrapped = DistributedDataParallel(model)
    else:
        mesh = init_device_mesh("cpu", (2,))
        for part in (model.below, model.above, model):
            fully_shard(part, mesh=mesh)
        wrapped = model
    mine = slice(2 * rank, 2 * rank + 2)
    steps(wrapped, x[mine], LENGTHS[mine])
    weights = {k: p.full_tensor() if hasattr(p, "full_tensor") else p for k, p in model.named_parameters()}
    if rank == 0:
        torch.save({k: p.detach() for k, p in weights.items()}, f"{where}/weights.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("wrap", ["ddp", "fsdp2"])
def test_two_processes_end_where_one_does(wrap, tmp_path):
    model, x = made()
    before = copy.deepcopy(model.state_dict())
    steps(model, x, LENGTHS)
    torch.multiprocessing.spawn(work, (str(tmp_path), wrap), nprocs=2)
    found = torch.load(tmp_path / "weights.pt")
    for name, p in model.named_parameters():
        assert_within_eps(found[name], p, 64, what=name)
        assert not torch.equal(p, before[name])
