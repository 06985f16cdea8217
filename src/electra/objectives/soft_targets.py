"""How far a student's distributions over the vocabulary are from its teacher's, at the drawn positions only.

In: a transformed hidden state of both for each drawn position, with their token tables and biases. Out: the divergence
KL(teacher || student) of the two softmaxes at one temperature (Hinton et al., "Distilling the knowledge in a neural network",
2015), with a gradient for the student.

The student's logits are one matrix product, the teacher's are made some rows at a time, so that they are never held for all
positions. Both become fp32 there, and both softmaxes and the divergence are computed in fp32. What the backward pass needs is
the difference of the two distributions, which takes the place of the student's logits: one tensor [N, V] is kept, in the type
of the logits.

Shapes: N drawn positions, V vocabulary, E and F embedding sizes of student and teacher.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: rows of the teacher's logits that are made at once
_CPU_ROWS, _GPU_ROWS = 128, 1024


def divergence(
    hidden_NE: Tensor,
    table_VE: Tensor,
    bias_V: Tensor,
    teacher_hidden_NF: Tensor,
    teacher_table_VF: Tensor,
    teacher_bias_V: Tensor,
    temperature: float,
) -> Tensor:
    """KL(teacher || student) at every position, fp32 [N], in nats; not multiplied by the temperature's square.

    Args:
        hidden_NE, table_VE, bias_V: the student's; logits = hidden x table^T + bias, in autocast's type where it is on.
        teacher_hidden_NF, teacher_table_VF, teacher_bias_V: the teacher's, which get no gradient.
        temperature: both logits are divided by it.
    """
    device = hidden_NE.device.type
    compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_NE.dtype
    with torch.autocast(device, enabled=False):
        kl_N: Tensor = _Divergence.apply(  # type: ignore[no-untyped-call]
            hidden_NE.to(compute), table_VE, bias_V,
            teacher_hidden_NF.to(compute), teacher_table_VF.to(compute), teacher_bias_V, temperature,
        )  # fmt: skip
    return kl_N


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NE: Tensor,
        table_VE: Tensor,
        bias_V: Tensor,
        teacher_hidden_NF: Tensor,
        teacher_table_VF: Tensor,
        teacher_bias_V: Tensor,
        temperature: float,
    ) -> Tensor:
        low_VE = table_VE.to(hidden_NE.dtype)
        gap_NV = hidden_NE @ low_VE.t()  # logits at first
        rows = _GPU_ROWS if hidden_NE.is_cuda else _CPU_ROWS
        kl_N = hidden_NE.new_empty(len(hidden_NE), dtype=torch.float32)
        for begin in range(0, len(hidden_NE), rows):
            part = slice(begin, begin + rows)
            own = ((gap_NV[part].float() + bias_V) / temperature).log_softmax(-1)
            logits = (teacher_hidden_NF[part] @ teacher_table_VF.t()).float() + teacher_bias_V
            theirs = (logits / temperature).log_softmax(-1)
            given = theirs.exp()
            kl_N[part] = theirs.sub_(own).mul_(given).sum(-1)
            gap_NV[part] = own.exp_().sub_(given)
        ctx.save_for_backward(hidden_NE, low_VE, gap_NV)
        ctx.types, ctx.temperature = (table_VE.dtype, bias_V.dtype), temperature
        return kl_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NE, table_VE, gap_NV = ctx.saved_tensors
        table_type, bias_type = ctx.types
        scale_N1 = (grads[0] / ctx.temperature)[:, None].to(gap_NV.dtype)
        grad_hidden_NE = (gap_NV @ table_VE) * scale_N1
        grad_table_VE = (gap_NV.t() @ (hidden_NE * scale_N1)).to(table_type)
        grad_bias_V = (gap_NV.t() @ scale_N1)[:, 0].to(bias_type)
        return grad_hidden_NE, grad_table_VE, grad_bias_V, None, None, None, None
