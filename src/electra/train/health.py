"""Is it learning? From tensors of a forward pass to totals, and from totals to figures; `verdicts` reads the figures.

In: logits, labels and hidden states of a micro-batch. `rtd_totals` and `mlm_totals` reduce them to a few small tensors that
may be summed over micro-batches, ranks and steps (`Losses.totals`); `rtd_figures` and `mlm_figures` turn such sums into
floats (`Objective.summarise`).

Accuracy is no figure here, because predicting "original" everywhere has 92 % of it. With r the share of replaced tokens,
the *prior gain* H(r) - (mean RTD loss) is what the discriminator knows beyond r, in nats per token. ROC-AUC and average
precision come from histograms of the logits. Token RMS is the distance of hidden states from the mean of their row: zero
where all tokens look the same. The histogram of drawn positions over the columns of the row, each bin divided by what
uniform drawing would give, shows masks that never reach the end of a row.

Shapes: B rows, L positions of a row, T = tokens of a packed batch, K drawn positions of a row, D hidden size; "token shape"
is [B, L] (Padded) or [T] (Packed).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from electra.contracts import Layout, Padded
from electra.events import HISTOGRAM_PREFIX
from electra.metrics import binned_auc, binned_average_precision, binned_precision_recall, entropy

#: histogram of logits: equal bins over [-LOGIT_RANGE, LOGIT_RANGE]; even, so that .5 is a bin's edge
LOGIT_BINS = 1024
LOGIT_RANGE = 12.0
#: histogram of drawn positions over the columns of a row
POSITION_BINS = 16
#: a position bin is reported where uniform drawing would have put this many draws into it
EXPECTED_DRAWS = 16


# -- tensors to totals --------------------------------------------------------------------------------------------------


@torch.no_grad()
def rtd_totals(
    logits: Tensor, replaced: Tensor, hidden: Tensor, layout: Layout, judged: Tensor | None = None
) -> dict[str, Tensor]:
    """What the discriminator's figures need of one micro-batch.

    Args:
        logits: token shape; positive = replaced.
        replaced: bool, token shape; the labels.
        hidden: token shape + [D]; the discriminator's last hidden states.
        layout: says which tokens are real.
        judged: bool, token shape; the real tokens that the discriminator learns from; None = all of them.

    Returns:
        `rtd_histogram` int64 [2, LOGIT_BINS] (row 0 originals, row 1 replaced; logits beyond the range fall into the outer
        bins), `rtd_loss` float32 [] (sum of the BCE), `rtd_deviation` float32 [] (sum of the squared deviation from the row's
        mean, averaged over D; a packed document counts as a row); all of them over the judged tokens.
    """
    judged = layout.real if judged is None else judged & layout.real
    scores = logits.float()
    losses = F.softplus(scores) - scores * replaced
    return {
        "rtd_histogram": label_histogram(scores, replaced, judged),
        "rtd_loss": torch.where(judged, losses, 0.0).sum(),
        "rtd_deviation": _deviation(hidden, layout, judged),
    }


@torch.no_grad()
def label_histogram(logits: Tensor, positive: Tensor, counts: Tensor) -> Tensor:
    """int64 [2, LOGIT_BINS], how many of the `logits` that count lie in each bin; row 0 negatives, row 1 positives.

    Args:
        logits, positive, counts: of one shape; the last two bool.
    """
    inside = logits.float().reshape(-1).clamp(-LOGIT_RANGE, LOGIT_RANGE)
    bins = ((inside + LOGIT_RANGE) * (LOGIT_BINS / (2 * LOGIT_RANGE))).long().clamp(0, LOGIT_BINS - 1)  # nan: to some bin
    # what does not count goes into a third row, which is cut off: no gather of a data-dependent size
    rows = torch.where(counts.reshape(-1), positive.reshape(-1).long(), 2)
    return torch.bincount(rows * LOGIT_BINS + bins, minlength=3 * LOGIT_BINS).view(3, LOGIT_BINS)[:2]


def _deviation(hidden: Tensor, layout: Layout, judged: Tensor) -> Tensor:
    """Sum over judged tokens of the mean over D of (h - mean of the row's real tokens)^2; float32 []."""
    if isinstance(layout, Padded):
        hidden_BLD = hidden.float()
        real_BL = layout.real.float()
        count_B1 = real_BL.sum(1, keepdim=True).clamp(min=1)
        mean_BD = torch.einsum("bl,bld->bd", real_BL / count_B1, hidden_BLD)
        squares_BL = (hidden_BLD - mean_BD[:, None]).square().mean(-1)
        return (squares_BL * judged).sum()
    hidden_TD = hidden.float()
    lengths_N = layout.cu_seqlens.diff().long()
    document_T = torch.repeat_interleave(torch.arange(len(lengths_N), device=hidden.device), lengths_N, output_size=len(hidden))
    sums_ND = hidden_TD.new_zeros(len(lengths_N), hidden.shape[-1]).index_add_(0, document_T, hidden_TD)
    mean_ND = sums_ND / lengths_N.clamp(min=1)[:, None]
    return ((hidden_TD - mean_ND[document_T]).square().mean(-1) * judged).sum()


@torch.no_grad()
def mlm_totals(
    losses_BK: Tensor, correct_BK: Tensor, drawn_BK: Tensor, weight_BK: Tensor, candidates: Tensor
) -> dict[str, Tensor]:
    """What the figures of a masked language model need of one micro-batch.

    Args:
        losses_BK: cross entropy at each drawn position, in nats.
        correct_BK: bool, the most likely token is the original.
        drawn_BK: int64, indices into the flattened tokens.
        weight_BK: float, 1 where a drawn position counts.
        candidates: bool, token shape; which tokens may be drawn (real, neither [CLS], [SEP] nor [MASK]).

    Returns:
        `mlm_loss` float32 [], `mlm_correct` float32 [], `mlm_drawn` float32 [] (sums over the drawn positions that count),
        and `position_totals`.
    """
    weight = weight_BK.float()
    return {
        "mlm_loss": torch.where(weight > 0, losses_BK.float() * weight, 0.0).sum(),
        "mlm_correct": (correct_BK * weight).sum(),
        "mlm_drawn": weight.sum(),
        **position_totals(drawn_BK, weight_BK, candidates),
    }


@torch.no_grad()
def position_totals(drawn_BK: Tensor, weight_BK: Tensor, candidates: Tensor) -> dict[str, Tensor]:
    """Where the positions of one micro-batch were drawn; arguments as of `mlm_totals`.

    Returns:
        `drawn_positions` int64 [2, POSITION_BINS] (row 0 draws, row 1 candidates, by column of the row; in a packed batch
        every row is taken to be as long as the average, which all are but the last of a shard).
    """
    width = candidates.shape[1] if candidates.dim() == 2 else -(-candidates.numel() // drawn_BK.shape[0])
    column_T = torch.arange(candidates.numel(), device=candidates.device) % width
    bin_T = column_T * POSITION_BINS // width
    drawn_bins = torch.where(weight_BK > 0, bin_T[drawn_BK], POSITION_BINS).reshape(-1)
    candidate_bins = torch.where(candidates.reshape(-1), bin_T, POSITION_BINS)
    positions = [torch.bincount(bins, minlength=POSITION_BINS + 1)[:POSITION_BINS] for bins in (drawn_bins, candidate_bins)]
    return {"drawn_positions": torch.stack(positions)}


# -- totals to figures --------------------------------------------------------------------------------------------------


def rtd_figures(totals: Mapping[str, Tensor]) -> dict[str, float]:
    """Figures of the discriminator from summed `rtd_totals`: means over all real tokens; {} where there are none.

    `rtd_loss` and `prior_gain` in nats per token; `auc` and `average_precision` are nan where nothing was replaced.
    """
    negatives, positives = totals["rtd_histogram"].cpu().numpy()
    real = int(negatives.sum() + positives.sum())
    if real == 0:
        return {}
    share = float(positives.sum()) / real
    loss = float(totals["rtd_loss"]) / real
    precision, recall = binned_precision_recall(negatives, positives)
    return {
        "rtd_loss": loss,
        "prior_gain": entropy([share, 1 - share]) - loss,
        "auc": binned_auc(negatives, positives),
        "average_precision": binned_average_precision(negatives, positives),
        "recall": recall,
        "precision": precision,
        "replaced_share": share,
        "token_rms": math.sqrt(float(totals["rtd_deviation"]) / real),
    }


def mlm_figures(totals: Mapping[str, Tensor]) -> dict[str, float]:
    """Figures of a masked language model from summed `mlm_totals`; {} where nothing was drawn.

    `mlm_loss` in nats per drawn position, and so is `generator_entropy`, the mean of -log p of the sampled tokens, where
    `totals` have its sum, `sampled_nll`; `mlm_accuracy`; and `position_figures`.
    """
    drawn = float(totals["mlm_drawn"])
    if drawn == 0:
        return {}
    figures = {"mlm_loss": float(totals["mlm_loss"]) / drawn, "mlm_accuracy": float(totals["mlm_correct"]) / drawn}
    if "sampled_nll" in totals:
        figures["generator_entropy"] = float(totals["sampled_nll"]) / drawn
    return figures | position_figures(totals)


def position_figures(totals: Mapping[str, Tensor]) -> dict[str, float]:
    """Figures of the masks from summed `position_totals`.

    `drawn_at_00` ... `drawn_at_15`: how often a column of that sixteenth of the row was drawn, relative to uniform drawing (1),
    reported where enough draws were expected; `position_uniformity`: the least of them.
    """
    draws, candidates = totals["drawn_positions"].double()
    expected = (candidates * (draws.sum() / candidates.sum().clamp(min=1))).tolist()
    bars = {
        f"{HISTOGRAM_PREFIX}{index:02}": count / expectation
        for index, (count, expectation) in enumerate(zip(draws.tolist(), expected, strict=True))
        if expectation >= EXPECTED_DRAWS
    }
    return {**({"position_uniformity": min(bars.values())} if bars else {}), **bars}
